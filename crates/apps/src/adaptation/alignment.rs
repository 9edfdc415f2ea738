//! How well a method's first step follows the full gradient.
//!
//! With `ΔW = s·left·right` and G the gradient of the loss by W, a step of plain gradient descent at rate 1 moves the
//! factors by `−g_left = −s·G·rightᵀ` and `−g_right = −s·leftᵀ·G`, and so, to first order, the weight by
//! `D = −s·(g_left·right + left·g_right)`. Its cosine with −G over all layers,
//! `Σ⟨−G, D⟩ / (√Σ‖G‖²·√Σ‖D‖²)` with `⟨−G, D⟩ = ‖g_left‖² + ‖g_right‖²`, is 1 for full fine-tuning. The numerator needs the
//! factors' own gradients alone, D is of rank 2r, and G is never formed for it.

use std::collections::BTreeMap;

use lowrank_init::{Exactness, GradientMap, Leading};
use lowrank_linalg::{LowRank, Sketch};
use lowrank_record::Seed;

use super::Adaptation;
use super::prepare::{Prepared, Started};
use crate::AppError;
use crate::subject::Subject;
use lowrank_command::Because;

/// `‖G‖²_F` of each layer on the batch of the first step, by name; estimated from sixteen random directions where a layer's
/// gradient is not formed.
///
/// # Errors
/// As collecting evidence.
pub(crate) fn energies<N: Subject>(
    prepared: &mut Prepared<N>,
    options: &Adaptation,
) -> Result<BTreeMap<String, f64>, AppError> {
    let sketch = Sketch { oversampling: 15, power: 0 };
    let of = GradientMap::Itself;
    let leading = Leading { count: 1, exactness: Exactness::Fast, sketch, of };
    let options = Adaptation { calibration: 0, calibration_tokens: None, ..options.clone() };
    let gradients = prepared.gradients(&options, &|_| leading, Seed(options.seed).at("compare", "energy"))?;
    Ok(gradients.sites.into_iter().map(|(name, sketched)| (name, sketched.energy)).collect())
}

/// The cosine of the first step, from the gradients of the mean loss in the order of the started variables; `None` for a
/// form that does not train exactly two factors.
///
/// # Errors
/// [`AppError::Failed`] for gradients that are not finite.
pub(crate) fn first_step(
    started: &Started,
    gradients: &[Vec<f32>],
    energies: &BTreeMap<String, f64>,
) -> Result<Option<f64>, AppError> {
    let (mut inner, mut energy, mut moved) = (0.0, 0.0, 0.0);
    let mut gradients = gradients.iter();
    for each in &started.attached {
        let (mut left, mut right) = (None, None);
        for (part, _) in &each.variables {
            let gradient = gradients.next();
            match *part {
                "left" => left = gradient,
                "right" => right = gradient,
                _ => return Ok(None),
            }
        }
        let (Some(left), Some(right), Some(size), Some((left0, right0))) =
            (left, right, energies.get(&each.site.name), &each.initial)
        else {
            return Ok(None);
        };
        let [out, inp] = each.site.shape;
        let pair = |left: &[f32], right: &[f32]| {
            LowRank::from_rows(left, right, out, inp, each.site.rank).while_doing(&each.site.name)
        };
        let part = first_order(&pair(left, right0)?, &pair(left0, right)?, each.site.scale)
            .while_doing(&each.site.name)?;
        inner += squares(left) + squares(right);
        moved += part * part;
        energy += size;
    }
    let size = (energy * moved).sqrt();
    Ok((size > 0.0).then(|| inner / size))
}

/// `‖s·(g_left·right + left·g_right)‖`.
fn first_order(
    by_left: &LowRank,
    by_right: &LowRank,
    scale: f64,
) -> Result<f64, lowrank_linalg::LinalgError> {
    Ok(scale * by_left.add(by_right)?.norm()?)
}

fn squares(values: &[f32]) -> f64 {
    values.iter().map(|&value| f64::from(value).powi(2)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `a [n, k] · b [k, m]`, row-major.
    fn product(a: &[f32], b: &[f32], [n, k, m]: [usize; 3]) -> Vec<f32> {
        let entry = |at: usize| (0..k).map(|i| a[at / m * k + i] * b[i * m + at % m]).sum();
        (0..n * m).map(entry).collect()
    }

    fn transposed(a: &[f32], [n, m]: [usize; 2]) -> Vec<f32> {
        (0..n * m).map(|at| a[at % n * m + at / n]).collect()
    }

    #[test]
    fn the_first_order_change_is_that_of_a_small_step() {
        let (out, inp, rank, scale) = (9, 7, 2, 1.5_f32);
        let draw = |name: &str, count| Seed(3).at("test", name).normal(count);
        let (left, right, full) =
            (draw("left", out * rank), draw("right", rank * inp), draw("gradient", out * inp));
        // g_left = s·G·rightᵀ, g_right = s·leftᵀ·G.
        let scaled = |values: Vec<f32>| values.into_iter().map(|value| scale * value).collect::<Vec<f32>>();
        let by_left = scaled(product(&full, &transposed(&right, [rank, inp]), [out, inp, rank]));
        let by_right = scaled(product(&transposed(&left, [out, rank]), &full, [rank, out, inp]));
        let pair = |left: &[f32], right: &[f32]| LowRank::from_rows(left, right, out, inp, rank).unwrap();
        let found = first_order(&pair(&by_left, &right), &pair(&left, &by_right), f64::from(scale)).unwrap();
        // The change of s·left·right by a step of 1e-3, over 1e-3.
        let step = 1e-3_f32;
        let stepped = |values: &[f32], gradient: &[f32]| -> Vec<f32> {
            values.iter().zip(gradient).map(|(value, gradient)| value - step * gradient).collect()
        };
        let after = product(&stepped(&left, &by_left), &stepped(&right, &by_right), [out, rank, inp]);
        let before = product(&left, &right, [out, rank, inp]);
        let change: Vec<f32> =
            after.iter().zip(&before).map(|(after, before)| scale * (after - before) / step).collect();
        let measured = squares(&change).sqrt();
        assert!((found / measured - 1.0).abs() < 0.05, "{found} {measured}");
        // ⟨−G, D⟩ is the sum of the squares of the factors' gradients.
        let inner: f64 = full.iter().zip(&change).map(|(g, d)| -f64::from(*g) * f64::from(*d)).sum();
        let wanted = squares(&by_left) + squares(&by_right);
        assert!((inner / wanted - 1.0).abs() < 0.05, "{inner} {wanted}");
    }
}
