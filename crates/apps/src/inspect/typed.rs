//! PEFT folders of other types than LoRA: what they hold, and the spectrum of each change where the file alone tells it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use lowrank_linalg::{LowRank, effective_rank, from_rows, svd_in_f64};
use lowrank_store::peft::{Blocks, Kind, Matcher, Settings, Targets, TypedFolder, TypedModule};
use serde_json::Value;

use super::shown::{Cell, Facts, Inspected, Table};
use super::{shape, stored};
use crate::AppError;
use lowrank_command::Because;

/// A typed folder.
pub(super) fn of(path: &Path) -> Result<Inspected, AppError> {
    let folder = TypedFolder::read(path).input("reading the adapter")?;
    let mut facts = Facts::default();
    facts.add("format", format!("{} adapter (PEFT folder)", name(folder.kind())));
    facts.add("layers", folder.modules.len());
    settings(&mut facts, &folder);
    let values =
        |module: &TypedModule| module.tensors.iter().map(|tensor| tensor.values.len()).sum::<usize>();
    let parameters: usize = folder.modules.iter().map(values).sum();
    let shared: usize = folder.shared.iter().map(|tensor| tensor.values.len()).sum();
    facts.add("parameters", parameters);
    for tensor in &folder.shared {
        let text = format!("{} {:?}", tensor.part, tensor.shape);
        facts.add(if tensor.part == "vera_A" { "shared_right" } else { "shared_left" }, text);
    }
    facts.add("numbers", folder.format.name());
    facts.add("stored", Cell::bytes(stored(parameters + shared, folder.format)));
    if let Some(base) = &folder.config.base_model {
        facts.add("base", base.as_str());
    }
    let from_identity = matches!(folder.kind(), Kind::Ia3 | Kind::Oft | Kind::Boft);
    if let Some(why) = needs_base(folder.kind()) {
        facts.add("spectrum_of_the_change", Cell::shown(Value::Null, why));
    }
    let mut columns = vec!["layer", "tensors", "parameters"];
    if from_identity {
        columns.push("distance_from_no_change");
    } else if needs_base(folder.kind()).is_none() {
        columns.extend(["shape", "rank", "scale", "norm", "effective_rank"]);
    }
    let matching = folder.config.matching();
    let matcher = Matcher::new(&matching).input("the adapter's configuration")?;
    let mut rows = Vec::with_capacity(folder.modules.len());
    for module in &folder.modules {
        let tensors: BTreeMap<&str, &[usize]> =
            module.tensors.iter().map(|tensor| (tensor.part.as_str(), tensor.shape.as_slice())).collect();
        let text: Vec<String> = tensors.iter().map(|(part, sides)| format!("{part} {sides:?}")).collect();
        let tensors: serde_json::Map<String, Value> =
            tensors.into_iter().map(|(part, sides)| (part.to_owned(), sides.to_vec().into())).collect();
        let mut row: Vec<Cell> =
            vec![module.module.as_str().into(), Cell::shown(tensors, text.join(" ")), values(module).into()];
        if from_identity {
            row.push(Cell::real(distance(folder.kind(), module), 4));
        } else if let Some(change) = change(&folder, module, &matcher)? {
            row.push(shape(&change.shape));
            row.push(change.rank.map_or_else(|| Cell::shown(Value::Null, "–"), Cell::from));
            row.push(Cell::real(change.scale, 3));
            let norm = change.values.iter().fold(0.0, |sum, value| sum + value * value).sqrt();
            row.push(Cell::real(norm, 4));
            row.push(Cell::real(effective_rank(&change.values), 2));
        }
        rows.push(row);
    }
    Ok(Inspected {
        kind: "adapter",
        facts,
        objections: objections(&folder),
        provenance: folder.provenance.clone(),
        table: Table { columns, rows },
        all: false,
    })
}

/// As the literature writes it.
fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Lora => "LoRA",
        Kind::Ia3 => "IA³",
        Kind::Loha => "LoHa",
        Kind::Lokr => "LoKr",
        Kind::Oft => "OFT",
        Kind::Boft => "BOFT",
        Kind::Vera => "VeRA",
        Kind::Adalora => "AdaLoRA",
    }
}

/// Why the file alone does not tell what the change of a weight is; `None` where it does.
fn needs_base(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Lora | Kind::Loha | Kind::Lokr | Kind::Adalora => None,
        Kind::Ia3 => Some("needs the base: it is the weight itself, its rows or columns multiplied"),
        Kind::Oft | Kind::Boft => Some("needs the base: it is the weight itself, turned"),
        Kind::Vera => Some(
            "needs the base: the file does not say how wide a layer is, and so which part of shared right it takes",
        ),
    }
}

/// What of the configuration decides on the meaning of the tensors.
fn settings(facts: &mut Facts, folder: &TypedFolder) {
    let blocks = |facts: &mut Facts, blocks: Blocks| match blocks {
        Blocks::Size(size) => facts.add("block_size", size),
        Blocks::Count(count) => facts.add("blocks", count),
    };
    match &folder.config.settings {
        Settings::Ia3 { feedforward } => facts.add(
            "on_inputs",
            match feedforward {
                Targets::List(ends) if ends.is_empty() => "nowhere: all factors are on outputs".to_owned(),
                Targets::List(ends) => ends.join(", "),
                Targets::Pattern(pattern) => pattern.clone(),
            },
        ),
        Settings::Loha { rank, alpha, .. } => {
            facts.add("rank", *rank);
            facts.add("alpha", *alpha);
        }
        Settings::Lokr { rank, alpha, decompose_both, decompose_factor, .. } => {
            facts.add("rank", *rank);
            facts.add("alpha", *alpha);
            facts.add("decompose_both", *decompose_both);
            facts.add("decompose_factor", *decompose_factor);
        }
        Settings::Oft { blocks: cut, block_share, coft, cayley_neumann, terms, .. } => {
            blocks(facts, *cut);
            facts.add("one_rotation_for_all_blocks", *block_share);
            facts.add("constrained", *coft);
            facts.add(
                "cayley",
                if *cayley_neumann { format!("series of {terms} terms") } else { "exact".to_owned() },
            );
        }
        Settings::Boft { blocks: cut, factors } => {
            blocks(facts, *cut);
            facts.add("butterfly_factors", *factors);
        }
        Settings::Vera { rank, projection_key, d_initial } => {
            facts.add("rank", *rank);
            facts.add("projection_key", *projection_key);
            facts.add("d_initial", *d_initial);
        }
        Settings::Adalora { init_rank, target_rank, alpha, total_steps, first_steps, last_steps, .. } => {
            facts.add("rank_at_the_start", *init_rank);
            facts.add("target_rank", *target_rank);
            let left = folder.modules.iter().filter_map(|module| module.tensor("values"));
            let left: Vec<usize> = left.map(|values| directions(&values.values)).collect();
            let mean = left.iter().sum::<usize>() as f64 / left.len().max(1) as f64;
            facts.add("mean_rank", Cell::real(mean, 2));
            facts.add("ranks", left.into_iter().collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>());
            facts.add("alpha", *alpha);
            let steps = format!(
                "{total_steps}, cut between {first_steps} and {}",
                total_steps.saturating_sub(*last_steps)
            );
            facts.add("steps", Cell::shown(*total_steps, steps));
        }
    }
}

/// Why lowrank would not apply it.
fn objections(folder: &TypedFolder) -> Vec<String> {
    match &folder.config.settings {
        Settings::Oft { coft: true, .. } => {
            vec!["it is a constrained OFT (coft)".to_owned()]
        }
        _ => Vec::new(),
    }
}

/// How far the stored numbers are from those that change nothing, in the Euclidean norm.
fn distance(kind: Kind, module: &TypedModule) -> f64 {
    let from = |part: &str, neutral: f64| -> f64 {
        let values = module.tensor(part).map(|tensor| tensor.values.as_slice()).unwrap_or_default();
        values.iter().map(|&value| (f64::from(value) - neutral).powi(2)).sum()
    };
    match kind {
        Kind::Ia3 => from("scale", 1.0).sqrt(),
        Kind::Boft => (from("rotation", 0.0) + from("scale", 1.0)).sqrt(),
        _ => from("rotation", 0.0).sqrt(),
    }
}

/// What is known of a change.
struct Change {
    shape: [usize; 2],
    /// Directions of its factors, where it has one number of them.
    rank: Option<usize>,
    scale: f64,
    /// Singular values, scale included.
    values: Vec<f64>,
}

/// How many of an AdaLoRA's directions do something.
fn directions(values: &[f32]) -> usize {
    values.iter().filter(|value| **value != 0.0).count()
}

/// The change of one layer, where the file alone tells it.
fn change(
    folder: &TypedFolder,
    module: &TypedModule,
    matcher: &Matcher<'_>,
) -> Result<Option<Change>, AppError> {
    let site = module.module.as_str();
    let part =
        |name: &str| module.tensor(name).map(|tensor| (tensor.shape.as_slice(), tensor.values.as_slice()));
    let scale = matcher.scale(site);
    Ok(match &folder.config.settings {
        Settings::Adalora { init_rank, alpha, .. } => {
            let (Some((&[rank, inp], right)), Some((&[out, _], left)), Some((_, values))) =
                (part("right"), part("left"), part("values"))
            else {
                return Ok(None);
            };
            // PEFT's own denominator.
            let scale = alpha / (*init_rank as f64 + crate::typed::ABOVE_RANK);
            if rank == 0 {
                return Ok(Some(Change { shape: [out, inp], rank: Some(0), scale, values: Vec::new() }));
            }
            let left: Vec<f32> =
                left.iter().enumerate().map(|(at, &entry)| entry * values[at % rank]).collect();
            let factors = LowRank::from_rows(&left, right, out, inp, rank).input(site)?.times(scale);
            Some(Change {
                shape: [out, inp],
                rank: Some(directions(values)),
                scale,
                values: factors.factor().input(site)?.values,
            })
        }
        Settings::Loha { .. } => {
            let (Some((&[out, rank], w1_a)), Some((&[_, inp], w1_b)), Some((_, w2_a)), Some((_, w2_b))) =
                (part("w1_a"), part("w1_b"), part("w2_a"), part("w2_b"))
            else {
                return Ok(None);
            };
            // The entrywise product of two of rank r is one of rank r²: products of the columns of the left factors, two by
            // two, and of the rows of the right ones.
            let pairs = rank * rank;
            let left: Vec<f32> = (0..out * pairs)
                .map(|at| {
                    let (row, pair) = (at / pairs, at % pairs);
                    w1_a[row * rank + pair / rank] * w2_a[row * rank + pair % rank]
                })
                .collect();
            let right: Vec<f32> = (0..pairs * inp)
                .map(|at| {
                    let (pair, column) = (at / inp, at % inp);
                    w1_b[pair / rank * inp + column] * w2_b[pair % rank * inp + column]
                })
                .collect();
            let factors = LowRank::from_rows(&left, &right, out, inp, pairs).input(site)?.times(scale);
            let values = factors.factor().input(site)?.values;
            Some(Change { shape: [out, inp], rank: Some(rank), scale, values })
        }
        Settings::Lokr { .. } => {
            let (Some(first), Some(second)) = (kronecker_side(module, "w1")?, kronecker_side(module, "w2")?)
            else {
                return Ok(None);
            };
            // The singular values of a Kronecker product are the products of those of its sides.
            let pairs = first.1.iter().flat_map(|a| second.1.iter().map(move |b| scale * a * b));
            let shape = [first.0[0] * second.0[0], first.0[1] * second.0[1]];
            Some(Change { shape, rank: None, scale, values: pairs.collect() })
        }
        Settings::Ia3 { .. } | Settings::Oft { .. } | Settings::Boft { .. } | Settings::Vera { .. } => None,
    })
}

/// The shape and the singular values of one side of a Kronecker product.
type Side = ([usize; 2], Vec<f64>);

/// One side of a Kronecker product, whole or as a product itself.
fn kronecker_side(module: &TypedModule, name: &str) -> Result<Option<Side>, AppError> {
    let site = module.module.as_str();
    let part =
        |name: &str| module.tensor(name).map(|tensor| (tensor.shape.as_slice(), tensor.values.as_slice()));
    if let Some((&[rows, cols], values)) = part(name) {
        let whole = from_rows(values, rows, cols).input(site)?;
        return Ok(Some(([rows, cols], svd_in_f64(whole.as_ref()).input(site)?.values)));
    }
    let (Some((&[rows, rank], left)), Some((&[_, cols], right))) =
        (part(&format!("{name}_a")), part(&format!("{name}_b")))
    else {
        return Ok(None);
    };
    let factors = LowRank::from_rows(left, right, rows, cols, rank).input(site)?;
    Ok(Some(([rows, cols], factors.factor().input(site)?.values)))
}

#[cfg(test)]
mod tests {
    use lowrank_record::Seed;
    use lowrank_store::peft::{TypedConfig, TypedTensor};

    use super::*;

    fn draws(name: &str, count: usize) -> Vec<f32> {
        Seed(4).at("inspect", name).normal(count)
    }

    /// A module of tensors `(part, [rows, cols])`.
    fn module(parts: &[(&str, [usize; 2])]) -> TypedModule {
        let tensor = |(part, sides): &(&str, [usize; 2])| {
            TypedTensor::new(part, sides, draws(part, sides[0] * sides[1]))
        };
        TypedModule { module: "layer".to_owned(), tensors: parts.iter().map(tensor).collect() }
    }

    fn seen(settings: Settings, module: &TypedModule) -> Change {
        let targets = Targets::List(vec!["layer".to_owned()]);
        let folder = TypedFolder::new(TypedConfig::new(settings, targets), vec![module.clone()]);
        let matching = folder.config.matching();
        change(&folder, module, &Matcher::new(&matching).unwrap()).unwrap().unwrap()
    }

    /// The singular values of a change that was formed by its definition, in f64.
    #[track_caller]
    fn same(change: &Change, entry: impl Fn(usize, usize) -> f64) {
        let [out, inp] = change.shape;
        let values: Vec<f32> = (0..out * inp).map(|at| entry(at / inp, at % inp) as f32).collect();
        let whole = svd_in_f64(from_rows(&values, out, inp).unwrap().as_ref()).unwrap().values;
        let mut found = change.values.clone();
        found.sort_by(|a, b| b.total_cmp(a));
        found.resize(whole.len(), 0.0);
        for (found, whole) in found.iter().zip(&whole) {
            assert!((found - whole).abs() < 1e-5 * whole.max(whole.max(1.0)), "{found} {whole}");
        }
        assert!((effective_rank(&found) - effective_rank(&whole)).abs() < 1e-2);
    }

    fn at(module: &TypedModule, part: &str, row: usize, col: usize) -> f64 {
        let tensor = module.tensor(part).unwrap();
        f64::from(tensor.values[row * tensor.shape[1] + col])
    }

    fn product(module: &TypedModule, [a, b]: [&str; 2], row: usize, col: usize) -> f64 {
        let rank = module.tensor(b).unwrap().shape[0];
        (0..rank).map(|k| at(module, a, row, k) * at(module, b, k, col)).sum()
    }

    #[test]
    fn an_entrywise_product_has_the_spectrum_of_the_matrix_that_it_is() {
        for (out, inp, rank) in [(9, 7, 2), (5, 8, 3)] {
            let module = module(&[
                ("w1_a", [out, rank]),
                ("w1_b", [rank, inp]),
                ("w2_a", [out, rank]),
                ("w2_b", [rank, inp]),
            ]);
            let (rank_pattern, alpha_pattern) = (Vec::new(), Vec::new());
            let found = seen(Settings::Loha { rank, alpha: 5.0, rank_pattern, alpha_pattern }, &module);
            let scale = 5.0 / rank as f64;
            same(&found, |i, j| {
                scale * product(&module, ["w1_a", "w1_b"], i, j) * product(&module, ["w2_a", "w2_b"], i, j)
            });
        }
    }

    #[test]
    fn a_kronecker_product_has_the_spectrum_of_the_matrix_that_it_is() {
        let module = module(&[("w1", [2, 3]), ("w2_a", [4, 2]), ("w2_b", [2, 5])]);
        let found = seen(
            Settings::Lokr {
                rank: 2,
                alpha: 3.0,
                rank_pattern: Vec::new(),
                alpha_pattern: Vec::new(),
                decompose_both: false,
                decompose_factor: -1,
            },
            &module,
        );
        assert_eq!(found.shape, [8, 15]);
        same(&found, |i, j| {
            1.5 * at(&module, "w1", i / 4, j / 5) * product(&module, ["w2_a", "w2_b"], i % 4, j % 5)
        });
    }

    #[test]
    fn an_adalora_has_the_directions_that_are_left() {
        let module = module(&[("right", [2, 7]), ("left", [9, 2]), ("values", [2, 1])]);
        let kept = vec![("layer".to_owned(), vec![true, false, true])];
        let found = seen(
            Settings::Adalora {
                init_rank: 3,
                target_rank: 2,
                alpha: 6.0,
                total_steps: 9,
                first_steps: 1,
                last_steps: 2,
                kept,
            },
            &module,
        );
        assert_eq!(found.rank, Some(2));
        same(&found, |i, j| {
            let direction =
                |k| at(&module, "left", i, k) * at(&module, "values", k, 0) * at(&module, "right", k, j);
            6.0 / 3.00001 * (0..2).map(direction).sum::<f64>()
        });
    }
}
