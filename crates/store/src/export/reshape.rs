//! Exact rewritings of an adapter: the change scale · left · right of every module stays what it is, up to one
//! rounding of each number. (Stacking changes what the change is added to: the untouched base instead of the residual.)

use lowrank_blocks::{Format, narrow, widen};

use crate::peft::{AdapterConfig, AdapterFolder, Factor, Init, Matcher, PeftError};

/// Moves the scale into the left factors: left ← scale · left, α = r, not rank-stabilised. Then every reader's scale is
/// 1, however it computes it from one α and one rank; with several ranks, `alpha_pattern` repeats `rank_pattern`, and
/// [`pad`] first makes both unnecessary. A 16-bit adapter becomes F32 unless its format holds the products exactly.
///
/// # Errors
/// [`PeftError::Pattern`], or [`PeftError::RankDiffers`] when the module paths do not tell the ranks apart.
pub fn fold(adapter: &AdapterFolder) -> Result<AdapterFolder, PeftError> {
    let matcher = Matcher::new(&adapter.config)?;
    let mut out = adapter.clone();
    for factor in &mut out.factors {
        let scale = matcher.scale(&factor.module);
        multiply(&mut factor.left, scale);
        // The bias of the left factor lies inside the scale, too.
        factor.bias.iter_mut().for_each(|bias| multiply(bias, scale));
    }
    let default = adapter.factors.first().map_or(adapter.config.rank, |factor| factor.rank);
    let differs = |factor: &&Factor| factor.rank != default;
    let config = &mut out.config;
    config.rank = default;
    config.alpha = default as f64;
    config.rank_stabilised = false;
    config.rank_pattern =
        adapter.factors.iter().filter(differs).map(|f| (f.module.clone(), f.rank)).collect();
    config.alpha_pattern =
        config.rank_pattern.iter().map(|(key, rank)| (key.clone(), *rank as f64)).collect();
    ranks_agree(&out)?;
    keep_exact(&mut out);
    Ok(out)
}

/// Brings every module to the largest rank with zero rows in the right factor and zero columns in the left, so that no
/// `rank_pattern` is needed. Each module keeps its scale; where these differ, an `alpha_pattern` stays.
///
/// # Errors
/// As [`fold`].
pub fn pad(adapter: &AdapterFolder) -> Result<AdapterFolder, PeftError> {
    let matcher = Matcher::new(&adapter.config)?;
    let rank = adapter.factors.iter().map(|factor| factor.rank).max().unwrap_or(adapter.config.rank);
    let mut out = adapter.clone();
    for factor in &mut out.factors {
        let mut left = vec![0.0; factor.output * rank];
        for (wide, narrow) in left.chunks_exact_mut(rank).zip(factor.left.chunks_exact(factor.rank)) {
            wide[..factor.rank].copy_from_slice(narrow);
        }
        factor.left = left;
        factor.right.resize(rank * factor.input, 0.0);
        factor.rank = rank;
    }
    // α that gives a scale at the new rank, without rank stabilisation.
    let alphas: Vec<f64> = adapter.factors.iter().map(|f| matcher.scale(&f.module) * rank as f64).collect();
    let default = alphas.first().copied().unwrap_or(adapter.config.alpha);
    let config = &mut out.config;
    config.rank = rank;
    config.alpha = default;
    config.rank_stabilised = false;
    config.rank_pattern = Vec::new();
    config.alpha_pattern = adapter
        .factors
        .iter()
        .zip(&alphas)
        .filter(|(_, alpha)| **alpha != default)
        .map(|(factor, &alpha)| (factor.module.clone(), alpha))
        .collect();
    let padded = Matcher::new(&out.config)?;
    for (factor, &alpha) in out.factors.iter().zip(&alphas) {
        if padded.alpha(&factor.module) != alpha {
            return Err(PeftError::PatternOrder { module: factor.module.clone() });
        }
    }
    Ok(out)
}

/// The adapter for the untouched base, of one that was trained on W − scale · left₀ · right₀:
/// left' = [left, −left₀], right' = [right ; right₀], at the same scale.
///
/// The rank doubles, and with it α (α grows by √2 where the scale is α/√r) and every number of the patterns; the start
/// becomes `true`. PEFT's `subtract_mutated_init` does the same. What the trained folder does not say of where it comes
/// from, the initial one says: they are two moments of one training.
///
/// # Errors
/// [`PeftError::InitialDiffers`] when the initial factors are not those of the same modules and shapes,
/// [`PeftError::InitialScale`] when they count with another scale, [`PeftError::StackedDora`].
pub fn stack(trained: &AdapterFolder, initial: &AdapterFolder) -> Result<AdapterFolder, PeftError> {
    if trained.config.dora {
        return Err(PeftError::StackedDora);
    }
    let differs = |module: &str, why: String| PeftError::InitialDiffers { module: module.to_owned(), why };
    let (scales, first_scales) = (Matcher::new(&trained.config)?, Matcher::new(&initial.config)?);
    if let Some(extra) = initial.factors.iter().find(|first| trained.factor(&first.module).is_none()) {
        return Err(differs(&extra.module, "is only".to_owned()));
    }
    let mut out = trained.clone();
    for factor in &mut out.factors {
        let Some(first) = initial.factor(&factor.module) else {
            return Err(differs(&factor.module, "is not".to_owned()));
        };
        let sides = |f: &Factor| (f.output, f.input, f.rank, f.place);
        if sides(first) != sides(factor) {
            let why = format!("is [{}, {}] of rank {}", first.output, first.input, first.rank);
            return Err(differs(&factor.module, why));
        }
        let module = || factor.module.clone();
        let (trained, initial) = (scales.scale(&factor.module), first_scales.scale(&factor.module));
        if trained != initial {
            return Err(PeftError::InitialScale { module: module(), trained, initial });
        }
        let rank = factor.rank;
        let rows = factor.left.chunks_exact(rank).zip(first.left.chunks_exact(rank));
        factor.left =
            rows.flat_map(|(row, first)| row.iter().copied().chain(first.iter().map(|v| -v))).collect();
        factor.right.extend(&first.right);
        factor.rank = 2 * rank;
    }
    let config = &mut out.config;
    double(config);
    config.init = Init::Plain(true);
    ranks_agree(&out)?;
    for (key, value) in &initial.provenance {
        out.provenance.entry(key.clone()).or_insert_with(|| value.clone());
    }
    keep_exact(&mut out);
    Ok(out)
}

/// F32, unless the adapter's own format holds every new number exactly: rounding once more would change the change.
fn keep_exact(adapter: &mut AdapterFolder) {
    let holds = |format: Format, values: &[f32]| {
        let mut back = vec![0.0; values.len()];
        let there = narrow(format, values).is_ok_and(|bytes| widen(format, &bytes, &mut back).is_ok());
        there && back == values
    };
    let is_exact = adapter.factors.iter().all(|factor| {
        let bias = factor.bias.as_deref().unwrap_or_default();
        [&factor.left, &factor.right, bias].iter().all(|values| holds(adapter.format, values))
    });
    if adapter.format != Format::F32 && !is_exact {
        adapter.format = Format::F32;
    }
}

fn double(config: &mut AdapterConfig) {
    let growth = if config.rank_stabilised { std::f64::consts::SQRT_2 } else { 2.0 };
    config.rank *= 2;
    config.alpha *= growth;
    config.rank_pattern.iter_mut().for_each(|(_, rank)| *rank *= 2);
    config.alpha_pattern.iter_mut().for_each(|(_, alpha)| *alpha *= growth);
}

/// A module path used as a pattern also matches longer paths that end in it.
fn ranks_agree(adapter: &AdapterFolder) -> Result<(), PeftError> {
    let matcher = Matcher::new(&adapter.config)?;
    for factor in &adapter.factors {
        let expected = matcher.rank(&factor.module);
        if factor.rank != expected {
            return Err(PeftError::RankDiffers {
                module: factor.module.clone(),
                found: factor.rank,
                expected,
            });
        }
    }
    Ok(())
}

/// The product is taken in f64, so that each number is rounded once.
fn multiply(values: &mut [f32], scale: f64) {
    values.iter_mut().for_each(|value| *value = (f64::from(*value) * scale) as f32);
}

#[cfg(test)]
pub(super) mod tests {
    use super::{Format, fold, pad, stack};
    use crate::peft::{AdapterConfig, AdapterFolder, Factor, Init, Matcher, PeftError, Targets};

    const Q: &str = "model.layers.0.self_attn.q_proj";
    const DOWN: &str = "model.layers.0.mlp.down_proj";

    pub(in crate::export) fn factor(module: &str, sides: (usize, usize, usize), seed: u64) -> Factor {
        let seed = lowrank_record::Seed(seed).at("factor", module);
        let (output, input, rank) = sides;
        let draw = |what: &str, count: usize| seed.at("part", what).normal(count);
        Factor::linear(module, sides, draw("left", output * rank), draw("right", rank * input))
    }

    /// Two ranks and two scales, neither of them 1.
    pub(in crate::export) fn mixed(rank_stabilised: bool) -> AdapterFolder {
        let targets = Targets::List(vec!["q_proj".into(), "down_proj".into()]);
        let mut config = AdapterConfig::new(2, 5.0, targets);
        config.rank_pattern = vec![("down_proj".into(), 3)];
        config.alpha_pattern = vec![("down_proj".into(), 4.0)];
        config.rank_stabilised = rank_stabilised;
        AdapterFolder::new(config, vec![factor(Q, (6, 4, 2), 1), factor(DOWN, (4, 5, 3), 1)])
    }

    /// scale · left · right of one module, in f64.
    pub(in crate::export) fn delta(adapter: &AdapterFolder, module: &str) -> Vec<f64> {
        let scale = Matcher::new(&adapter.config).unwrap().scale(module);
        let f = adapter.factor(module).unwrap();
        let mut out = vec![0.0; f.output * f.input];
        for row in 0..f.output {
            for column in 0..f.input {
                let products = (0..f.rank)
                    .map(|k| f64::from(f.left[row * f.rank + k]) * f64::from(f.right[k * f.input + column]));
                out[row * f.input + column] = scale * products.sum::<f64>();
            }
        }
        out
    }

    fn check_same(a: &AdapterFolder, b: &AdapterFolder) {
        for module in [Q, DOWN] {
            for (x, y) in delta(a, module).into_iter().zip(delta(b, module)) {
                assert!((x - y).abs() <= 1e-6 * (1.0 + x.abs()), "{module}: {x} became {y}");
            }
        }
    }

    #[test]
    fn folding_and_padding_keep_the_change() {
        for stabilised in [false, true] {
            let adapter = mixed(stabilised);
            let folded = fold(&adapter).unwrap();
            check_same(&adapter, &folded);
            assert_eq!((folded.config.rank, folded.config.alpha), (2, 2.0));
            assert_eq!(folded.config.rank_pattern, [(DOWN.to_owned(), 3)]);
            let padded = pad(&adapter).unwrap();
            check_same(&adapter, &padded);
            assert!(padded.config.rank_pattern.is_empty() && padded.config.rank == 3);
            for plain in [pad(&folded).unwrap(), fold(&padded).unwrap()] {
                check_same(&adapter, &plain);
                assert!(plain.config.rank_pattern.is_empty() && plain.config.alpha_pattern.is_empty());
                assert_eq!((plain.config.rank, plain.config.alpha), (3, 3.0));
                assert!(plain.factors.iter().all(|factor| factor.rank == 3));
            }
        }
    }

    #[test]
    fn folding_scales_the_bias_too() {
        let mut adapter = mixed(false);
        adapter.config.left_bias = true;
        adapter.factors.iter_mut().for_each(|factor| factor.bias = Some(vec![2.0; factor.output]));
        assert_eq!(fold(&adapter).unwrap().factors[0].bias, Some(vec![5.0; 6]), "scale 5 / 2");
    }

    #[test]
    fn stacking_gives_the_change_of_the_untouched_base() {
        for stabilised in [false, true] {
            let mut trained = mixed(stabilised);
            trained.config.init = Init::Named("pissa".into());
            trained.provenance = [("seed".to_owned(), "1".to_owned())].into();
            let factors = vec![factor(DOWN, (4, 5, 3), 2), factor(Q, (6, 4, 2), 2)];
            let mut first = AdapterFolder { factors, ..trained.clone() };
            first.provenance = [("seed", "2"), ("base", "x")].map(|(k, v)| (k.into(), v.into())).into();
            let stacked = stack(&trained, &first).unwrap();
            assert_eq!(stacked.config.init, Init::Plain(true));
            assert_eq!((stacked.config.rank, stacked.config.rank_pattern[0].1), (4, 6));
            assert_eq!(
                (stacked.provenance["seed"].as_str(), stacked.provenance["base"].as_str()),
                ("1", "x")
            );
            for module in [Q, DOWN] {
                let wanted =
                    delta(&trained, module).into_iter().zip(delta(&first, module)).map(|(x, y)| x - y);
                for (wanted, found) in wanted.zip(delta(&stacked, module)) {
                    assert!(
                        (wanted - found).abs() <= 1e-12 * (1.0 + wanted.abs()),
                        "{wanted} became {found}"
                    );
                }
            }
        }
    }

    #[test]
    fn stacking_refuses_what_does_not_belong() {
        let trained = mixed(false);
        let with = |factors: Vec<Factor>| AdapterFolder { factors, ..trained.clone() };
        let error = stack(&trained, &with(vec![factor(Q, (6, 4, 2), 2)])).unwrap_err();
        assert_eq!(error, PeftError::InitialDiffers { module: DOWN.into(), why: "is not".into() });
        let wrong = with(vec![factor(Q, (6, 4, 1), 2), factor(DOWN, (4, 5, 3), 2)]);
        let error = stack(&trained, &wrong).unwrap_err();
        assert_eq!(error, PeftError::InitialDiffers { module: Q.into(), why: "is [6, 4] of rank 1".into() });
        let more = with(vec![factor(Q, (6, 4, 2), 2), factor(DOWN, (4, 5, 3), 2), factor("x", (1, 1, 1), 2)]);
        assert!(
            matches!(stack(&trained, &more), Err(PeftError::InitialDiffers { module, .. }) if module == "x")
        );
        let mut other = trained.clone();
        other.config.alpha = 10.0;
        let error = PeftError::InitialScale { module: Q.into(), trained: 2.5, initial: 5.0 };
        assert_eq!(stack(&trained, &other), Err(error));
        let mut dora = trained.clone();
        dora.config.dora = true;
        assert_eq!(stack(&dora, &more), Err(PeftError::StackedDora));
    }

    #[test]
    fn sixteen_bits_are_kept_only_where_they_hold_the_result() {
        let mut adapter = mixed(false);
        for factor in &mut adapter.factors {
            // What a file of BF16 gives.
            for value in factor.left.iter_mut().chain(&mut factor.right) {
                *value = f32::from_bits(value.to_bits() & 0xffff_0000);
            }
        }
        adapter.format = Format::BF16;
        assert_eq!(pad(&adapter).unwrap().format, Format::BF16);
        assert_eq!(fold(&adapter).unwrap().format, Format::F32, "by 5/2 and 4/3");
        adapter.config.alpha = 4.0;
        adapter.config.alpha_pattern = vec![("down_proj".into(), 1.5)];
        assert_eq!(fold(&adapter).unwrap().format, Format::BF16, "by 2 and 1/2");
        assert_eq!(stack(&adapter, &adapter).unwrap().format, Format::BF16);
        let first = AdapterFolder { factors: mixed(false).factors, ..adapter.clone() };
        assert_eq!(stack(&adapter, &first).unwrap().format, Format::F32, "beside factors of 32 bits");
    }
}
