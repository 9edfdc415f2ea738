//! Cutting the changes of an adapter back to a smaller rank, by SVD.

use lowrank_linalg::LowRank;
use lowrank_store::Format;
use lowrank_store::export::fold;
use lowrank_store::peft::{AdapterFolder, Factor};

use crate::AppError;
use lowrank_command::Because;

/// The best approximation of every change at the rank that `rank_of` gives for its module (Eckart and Young, 1936), with
/// the scale folded in; a smaller change keeps its rank. Returns the largest relative error in the Frobenius norm as well.
///
/// # Errors
/// [`AppError::Failed`] when factors hold NaN.
pub(crate) fn recompress(
    folder: &AdapterFolder,
    rank_of: &dyn Fn(&str) -> Option<usize>,
) -> Result<(AdapterFolder, f64), AppError> {
    let folder = fold(folder).while_doing("folding the scale")?;
    let mut out = folder.clone();
    let mut worst = 0.0_f64;
    // Singular vectors are numbers of their own; rounding them to 16 bits would be a second error.
    out.format = Format::F32;
    out.factors.clear();
    for factor in &folder.factors {
        let rank = rank_of(&factor.module).unwrap_or(factor.rank).min(factor.rank);
        let change =
            LowRank::from_rows(&factor.left, &factor.right, factor.output, factor.input, factor.rank)
                .while_doing(&factor.module)?;
        let norm = change.norm().while_doing(&factor.module)?;
        let (cut, error) = change.truncate(rank).while_doing(&factor.module)?;
        worst = worst.max(if norm > 0.0 { error / norm } else { 0.0 });
        let (left, right) = cut.to_rows();
        out.factors.push(Factor { rank: cut.rank(), left, right, ..factor.clone() });
    }
    let rank = out.factors.iter().map(|factor| factor.rank).max().unwrap_or(1);
    out.config.rank = rank;
    out.config.alpha = rank as f64;
    let differs = out.factors.iter().filter(|factor| factor.rank != rank);
    out.config.rank_pattern = differs.map(|factor| (factor.module.clone(), factor.rank)).collect();
    out.config.alpha_pattern =
        out.config.rank_pattern.iter().map(|(name, rank)| (name.clone(), *rank as f64)).collect();
    Ok((out, worst))
}

#[cfg(test)]
mod tests {
    use lowrank_record::Seed;
    use lowrank_store::peft::{AdapterConfig, Targets};

    use super::*;

    #[test]
    fn the_error_is_that_of_the_singular_values_left_out() {
        // Two directions of sizes 3 and 4 (scale 2 folded in): rank 1 keeps the larger.
        let left = vec![3.0, 0.0, 0.0, 4.0, 0.0, 0.0];
        let right = vec![0.5, 0.0, 0.0, 0.5];
        let factor = Factor::linear("a.q_proj", (3, 2, 2), left, right);
        let config = AdapterConfig::new(2, 4.0, Targets::List(vec!["a.q_proj".into()]));
        let folder = AdapterFolder::new(config, vec![factor]);
        let sixteen = AdapterFolder { format: Format::BF16, ..folder.clone() };
        assert_eq!(recompress(&sixteen, &|_| Some(1)).unwrap().0.format, Format::F32);
        let (same, error) = recompress(&folder, &|_| None).unwrap();
        assert!(error < 1e-6 && same.factors[0].rank == 2);
        let (cut, error) = recompress(&folder, &|_| Some(1)).unwrap();
        assert_eq!((cut.config.rank, cut.config.alpha, cut.factors[0].rank), (1, 1.0, 1));
        assert!((error - 0.6).abs() < 1e-6, "{error}");
        let kept = f64::from(cut.factors[0].left[1]) * f64::from(cut.factors[0].right[1]);
        assert!((kept - 4.0).abs() < 1e-5, "{kept}");
    }

    #[test]
    fn several_ranks_stay_told_apart() {
        let random = |name: &str, rank: usize| {
            let values = |count: usize, part: &str| Seed(5).at(name, part).normal(count);
            Factor::linear(name, (6, 5, rank), values(6 * rank, "left"), values(5 * rank, "right"))
        };
        let config = AdapterConfig::new(3, 3.0, Targets::List(vec!["a.q".into(), "a.k".into()]));
        let folder = AdapterFolder::new(config, vec![random("a.q", 3), random("a.k", 3)]);
        let (cut, _) = recompress(&folder, &|name| Some(if name == "a.k" { 1 } else { 2 })).unwrap();
        assert_eq!(cut.config.rank_pattern, [("a.k".to_owned(), 1)]);
        assert_eq!(cut.config.alpha_pattern, [("a.k".to_owned(), 1.0)]);
    }
}
