//! Inner products and sums of rows, written so that the compiler makes vector instructions of them. The order of the sums is fixed
//! by these loops alone, so neither threads nor instruction sets change a bit (no multiplication is fused with an addition).

/// Sums that run side by side.
const LANES: usize = 16;

/// `Σ_j row_j · x_j`, row in f32, everything else in f64.
#[inline(always)]
pub(super) fn dot_narrow(row: &[f32], x: &[f64]) -> f64 {
    let mut sums = [0.0; LANES];
    let (rows, row_rest) = row.as_chunks::<LANES>();
    let (xs, x_rest) = x.as_chunks::<LANES>();
    for (row, x) in rows.iter().zip(xs) {
        for lane in 0..LANES {
            sums[lane] += f64::from(row[lane]) * x[lane];
        }
    }
    let rest: f64 = row_rest.iter().zip(x_rest).map(|(&a, &x)| f64::from(a) * x).sum();
    sums.iter().sum::<f64>() + rest
}

/// `sum_j += Σ_g weights_g · rows_g[j]` over four rows at once, so that the sum is read and written once for all four.
#[inline(always)]
pub(super) fn add_narrow(rows: [&[f32]; 4], weights: [f64; 4], sum: &mut [f64]) {
    let [a, b, c, d] = rows.map(|row| &row[..sum.len()]);
    let [p, q, r, s] = weights;
    for j in 0..sum.len() {
        let first = p * f64::from(a[j]) + q * f64::from(b[j]);
        let second = r * f64::from(c[j]) + s * f64::from(d[j]);
        sum[j] += first + second;
    }
}

/// Lanes to which rows of factors are padded with zeros.
pub(super) const PADDED: usize = 8;

/// `Σ_j a_j · b_j` of rows padded to whole [`PADDED`] lanes.
#[inline(always)]
pub(super) fn dot_padded(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.0; PADDED];
    for (a, b) in a.as_chunks::<PADDED>().0.iter().zip(b.as_chunks::<PADDED>().0) {
        for lane in 0..PADDED {
            sums[lane] += a[lane] * b[lane];
        }
    }
    ((sums[0] + sums[4]) + (sums[1] + sums[5])) + ((sums[2] + sums[6]) + (sums[3] + sums[7]))
}

/// `sum += weight · row` of rows padded to whole [`PADDED`] lanes.
#[inline(always)]
pub(super) fn add_padded(weight: f64, row: &[f64], sum: &mut [f64]) {
    for (row, sum) in row.as_chunks::<PADDED>().0.iter().zip(sum.as_chunks_mut::<PADDED>().0) {
        for lane in 0..PADDED {
            sum[lane] += weight * row[lane];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lowrank_record::Seed;

    #[test]
    fn they_are_the_plain_sums() {
        for count in [1, 15, 16, 53, 400] {
            let row = Seed(1).normal(4 * count);
            let x: Vec<f64> = Seed(2).normal(count).into_iter().map(f64::from).collect();
            let plain: f64 = (0..count).map(|j| f64::from(row[j]) * x[j]).sum();
            assert!((dot_narrow(&row[..count], &x) - plain).abs() < 1e-12 * count as f64);
            let rows = [0, 1, 2, 3].map(|g| &row[g * count..(g + 1) * count]);
            let mut sum = x.clone();
            add_narrow(rows, [1.0, 0.5, -2.0, 0.25], &mut sum);
            for j in 0..count {
                let [a, b, c, d] = rows.map(|row| f64::from(row[j]));
                assert!((sum[j] - (x[j] + a + 0.5 * b - 2.0 * c + 0.25 * d)).abs() < 1e-13);
            }
        }
        let a: Vec<f64> = Seed(3).normal(24).into_iter().map(f64::from).collect();
        let mut sum = a.clone();
        add_padded(2.0, &a, &mut sum);
        let plain: f64 = a.iter().map(|x| x * x).sum();
        assert!((dot_padded(&a, &sum) - 3.0 * plain).abs() < 1e-12);
    }
}
