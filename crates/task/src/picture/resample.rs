//! Resizing an image of bytes as Pillow does it, which the image processors of `transformers` stand on: to the byte.
//!
//! Source: Pillow, `src/libImaging/Resample.c`. Columns first, then rows, each a weighted sum over the source pixels under a
//! kernel that is widened when the image shrinks; weights are whole multiples of 2⁻²² and each pass is rounded to bytes.

/// Bits behind the point of a weight: Pillow leaves 8 for the pixel and 2 for the sum.
const BITS: u32 = 32 - 8 - 2;

/// A kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Filter {
    /// A triangle.
    Bilinear,
    /// Keys' cubic with parameter −0.5.
    Bicubic,
    /// A sinc of three lobes, windowed by itself.
    Lanczos,
}

impl Filter {
    /// Half of its width where the image does not shrink.
    fn support(self) -> f64 {
        match self {
            Filter::Bilinear => 1.0,
            Filter::Bicubic => 2.0,
            Filter::Lanczos => 3.0,
        }
    }

    fn at(self, x: f64) -> f64 {
        const A: f64 = -0.5;
        let x = x.abs();
        let sinc = |x: f64| {
            if x == 0.0 { 1.0 } else { (x * std::f64::consts::PI).sin() / (x * std::f64::consts::PI) }
        };
        match self {
            Filter::Bilinear if x < 1.0 => 1.0 - x,
            Filter::Bicubic if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
            Filter::Bicubic if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
            Filter::Lanczos if x < 3.0 => sinc(x) * sinc(x / 3.0),
            _ => 0.0,
        }
    }

    /// For each target place the first source place and the weights from there on.
    fn weights(self, from: usize, to: usize) -> Vec<(usize, Vec<i64>)> {
        let scale = from as f64 / to as f64;
        let stretch = scale.max(1.0);
        let support = self.support() * stretch;
        let one = |target: usize| {
            let center = (target as f64 + 0.5) * scale;
            // Rounded towards zero, as C does it.
            let first = ((center - support + 0.5) as i64).max(0) as usize;
            let end = ((center + support + 0.5) as usize).min(from);
            let exact: Vec<f64> =
                (first..end).map(|at| self.at((at as f64 - center + 0.5) / stretch)).collect();
            let sum: f64 = exact.iter().sum();
            let whole = |weight: f64| {
                let weight = if sum == 0.0 { weight } else { weight / sum } * f64::from(1 << BITS);
                (weight + if weight < 0.0 { -0.5 } else { 0.5 }) as i64
            };
            (first, exact.into_iter().map(whole).collect())
        };
        (0..to).map(one).collect()
    }
}

/// A sum of weighted bytes as a byte.
fn byte(sum: i64) -> u8 {
    ((sum + (1 << (BITS - 1))) >> BITS).clamp(0, 255) as u8
}

/// Row-major `[height, width, channels]` in, the same with another height and width out.
pub(super) fn resize(
    pixels: &[u8],
    channels: usize,
    [height, width]: [usize; 2],
    to: [usize; 2],
    filter: Filter,
) -> Vec<u8> {
    let mut wide = pixels.to_vec();
    if to[1] != width {
        let weights = filter.weights(width, to[1]);
        wide = Vec::with_capacity(height * to[1] * channels);
        for row in pixels.chunks_exact(width * channels) {
            for (first, weights) in &weights {
                for channel in 0..channels {
                    let values = row[first * channels + channel..].iter().step_by(channels);
                    wide.push(byte(
                        values.zip(weights).map(|(&value, weight)| i64::from(value) * weight).sum(),
                    ));
                }
            }
        }
    }
    if to[0] == height {
        return wide;
    }
    let stride = to[1] * channels;
    let mut out = Vec::with_capacity(to[0] * stride);
    for (first, weights) in filter.weights(height, to[0]) {
        let mut sums = vec![0_i64; stride];
        for (row, weight) in wide[first * stride..].chunks_exact(stride).zip(weights) {
            sums.iter_mut().zip(row).for_each(|(sum, &value)| *sum += i64::from(value) * weight);
        }
        out.extend(sums.into_iter().map(byte));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes of `reference/pillow.py`: `(i * 73 + i * i * 11) % 256`.
    fn bytes(count: usize) -> Vec<u8> {
        (0..count).map(|i| ((i * 73 + i * i * 11) % 256) as u8).collect()
    }

    #[test]
    fn the_same_size_is_the_same_image_and_a_flat_one_stays_flat() {
        for filter in [Filter::Bilinear, Filter::Bicubic, Filter::Lanczos] {
            assert_eq!(resize(&bytes(60), 3, [4, 5], [4, 5], filter), bytes(60));
            for to in [[2, 3], [9, 11], [4, 7], [1, 1]] {
                assert!(
                    resize(&[137; 60], 3, [4, 5], to, filter).iter().all(|&value| value == 137),
                    "{filter:?}"
                );
            }
        }
    }

    #[test]
    fn sizes_larger_and_smaller_are_those_of_pillow() {
        let origin: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/reference/pillow.json")).unwrap();
        for case in origin["resized"].as_array().unwrap() {
            let list = |key: &str| serde_json::from_value::<Vec<usize>>(case[key].clone()).unwrap();
            let (from, to) = (list("from"), list("to"));
            let filter = match case["filter"].as_str().unwrap() {
                "bilinear" => Filter::Bilinear,
                "bicubic" => Filter::Bicubic,
                _ => Filter::Lanczos,
            };
            let found =
                resize(&bytes(from.iter().product()), from[2], [from[0], from[1]], [to[0], to[1]], filter);
            let expected: Vec<u8> = serde_json::from_value(case["expected"].clone()).unwrap();
            assert_eq!(found, expected, "{from:?} to {to:?}, {filter:?}");
        }
    }
}
