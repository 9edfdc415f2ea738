//! Rotations of blocks of the inputs, which OFT and BOFT share: skew-symmetric matrices, their Cayley transform, and its
//! application to rows.

use lowrank_tensor::{Int, Tensor, TensorData, to_rows};

/// `Q = U − Uᵀ` for each row of entries above the diagonal: `[blocks, b(b−1)/2] -> [blocks, b, b]`.
pub(super) fn skew(entries: Tensor<2>, size: usize) -> Tensor<3> {
    let [blocks, _] = entries.dims();
    if size < 2 {
        return Tensor::zeros([blocks, size, size], &entries.device());
    }
    let (mut places, mut signs) = (vec![0_i64; size * size], vec![0.0_f32; size * size]);
    let above = (0..size).flat_map(|row| (row + 1..size).map(move |col| (row, col)));
    for (place, (row, col)) in above.enumerate() {
        for (at, sign) in [(row * size + col, 1.0), (col * size + row, -1.0)] {
            (places[at], signs[at]) = (place as i64, sign);
        }
    }
    let device = entries.device().without_autodiff();
    let places = Tensor::<1, Int>::from_data(TensorData::new(places, [size * size]), &device);
    let signs = Tensor::<2>::from_data(TensorData::new(signs, [1, size * size]), &device);
    (entries.select(1, places) * signs).reshape([blocks, size, size])
}

fn identity(size: usize, like: &Tensor<3>) -> Tensor<3> {
    let values = (0..size * size).map(|at| if at % (size + 1) == 0 { 1.0_f32 } else { 0.0 }).collect();
    Tensor::from_data(TensorData::new(values, [1, size, size]), &like.device().without_autodiff())
}

/// `(I − Q)(I + Q)⁻¹` of each block, orthogonal where Q is skew-symmetric.
///
/// The inverse is found outside the graph, in f64; one step of Newton's iteration from it, `X = M(2I − (I + Q)M)`, is the
/// inverse again and has its derivative, `−M dQ M`.
pub(super) fn cayley(q: Tensor<3>) -> Tensor<3> {
    let [blocks, size, _] = q.dims();
    let one = identity(size, &q);
    let mut inverses = Vec::with_capacity(blocks * size * size);
    for block in to_rows(q.clone()).chunks_exact((size * size).max(1)) {
        inverses.extend(inverse_of_one_plus(block, size));
    }
    let inverse = Tensor::<3>::from_data(
        TensorData::new(inverses, [blocks, size, size]),
        &q.device().without_autodiff(),
    );
    let sum = q.clone() + one.clone();
    let inverse = inverse.clone() * 2.0 - inverse.clone().matmul(sum).matmul(inverse);
    (q.neg() + one).matmul(inverse)
}

/// `(I + Q)⁻¹` by Gauss–Jordan elimination with row pivots. The symmetric part of I + Q is I for a skew-symmetric Q, so a
/// pivot never vanishes.
fn inverse_of_one_plus(q: &[f32], size: usize) -> Vec<f32> {
    let width = 2 * size;
    let mut rows = vec![0.0_f64; size * width];
    for i in 0..size {
        for j in 0..size {
            rows[i * width + j] = f64::from(q[i * size + j]) + if i == j { 1.0 } else { 0.0 };
        }
        rows[i * width + size + i] = 1.0;
    }
    for k in 0..size {
        let largest = |&i: &usize| rows[i * width + k].abs();
        let pivot = (k..size).max_by(|i, j| largest(i).total_cmp(&largest(j))).unwrap_or(k);
        for j in 0..width {
            rows.swap(k * width + j, pivot * width + j);
        }
        let by = rows[k * width + k];
        rows[k * width..(k + 1) * width].iter_mut().for_each(|value| *value /= by);
        let pivot_row = rows[k * width..(k + 1) * width].to_vec();
        for i in (0..size).filter(|i| *i != k) {
            let by = rows[i * width + k];
            let row = &mut rows[i * width..(i + 1) * width];
            row.iter_mut().zip(&pivot_row).for_each(|(value, pivot)| *value -= by * pivot);
        }
    }
    rows.chunks_exact(width).flat_map(|row| row[size..].iter().map(|value| *value as f32)).collect()
}

/// `I + 2Q + 2Q² + … + 2Qᵏ⁻² + Qᵏ⁻¹` of each block: the Cayley transform of −Q by k terms of Neumann's series, as PEFT
/// writes it; orthogonal only for small Q.
pub(super) fn neumann(q: Tensor<3>, terms: usize) -> Tensor<3> {
    let [_, size, _] = q.dims();
    let mut sum = q.clone() * 2.0 + identity(size, &q);
    let mut power = q.clone();
    // Three terms are four, as in PEFT.
    for _ in 2..terms.max(4) - 1 {
        power = power.matmul(q.clone());
        sum = sum + power.clone() * 2.0;
    }
    sum + power.matmul(q)
}

/// Each block of `size` columns of x `[n, in]` times its block `[b, b]`; one block serves all where there is only one.
pub(super) fn rotate(x: Tensor<2>, blocks: Tensor<3>) -> Tensor<2> {
    let ([n, inp], [count, size, _]) = (x.dims(), blocks.dims());
    if count == 1 {
        let block = blocks.reshape([size, size]);
        return x.reshape([n * (inp / size), size]).matmul(block).reshape([n, inp]);
    }
    let parts = x.reshape([n, count, size]).swap_dims(0, 1);
    parts.matmul(blocks).swap_dims(0, 1).reshape([n, inp])
}

#[cfg(test)]
mod tests {
    use super::*;
    use lowrank_record::Seed;
    use lowrank_tensor::cpu;

    fn blocks(count: usize, size: usize, by: f32) -> Tensor<3> {
        let entries = size * (size - 1) / 2;
        let values = Seed(3).normal(count * entries).into_iter().map(|value| by * value).collect();
        skew(Tensor::from_data(TensorData::new(values, [count, entries]), &cpu()), size)
    }

    fn worst(a: Tensor<3>, b: Tensor<3>) -> f32 {
        to_rows(a).iter().zip(to_rows(b)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    }

    #[test]
    fn the_transform_of_a_skew_matrix_is_orthogonal() {
        let q = blocks(3, 5, 2.0);
        assert!(worst(q.clone(), q.clone().swap_dims(1, 2).neg()) == 0.0);
        let rotation = cayley(q.clone());
        let one = identity(5, &rotation).repeat_dim(0, 3);
        assert!(worst(rotation.clone().matmul(rotation.swap_dims(1, 2)), one) < 1e-5);
        assert!(worst(cayley(q.clone() * 0.0), identity(5, &q).repeat_dim(0, 3)) == 0.0);
    }

    #[test]
    fn the_series_nears_the_transform_of_a_small_matrix() {
        let q = blocks(2, 4, 0.05);
        let exact = cayley(q.clone().neg());
        let errors: Vec<f32> =
            [3, 5, 7].map(|terms| worst(neumann(q.clone(), terms), exact.clone())).to_vec();
        assert!(errors[0] < 2e-2 && errors[1] < errors[0] && errors[2] < 1e-5, "{errors:?}");
    }

    #[test]
    fn one_block_serves_all_columns() {
        let x = Tensor::<2>::from_data(TensorData::new(Seed(4).normal(24), [2, 12]), &cpu());
        let block = cayley(blocks(1, 4, 1.0));
        let all = rotate(x.clone(), block.clone().repeat_dim(0, 3));
        let gap = to_rows(rotate(x, block))
            .iter()
            .zip(to_rows(all))
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max);
        assert!(gap < 1e-6, "{gap}");
    }
}
