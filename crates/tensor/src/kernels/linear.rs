//! `y = x wᵀ + bias + (x rightᵀ) leftᵀ` and its gradients, without one for w.
//!
//! Floor: 2·n·in·out flops forward and the same backward; the low-rank path adds 2·n·r·(in + out) forward and twice that
//! backward.

use faer::MatRef;

use super::memory::zeros;
use super::{Real, RowSource, product};

/// The factors of a low-rank path.
#[derive(Debug, Clone, Copy)]
pub struct LowRank<'a, T> {
    /// `[out, r]`.
    pub left: &'a [T],
    /// `[r, in]`.
    pub right: &'a [T],
}

/// Which gradients are wanted.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// Of the input.
    pub dx: bool,
    /// Of the left factor.
    pub dleft: bool,
    /// Of the right factor.
    pub dright: bool,
}

/// Gradients that were wanted.
#[derive(Debug, Clone)]
pub struct Gradients<T> {
    /// `[n, in]`.
    pub dx: Option<Vec<T>>,
    /// `[out, r]`.
    pub dleft: Option<Vec<T>>,
    /// `[r, in]`.
    pub dright: Option<Vec<T>>,
}

/// Returns `y [n, out]` and `hidden = x rightᵀ [n, r]` (empty without a low-rank path).
///
/// # Shapes
/// `x: [n, in]`, `w: [out, in]`, `bias: [out]`.
pub fn forward<T: Real>(
    x: &[T],
    w: &dyn RowSource<T>,
    bias: Option<&[T]>,
    low_rank: Option<LowRank<'_, T>>,
) -> (Vec<T>, Vec<T>) {
    let (out, inp) = (w.rows(), w.cols());
    let n = x.len() / inp.max(1);
    let mut y = zeros(n * out);
    if let Some(bias) = bias {
        y.chunks_exact_mut(out.max(1)).for_each(|row| row.copy_from_slice(bias));
    }
    let r = low_rank.map_or(0, |path| path.right.len() / inp.max(1));
    let mut hidden = zeros(n * r);
    if product::is_few(n) {
        product::few(&mut y, x, w, bias.is_some());
    } else {
        let mut scratch = Vec::new();
        let w = w.read(0..out, &mut scratch);
        if let Some(LowRank { left, right }) = low_rank
            && product::shares(n)
        {
            let transposed =
                |values, rows, cols| MatRef::from_row_major_slice(values, rows, cols).transpose();
            let parts = [transposed(w, out, inp), transposed(right, r, inp), transposed(left, out, r)];
            product::beside(&mut y, &mut hidden, x, parts, bias.is_some());
            return (y, hidden);
        }
        product::nt(&mut y, x, w, [n, inp, out], bias.is_some());
    }
    let Some(LowRank { left, right }) = low_rank else { return (y, hidden) };
    product::nt(&mut hidden, x, right, [n, inp, r], false);
    product::nt(&mut y, &hidden, left, [n, r, out], true);
    (y, hidden)
}

/// `dh = dy·left`, `dright = dhᵀ x`, `dleft = dyᵀ hidden`, `dx = dy·w + dh·right`.
///
/// # Shapes
/// `dy: [n, out]`; `x` and `hidden` as in [`forward`], empty without a low-rank path.
pub fn backward<T: Real>(
    dy: &[T],
    x: &[T],
    hidden: &[T],
    w: &dyn RowSource<T>,
    low_rank: Option<LowRank<'_, T>>,
    wanted: Wanted,
) -> Gradients<T> {
    let (out, inp) = (w.rows(), w.cols());
    let n = dy.len() / out.max(1);
    let mut gradients = Gradients { dx: None, dleft: None, dright: None };
    let Some(LowRank { left, right }) = low_rank else {
        if wanted.dx {
            let (mut dx, mut scratch) = (zeros(n * inp), Vec::new());
            product::nn(&mut dx, dy, w.read(0..out, &mut scratch), [n, out, inp], false);
            gradients.dx = Some(dx);
        }
        return gradients;
    };
    let r = right.len() / inp.max(1);
    let mut dh = zeros(n * r);
    if wanted.dx {
        let (mut dx, mut scratch) = (zeros(n * inp), Vec::new());
        let w = w.read(0..out, &mut scratch);
        if product::shares(n) {
            let rows = MatRef::from_row_major_slice;
            product::beside(
                &mut dx,
                &mut dh,
                dy,
                [rows(w, out, inp), rows(left, out, r), rows(right, r, inp)],
                false,
            );
        } else {
            product::nn(&mut dh, dy, left, [n, out, r], false);
            product::nn(&mut dx, dy, w, [n, out, inp], false);
            product::nn(&mut dx, &dh, right, [n, r, inp], true);
        }
        gradients.dx = Some(dx);
    } else {
        product::nn(&mut dh, dy, left, [n, out, r], false);
    }
    let dright = || {
        let mut dright = zeros(r * inp);
        product::tn(&mut dright, &dh, x, [n, r, inp], false);
        dright
    };
    let dleft = || {
        let mut dleft = zeros(out * r);
        product::tn(&mut dleft, dy, hidden, [n, out, r], false);
        dleft
    };
    (gradients.dright, gradients.dleft) =
        rayon::join(|| wanted.dright.then(dright), || wanted.dleft.then(dleft));
    gradients
}
