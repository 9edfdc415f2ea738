//! Position embeddings of a grid of patches that is not the one of training, by bicubic interpolation.

/// The cubic kernel's parameter as torch has it (Keys, "Cubic Convolution Interpolation for Digital Image Processing", 1981,
/// recommends −0.5).
const A: f64 = -0.75;

/// The four source indices, clamped at the edges, and their weights for one target index.
fn taps(target: usize, from: usize, to: usize) -> [(usize, f64); 4] {
    let at = (target as f64 + 0.5) * from as f64 / to as f64 - 0.5;
    let (floor, t) = (at.floor(), at - at.floor());
    let near = |x: f64| ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0;
    let far = |x: f64| ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A;
    let weights = [far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t)];
    let index = |offset: f64| (floor + offset).clamp(0.0, from as f64 - 1.0) as usize;
    [-1.0, 0.0, 1.0, 2.0]
        .map(index)
        .into_iter()
        .zip(weights)
        .collect::<Vec<_>>()
        .try_into()
        .unwrap_or_default()
}

/// Rows of `width` values on a grid, row-major, interpolated to another grid: `torch.nn.functional.interpolate` with mode
/// bicubic and corners not aligned, as `transformers` does it.
pub(super) fn interpolate(values: &[f32], width: usize, from: [usize; 2], to: [usize; 2]) -> Vec<f32> {
    let mut out = Vec::with_capacity(to[0] * to[1] * width);
    for row in 0..to[0] {
        let rows = taps(row, from[0], to[0]);
        for column in 0..to[1] {
            let columns = taps(column, from[1], to[1]);
            let mut sums = vec![0.0_f64; width];
            for (y, weight_y) in rows {
                for (x, weight_x) in columns {
                    let source = &values[(y * from[1] + x) * width..][..width];
                    for (sum, &value) in sums.iter_mut().zip(source) {
                        *sum += weight_y * weight_x * f64::from(value);
                    }
                }
            }
            out.extend(sums.into_iter().map(|sum| sum as f32));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_sum_to_one_and_the_same_grid_is_the_same() {
        for target in 0..7 {
            let sum: f64 = taps(target, 5, 7).iter().map(|(_, weight)| weight).sum();
            assert!((sum - 1.0).abs() < 1e-12, "{sum}");
        }
        let values: Vec<f32> = (0..24).map(|value| (value * value % 17) as f32).collect();
        assert_eq!(interpolate(&values, 2, [3, 4], [3, 4]), values);
    }

    #[test]
    fn another_grid_is_that_of_torch() {
        // torch.nn.functional.interpolate(i*i % 17 as [1, 1, 3, 4], size=(2, 5), mode="bicubic"), torch 2.15.0, CPU.
        let expected: [f32; 10] = [
            3.810_679,
            2.703_588_5,
            1.901_855_5,
            5.320_489_4,
            11.285_793, //
            14.371_522,
            12.721_459,
            12.489_38,
            10.065_119,
            4.741_441,
        ];
        let values: Vec<f32> = (0..12).map(|value| (value * value % 17) as f32).collect();
        for (found, expected) in interpolate(&values, 1, [3, 4], [2, 5]).iter().zip(expected) {
            assert!((found - expected).abs() < 2e-5, "{found} {expected}");
        }
    }
}
