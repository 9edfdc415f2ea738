//! Clipping by the global norm: `g ← g · min(1, c / ‖g‖)`, with ‖g‖ over all parameters together.
//!
//! R. Pascanu, T. Mikolov, Y. Bengio, "On the difficulty of training recurrent neural networks", 2013,
//! <https://arxiv.org/abs/1211.5063>, algorithm 1.
//!
//! Where we differ: some libraries divide by ‖g‖ + 10⁻⁶; we do not, so that a clipped gradient has exactly norm `c`.

/// Sums run in this many lanes: a fixed number, so that the sum is the same on every machine, and wide enough to be
/// vectorised.
const LANES: usize = 8;

/// The norm of all gradients together.
///
/// f64: the square of any finite f32 is finite in f64, so the result is not finite only where a gradient is not.
#[must_use]
pub fn global_norm(gradients: &[Vec<f32>]) -> f64 {
    gradients.iter().map(|gradient| sum_of_squares(gradient)).sum::<f64>().sqrt()
}

/// What a gradient of norm `norm` is multiplied by so that its norm is at most `limit`; `limit` 0 means no clipping.
#[must_use]
pub fn clip_factor(norm: f64, limit: f64) -> f64 {
    if limit > 0.0 && norm > limit { limit / norm } else { 1.0 }
}

fn sum_of_squares(gradient: &[f32]) -> f64 {
    let mut lanes = [0.0_f64; LANES];
    let chunks = gradient.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, &entry) in lanes.iter_mut().zip(chunk) {
            *lane += f64::from(entry) * f64::from(entry);
        }
    }
    for (lane, &entry) in lanes.iter_mut().zip(rest) {
        *lane += f64::from(entry) * f64::from(entry);
    }
    lanes.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::{clip_factor, global_norm};
    use lowrank_record::Seed;

    #[test]
    fn norm_runs_over_all_parameters() {
        // 3-4-12-84-85, a Pythagorean chain spread over two parameters.
        assert_eq!(global_norm(&[vec![3.0, -4.0], vec![12.0, 84.0]]), 85.0);
        assert_eq!(global_norm(&[]), 0.0);
        let long = Seed(5).normal(1003);
        let plain = long.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        assert!((global_norm(&[long[..400].to_vec(), long[400..].to_vec()]) - plain).abs() < 1e-12 * plain);
    }

    #[test]
    fn norm_neither_overflows_nor_hides_a_nan() {
        assert!((global_norm(&[vec![f32::MAX; 9]]) / f64::from(f32::MAX) - 3.0).abs() < 1e-12);
        assert!(global_norm(&[vec![0.0; 17], vec![0.0, f32::NAN]]).is_nan());
        assert_eq!(global_norm(&[vec![f32::INFINITY]]), f64::INFINITY);
    }

    #[test]
    fn a_long_gradient_gets_the_limit_and_a_short_one_stays() {
        assert_eq!(clip_factor(85.0, 17.0), 0.2);
        assert_eq!(clip_factor(85.0, 85.0), 1.0);
        assert_eq!(clip_factor(3.0, 17.0), 1.0);
        assert_eq!(clip_factor(85.0, 0.0), 1.0);
    }
}
