//! A matrix that can be multiplied with, and need not be held.

use faer::{Mat, MatRef};

use crate::product::{add_over_tokens, energy, multiply, narrow};
use crate::{LinalgError, LowRank};

/// A matrix `[rows, cols]` known by its products.
pub trait Operator: Sync {
    /// Rows (`out`).
    fn rows(&self) -> usize;
    /// Columns (`in`).
    fn cols(&self) -> usize;
    /// `M · x`: `[cols, k] -> [rows, k]`.
    fn apply(&self, x: MatRef<'_, f32>) -> Mat<f32>;
    /// `Mᵀ · x`: `[rows, k] -> [cols, k]`.
    fn apply_transpose(&self, x: MatRef<'_, f32>) -> Mat<f32>;
    /// `‖M‖²_F` where it is cheap to know exactly.
    fn energy(&self) -> Option<f64> {
        None
    }
}

impl Operator for MatRef<'_, f32> {
    fn rows(&self) -> usize {
        self.nrows()
    }
    fn cols(&self) -> usize {
        self.ncols()
    }
    fn apply(&self, x: MatRef<'_, f32>) -> Mat<f32> {
        multiply(*self, x)
    }
    fn apply_transpose(&self, x: MatRef<'_, f32>) -> Mat<f32> {
        multiply(self.transpose(), x)
    }
    fn energy(&self) -> Option<f64> {
        Some(energy(*self))
    }
}

/// `Σ_b δ_bᵀ · X_b`, `[out, in]`, with δ_b `[n_b, out]` and X_b `[n_b, in]`: the weight gradient of a linear layer,
/// δ its output gradients and X its inputs, never formed. A product with k columns costs `2·n·k·(out + in)`
/// operations instead of the `2·n·out·in` of forming it.
#[derive(Debug, Clone)]
pub struct OuterProducts<'a> {
    out: usize,
    inp: usize,
    batches: Vec<(MatRef<'a, f32>, MatRef<'a, f32>)>,
}

impl<'a> OuterProducts<'a> {
    /// The empty sum, a zero matrix `[out, inp]`.
    #[must_use]
    pub fn new(out: usize, inp: usize) -> Self {
        OuterProducts { out, inp, batches: Vec::new() }
    }

    /// Adds `deltaᵀ · x`, `delta: [n, out]`, `x: [n, in]`.
    ///
    /// # Errors
    /// [`LinalgError::Shape`].
    pub fn push(&mut self, delta: MatRef<'a, f32>, x: MatRef<'a, f32>) -> Result<(), LinalgError> {
        outer_shapes(delta, x, self.out, self.inp)?;
        self.batches.push((delta, x));
        Ok(())
    }

    /// The sum itself, `[out, in]`.
    #[must_use]
    pub fn form(&self) -> Mat<f32> {
        self.sum(self.out, self.inp, add_over_tokens)
    }

    /// Whether forming the sum and multiplying that with `k` columns `products` times costs fewer operations than that
    /// many products without forming it: so for small layers and many tokens.
    #[must_use]
    pub fn is_cheaper_formed(&self, products: usize, k: usize) -> bool {
        let tokens: usize = self.batches.iter().map(|(_, inputs)| inputs.nrows()).sum();
        let (sides, whole) = (self.out + self.inp, self.out * self.inp);
        (tokens + products * k) * whole < products * k * tokens * sides
    }

    /// What `add` makes of each batch `(sum, δ, X)`, in their order: as [`crate::SubspaceIteration::absorb_outer`] adds
    /// them up, bit for bit.
    fn sum(
        &self,
        rows: usize,
        k: usize,
        add: impl Fn(&mut Mat<f64>, MatRef<'a, f32>, MatRef<'a, f32>),
    ) -> Mat<f32> {
        let mut sum = Mat::zeros(rows, k);
        for &(delta, inputs) in &self.batches {
            add(&mut sum, delta, inputs);
        }
        narrow(sum.as_ref())
    }
}

/// Checks `delta: [n, out]` and `x: [n, in]`.
pub(crate) fn outer_shapes(
    delta: MatRef<'_, f32>,
    x: MatRef<'_, f32>,
    out: usize,
    inp: usize,
) -> Result<(), LinalgError> {
    let n = x.nrows();
    for (what, found, want_cols) in
        [("output gradients of a batch", delta, out), ("inputs of a batch", x, inp)]
    {
        let (rows, cols) = found.shape();
        if (rows, cols) != (n, want_cols) {
            return Err(LinalgError::Shape { what, want_rows: n, want_cols, rows, cols });
        }
    }
    Ok(())
}

impl Operator for OuterProducts<'_> {
    fn rows(&self) -> usize {
        self.out
    }
    fn cols(&self) -> usize {
        self.inp
    }
    fn apply(&self, x: MatRef<'_, f32>) -> Mat<f32> {
        self.sum(self.out, x.ncols(), |sum, delta, inputs| {
            add_over_tokens(sum, delta, multiply(inputs, x).as_ref());
        })
    }
    fn apply_transpose(&self, x: MatRef<'_, f32>) -> Mat<f32> {
        self.sum(self.inp, x.ncols(), |sum, delta, inputs| {
            add_over_tokens(sum, inputs, multiply(delta, x).as_ref());
        })
    }
}

impl Operator for Mat<f32> {
    fn rows(&self) -> usize {
        self.nrows()
    }
    fn cols(&self) -> usize {
        self.ncols()
    }
    fn apply(&self, x: MatRef<'_, f32>) -> Mat<f32> {
        Operator::apply(&self.as_ref(), x)
    }
    fn apply_transpose(&self, x: MatRef<'_, f32>) -> Mat<f32> {
        Operator::apply_transpose(&self.as_ref(), x)
    }
    fn energy(&self) -> Option<f64> {
        Some(energy(self.as_ref()))
    }
}

// The trait is used as `&dyn Operator`.
const _: fn(&LowRank) -> &dyn Operator = |factors| factors;

#[cfg(test)]
mod tests {
    use lowrank_record::Seed;

    use super::*;
    use crate::from_rows;

    #[test]
    fn the_formed_sum_has_the_same_products() {
        let random = |name: &str, rows: usize, cols: usize| {
            from_rows(&Seed(1).at("outer", name).normal(rows * cols), rows, cols).unwrap()
        };
        let (delta, x) =
            ([random("d0", 11, 5), random("d1", 4, 5)], [random("x0", 11, 7), random("x1", 4, 7)]);
        let mut gradient = OuterProducts::new(5, 7);
        for (delta, x) in delta.iter().zip(&x) {
            gradient.push(delta.as_ref(), x.as_ref()).unwrap();
        }
        let (formed, right, left) = (gradient.form(), random("r", 7, 3), random("l", 5, 3));
        let close =
            |a: Mat<f32>, b: Mat<f32>| assert!(energy((a - &b).as_ref()) < 1e-10 * energy(b.as_ref()));
        close(gradient.apply(right.as_ref()), formed.apply(right.as_ref()));
        close(gradient.apply_transpose(left.as_ref()), formed.apply_transpose(left.as_ref()));
        // 15 tokens: 6·3·15·12 operations unformed, (15 + 18)·35 formed.
        assert!(gradient.is_cheaper_formed(6, 3) && !gradient.is_cheaper_formed(1, 1));
    }
}
