//! The check behind every written adapter and merged model: do the logits agree?

use lowrank_store::peft::AdapterFolder;

use crate::subject::Subject;
use crate::{AppError, Model};
use lowrank_command::Because;

/// Logits may differ by this part of the largest logit where numbers were only regrouped in f32.
pub(crate) const TOLERANCE: f64 = 1e-4;

/// … and by this part of what the adapter does to them. A layer whose change was lost or wrongly scaled moves the logits
/// by more than a fiftieth of the whole in any adapter of up to some fifty layers that do about the same.
const SHARE: f64 = 0.02;

/// The part of the largest logit that rounding alone explains: 2⁻²⁴ for a number, and many times that when a few dozen
/// layers pass it on; a merge into the 30 layers of SmolLM2-135M in f32 showed 4e-6. A smaller bound would refuse sound
/// adapters that do next to nothing, such as an untrained one; an effect below it cannot be told from none.
const ROUNDING: f64 = 2e-5;

/// Logits of a fixed input.
pub(crate) fn sample_logits<N: Subject>(model: &Model<N>) -> Result<Vec<f32>, AppError> {
    model.decoder.sample()
}

/// Logits with an adapter mounted, which is taken off again.
pub(crate) fn logits_with<N: Subject>(
    model: &mut Model<N>,
    adapter: &AdapterFolder,
) -> Result<Vec<f32>, AppError> {
    model.apply(adapter).while_doing("mounting the adapter")?;
    let logits = sample_logits(model)?;
    model.unmount()?;
    Ok(logits)
}

/// The largest difference that a rewritten form of an adapter may make, given the logits without and with the adapter:
/// small beside the logits, and small beside what the adapter does to them, so that a lost adapter is seen however little
/// it does.
pub(crate) fn allowed(base: &[f32], adapted: &[f32]) -> f64 {
    let (size, effect) = (size(adapted), largest_difference(base, adapted));
    (TOLERANCE * size).min((SHARE * effect).max(ROUNDING * size))
}

/// The largest absolute logit, for judging differences; at least 1.
pub(crate) fn size(logits: &[f32]) -> f64 {
    logits.iter().map(|&logit| f64::from(logit).abs()).fold(1.0, f64::max)
}

/// The largest absolute difference; NaN if one of them is not a number.
pub(crate) fn largest_difference(a: &[f32], b: &[f32]) -> f64 {
    let differences = a.iter().zip(b).map(|(&a, &b)| (f64::from(a) - f64::from(b)).abs());
    differences.fold(0.0, |most, next| if next.is_nan() || most.is_nan() { f64::NAN } else { most.max(next) })
}

#[cfg(test)]
mod tests {
    use super::{allowed, largest_difference};

    #[test]
    fn an_adapter_that_does_little_is_held_to_what_it_does() {
        let base = [10.0, -20.0, 3.0];
        let allow = |effect: f32| allowed(&base, &[10.0, -20.0, 3.0 + effect]);
        assert_eq!(allow(5.0), 1e-4 * 20.0, "a strong one to rounding in general");
        assert!((allow(0.03) - 0.02 * 0.03).abs() < 1e-7, "a weak one to a part of its effect");
        assert_eq!(allow(0.0), 2e-5 * 20.0);
        // Whoever loses the adapter differs by all of its effect.
        for effect in [0.001, 0.01, 0.1, 1.0] {
            assert!(allow(effect) < f64::from(effect));
        }
    }

    #[test]
    fn a_difference_that_is_not_a_number_is_not_hidden() {
        assert_eq!(largest_difference(&[1.0, 2.0], &[1.5, 2.0]), 0.5);
        assert!(largest_difference(&[1.0, f32::NAN, 0.0], &[1.0, 2.0, 3.0]).is_nan());
    }
}
