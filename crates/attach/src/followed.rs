//! How much of a layer's gradient G a start can follow, with G at hand.
//!
//! The trained values of `s·left·core·right` reach, to first order, a linear space of changes of the weight: for two trained
//! factors all `A·right + left·B`, onto which G is projected as `P_l G + G P_r − P_l G P_r`, P the projections on the columns of
//! left and the rows of right. The part `‖projection‖²/‖G‖²` is what any first step can see at all. The first step of plain
//! gradient descent goes its own way in that space: its cosine with G is never more than the root of the part.

use faer::{Mat, MatRef};
use lowrank_adapt::Reach;
use lowrank_linalg::{LinalgError, LowRank, directions, energy, multiply, svd_in_f64};

/// What of one layer's gradient a start follows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Followed {
    /// `‖projection of G‖²` on the changes that the trained values reach.
    pub seen: f64,
    /// `⟨−G, D⟩` with D the change of the weight by a step of gradient descent at rate 1, to first order.
    pub inner: f64,
    /// `‖D‖²`.
    pub moved: f64,
}

/// What a change `scale·left·core·right` whose trained values reach this far follows of G `[out, in]`; `None` for a form that does
/// not tell. No core is the identity.
///
/// # Errors
/// [`LinalgError`] for factors that are no numbers.
pub(crate) fn followed(
    reach: Reach,
    gradient: MatRef<'_, f32>,
    delta: &LowRank,
    core: Option<MatRef<'_, f32>>,
    scale: f64,
) -> Result<Option<Followed>, LinalgError> {
    let (of_left, of_right, of_core) = match reach {
        Reach::Factors { left, right } => (left, right, false),
        Reach::Core => (false, false, true),
        Reach::All => (true, true, true),
        Reach::Whole => {
            let all = energy(gradient);
            return Ok(Some(Followed { seen: all, inner: all, moved: all }));
        }
        Reach::Other => return Ok(None),
    };
    let (left, right) = (delta.left.as_ref(), delta.right.as_ref());
    // What stands beside each trained factor.
    let (beside_right, beside_left) = match core {
        Some(core) => (multiply(left, core), multiply(core, right)),
        None => (left.to_owned(), right.to_owned()),
    };
    let (a, b) = (columns(beside_right.as_ref())?, columns(beside_left.transpose())?);
    let seen_by = |basis: &Mat<f32>| multiply(basis.transpose(), gradient);
    let (by_a, by_b) = (seen_by(&a), multiply(gradient, b.as_ref()));
    let both = |rows: &Mat<f32>, basis: &Mat<f32>| energy(multiply(rows.as_ref(), basis.as_ref()).as_ref());
    let mut seen = 0.0;
    if of_right {
        seen += energy(by_a.as_ref());
    }
    if of_left {
        seen += energy(by_b.as_ref());
    }
    if of_left && of_right {
        seen -= both(&by_a, &b);
    }
    if of_core {
        let (l, r) = (columns(left)?, columns(right.transpose())?);
        let by_l = seen_by(&l);
        seen += both(&by_l, &r);
        if of_left && of_right {
            // What the factors reach already: the columns of left·core lie in those of left, and so on.
            seen += both(&by_a, &b) - both(&by_a, &r) - both(&by_l, &b);
        }
    }
    let (mut inner, mut parts): (f64, Vec<LowRank>) = (0.0, Vec::new());
    let mut moves = |gradient: &Mat<f32>, part: LowRank| {
        inner += energy(gradient.as_ref());
        parts.push(part);
    };
    if of_left {
        let step = multiply(gradient, beside_left.transpose());
        moves(&step, LowRank { left: step.clone(), right: beside_left.clone() });
    }
    if of_right {
        let step = multiply(beside_right.transpose(), gradient);
        moves(&step, LowRank { left: beside_right.clone(), right: step.clone() });
    }
    if of_core {
        let step = multiply(multiply(left.transpose(), gradient).as_ref(), right.transpose());
        moves(&step, LowRank { left: multiply(left, step.as_ref()), right: right.to_owned() });
    }
    let mut parts = parts.into_iter();
    let first = parts.next();
    let all = match first {
        Some(first) => parts.try_fold(first, |sum, part| sum.add(&part))?,
        None => return Ok(None),
    };
    let square = scale * scale;
    let moved = square * all.norm()?;
    Ok(Some(Followed { seen: seen.max(0.0), inner: square * inner, moved: moved * moved }))
}

/// An orthonormal basis of the columns, as many as there are directions: none for zeros.
fn columns(of: MatRef<'_, f32>) -> Result<Mat<f32>, LinalgError> {
    let svd = svd_in_f64(of)?;
    Ok(svd.left.as_ref().subcols(0, directions(&svd.values)).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use lowrank_linalg::from_rows;
    use lowrank_record::Seed;

    const OUT: usize = 7;
    const IN: usize = 9;
    const RANK: usize = 3;

    fn draw(name: &str, rows: usize, cols: usize) -> Mat<f32> {
        from_rows(&Seed(6).at("followed", name).normal(rows * cols), rows, cols).unwrap()
    }

    /// Every change that a unit step of one trained value makes, as columns `[out·in, values]`.
    fn reached(reach: Reach, delta: &LowRank, core: &Mat<f32>, scale: f64) -> Mat<f32> {
        let (of_left, of_right, of_core) = match reach {
            Reach::Factors { left, right } => (left, right, false),
            Reach::Core => (false, false, true),
            _ => (true, true, true),
        };
        let unit = |rows: usize, cols: usize, at: usize| {
            Mat::<f32>::from_fn(rows, cols, |i, j| f32::from(i * cols + j == at))
        };
        let product = |l: &Mat<f32>, c: &Mat<f32>, r: &Mat<f32>| -> Vec<f32> {
            let whole = multiply(multiply(l.as_ref(), c.as_ref()).as_ref(), r.as_ref());
            (0..OUT * IN).map(|at| scale as f32 * whole[(at / IN, at % IN)]).collect()
        };
        let (l, r) = (&delta.left, &delta.right);
        let mut all: Vec<Vec<f32>> = Vec::new();
        if of_left {
            all.extend((0..OUT * RANK).map(|at| product(&unit(OUT, RANK, at), core, r)));
        }
        if of_right {
            all.extend((0..RANK * IN).map(|at| product(l, core, &unit(RANK, IN, at))));
        }
        if of_core {
            all.extend((0..RANK * RANK).map(|at| product(l, &unit(RANK, RANK, at), r)));
        }
        Mat::from_fn(OUT * IN, all.len(), |i, j| all[j][i])
    }

    #[test]
    fn the_part_and_the_step_are_those_of_the_jacobian() {
        let gradient = draw("gradient", OUT, IN);
        let flat = Mat::<f32>::from_fn(OUT * IN, 1, |i, _| gradient[(i / IN, i % IN)]);
        let identity = Mat::<f32>::identity(RANK, RANK);
        // A core that loses a direction: what the factors reach is then less than with one that does not.
        let mut singular = draw("core", RANK, RANK);
        for j in 0..RANK {
            singular[(1, j)] = 2.0 * singular[(0, j)];
        }
        let zero = Mat::<f32>::zeros(OUT, RANK);
        let lora = [(true, true), (true, false), (false, true)];
        let mut cases: Vec<(Reach, Option<&Mat<f32>>, bool)> =
            lora.into_iter().map(|(left, right)| (Reach::Factors { left, right }, None, false)).collect();
        cases.extend([(Reach::Factors { left: true, right: true }, None, true), (Reach::Core, None, false)]);
        cases.extend([(Reach::Core, Some(&singular), false), (Reach::All, Some(&singular), false)]);
        for (reach, core, from_zero) in cases {
            let left = if from_zero { zero.clone() } else { draw("left", OUT, RANK) };
            let delta = LowRank::new(left, draw("right", RANK, IN)).unwrap();
            let jacobian = reached(reach, &delta, core.unwrap_or(&identity), 1.7);
            let found =
                followed(reach, gradient.as_ref(), &delta, core.map(Mat::as_ref), 1.7).unwrap().unwrap();
            let basis = columns(jacobian.as_ref()).unwrap();
            let seen = energy(multiply(basis.transpose(), flat.as_ref()).as_ref());
            let close = |a: f64, b: f64| (a - b).abs() < 2e-5 * b.abs().max(1e-9);
            assert!(close(found.seen, seen), "{reach:?}: {} {seen}", found.seen);
            // A step of descent is D = −J Jᵀ G.
            let by_values = multiply(jacobian.transpose(), flat.as_ref());
            let step = multiply(jacobian.as_ref(), by_values.as_ref());
            assert!(close(found.inner, energy(by_values.as_ref())), "{reach:?}: {}", found.inner);
            assert!(close(found.moved, energy(step.as_ref())), "{reach:?}: {}", found.moved);
            let (all, cosine) = (energy(gradient.as_ref()), found.inner / found.moved.sqrt());
            assert!(cosine / all.sqrt() <= (found.seen / all).sqrt() + 1e-6);
        }
        let nothing = LowRank::zeros(OUT, IN, RANK);
        let whole = followed(Reach::Whole, gradient.as_ref(), &nothing, None, 1.0).unwrap().unwrap();
        assert_eq!(whole.seen, energy(gradient.as_ref()));
        assert_eq!(followed(Reach::Other, gradient.as_ref(), &nothing, None, 1.0).unwrap(), None);
    }
}
