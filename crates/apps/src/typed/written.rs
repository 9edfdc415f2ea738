//! From mounted adapters to the folder of the type that PEFT has for their form.

use std::collections::BTreeMap;

use lowrank_adapt::forms::Adalora;
use lowrank_adapt::{Budget, Form, Part};
use lowrank_attach::Attached;
use lowrank_store::peft::{Blocks, Settings, Targets, TypedConfig, TypedFolder, TypedModule, TypedTensor};

use super::ABOVE_RANK;

/// What a folder tells of the run, beside the adapters.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Told {
    /// The seed of its draws.
    pub(crate) seed: u64,
    /// Its steps.
    pub(crate) steps: u64,
}

/// The folder of mounted adapters of a form among [`FORMS`](super::FORMS), with its choices.
///
/// # Errors
/// A form that has no type of its own, and adapters that the type cannot hold.
pub(crate) fn folder(
    form: &dyn Form,
    attached: &[Attached],
    parts: &dyn Fn(&Attached) -> Vec<Part>,
    told: Told,
) -> Result<TypedFolder, String> {
    let all: Vec<(&Attached, Vec<Part>)> = attached.iter().map(|each| (each, parts(each))).collect();
    match form.card().name {
        "vera" => vera(form, &all, told),
        "adalora" => adalora(form, &all, told),
        _ => as_they_are(form, &all),
    }
}

/// One entry a layer, by its full name: no pattern can match more than was meant.
fn targets(all: &[(&Attached, Vec<Part>)]) -> Targets {
    Targets::List(all.iter().map(|(each, _)| each.site.name.clone()).collect())
}

fn chosen(form: &dyn Form) -> BTreeMap<&'static str, String> {
    form.settings().into_iter().collect()
}

fn number<T: std::str::FromStr>(chosen: &BTreeMap<&str, String>, name: &str) -> Result<T, String> {
    let text = chosen.get(name).map(String::as_str).unwrap_or_default();
    text.parse().map_err(|_| format!("{name} of the form is no number"))
}

/// Forms whose parts are the tensors of the file.
fn as_they_are(form: &dyn Form, all: &[(&Attached, Vec<Part>)]) -> Result<TypedFolder, String> {
    let tensor = |part: &Part| TypedTensor {
        part: part.name.clone(),
        shape: part.shape.clone(),
        values: part.values.clone(),
    };
    let module = |(each, parts): &(&Attached, Vec<Part>)| TypedModule {
        module: each.site.name.clone(),
        tensors: parts.iter().map(tensor).collect(),
    };
    let modules: Vec<TypedModule> = all.iter().map(module).collect();
    let chosen = chosen(form);
    let text = |name: &str| chosen.get(name).cloned().unwrap_or_default();
    let site = all.first().map(|(each, _)| &each.site).ok_or("there is nothing to write")?;
    // α is what gives the scale at α/r.
    let rank = site.rank;
    let alpha = |each: &Attached| each.site.scale * each.site.rank as f64;
    let first_alpha = site.scale * rank as f64;
    let sites = || all.iter().map(|(each, _)| *each);
    let other_ranks = sites().filter(|each| each.site.rank != rank);
    let rank_pattern: Vec<(String, usize)> =
        other_ranks.map(|each| (each.site.name.clone(), each.site.rank)).collect();
    let other_alphas = sites().filter(|each| alpha(each) != first_alpha);
    let alpha_pattern: Vec<(String, f64)> =
        other_alphas.map(|each| (each.site.name.clone(), alpha(each))).collect();
    let settings = match form.card().name {
        "ia3" => {
            let on_input = text("on") == "input";
            Settings::Ia3 { feedforward: if on_input { targets(all) } else { Targets::List(Vec::new()) } }
        }
        "loha" => Settings::Loha { rank, alpha: first_alpha, rank_pattern, alpha_pattern },
        "lokr" => Settings::Lokr {
            rank,
            alpha: first_alpha,
            rank_pattern,
            alpha_pattern,
            decompose_both: text("decompose-both") == "true",
            // `auto` is no number.
            decompose_factor: number(&chosen, "decompose-factor").unwrap_or(-1),
        },
        "oft" => Settings::Oft {
            blocks: Blocks::Size(number(&chosen, "block-size")?),
            block_share: text("share") == "true",
            coft: false,
            eps: 6e-5,
            cayley_neumann: text("cayley") == "neumann",
            terms: number(&chosen, "terms")?,
        },
        "boft" => Settings::Boft {
            blocks: Blocks::Size(number(&chosen, "block-size")?),
            factors: number(&chosen, "factors")?,
        },
        other => return Err(format!("the form {other} has no type of its own in PEFT")),
    };
    Ok(TypedFolder::new(TypedConfig::new(settings, targets(all)), modules))
}

fn part<'a>(parts: &'a [Part], name: &str, site: &str) -> Result<&'a Part, String> {
    let found = parts.iter().find(|part| part.name == name);
    found.ok_or_else(|| format!("{site}: the adapter has no {name}"))
}

/// A matrix put together from corners of it.
struct Whole {
    part: &'static str,
    shape: [usize; 2],
    values: Vec<Option<f32>>,
}

impl Whole {
    fn new(part: &'static str, shape: [usize; 2]) -> Whole {
        Whole { part, shape, values: vec![None; shape[0] * shape[1]] }
    }

    fn put(&mut self, corner: &Part, site: &str) -> Result<(), String> {
        let [_, width] = self.shape;
        let &[rows, cols] = corner.shape.as_slice() else {
            return Err(format!("{site}: {} is no matrix", corner.name));
        };
        for (i, row) in corner.values.chunks_exact(cols.max(1)).take(rows).enumerate() {
            let held = self.values.iter_mut().skip(i * width);
            for (held, &value) in held.zip(row) {
                if held.is_some_and(|held| held.to_bits() != value.to_bits()) {
                    return Err(format!(
                        "{site}: its random factors are no corner of those of the other layers, as those of a run of an older \
                         version; write it with --peft-type lora"
                    ));
                }
                *held = Some(value);
            }
        }
        Ok(())
    }

    /// What no layer uses is zero: it would be multiplied with zero.
    fn tensor(self) -> TypedTensor {
        let values = self.values.into_iter().map(Option::unwrap_or_default).collect();
        TypedTensor::new(self.part, &self.shape, values)
    }
}

/// PEFT has one rank for all layers: that is the largest, and λ_d of a layer of a smaller rank goes on with zeros.
fn vera(form: &dyn Form, all: &[(&Attached, Vec<Part>)], told: Told) -> Result<TypedFolder, String> {
    let most = |of: &dyn Fn(&Attached) -> usize| all.iter().map(|(each, _)| of(each)).max().unwrap_or(0);
    let rank = most(&|each| each.site.rank);
    let (out, inp) = (most(&|each| each.site.shape[0]), most(&|each| each.site.shape[1]));
    let mut right = Whole::new("vera_A", [rank, inp]);
    let mut left = Whole::new("vera_B", [out, rank]);
    let mut modules = Vec::with_capacity(all.len());
    for (each, parts) in all {
        let site = each.site.name.as_str();
        right.put(part(parts, "right", site)?, site)?;
        left.put(part(parts, "left", site)?, site)?;
        let output = part(parts, "lambda_b", site)?.values.clone();
        let mut hidden = part(parts, "lambda_d", site)?.values.clone();
        hidden.resize(rank, 0.0);
        let tensors = vec![
            TypedTensor::new("lambda_b", &[output.len()], output),
            TypedTensor::new("lambda_d", &[rank], hidden),
        ];
        modules.push(TypedModule { module: site.to_owned(), tensors });
    }
    // PEFT mounts adapters of different keys on no one model, which is right: their projections differ.
    let settings =
        Settings::Vera { rank, projection_key: told.seed, d_initial: number(&chosen(form), "d-initial")? };
    let mut folder = TypedFolder::new(TypedConfig::new(settings, targets(all)), modules);
    folder.shared = vec![right.tensor(), left.tensor()];
    Ok(folder)
}

/// PEFT has one rank to begin with for all layers, the largest, and one scale: what a layer has beside it is in its values.
fn adalora(form: &dyn Form, all: &[(&Attached, Vec<Part>)], told: Told) -> Result<TypedFolder, String> {
    let ranks: Vec<usize> = all.iter().map(|(each, _)| each.site.rank).collect();
    let init_rank = ranks.iter().copied().max().unwrap_or(0);
    let scale = all.first().map(|(each, _)| each.site.scale).ok_or("there is nothing to write")?;
    let mut values = Vec::with_capacity(all.len());
    for (each, parts) in all {
        values.push(&part(parts, "values", &each.site.name)?.values);
    }
    let is_new = values.iter().all(|values| values.iter().all(|&value| value == 0.0));
    let (mut modules, mut kept) = (Vec::with_capacity(all.len()), Vec::new());
    for ((each, parts), values) in all.iter().zip(values) {
        let site = each.site.name.as_str();
        let mut stays: Vec<bool> = values.iter().map(|&value| is_new || value != 0.0).collect();
        // PEFT takes empty tensors for a damaged file: one direction stays, whose value is zero.
        if !stays.contains(&true)
            && let Some(first) = stays.first_mut()
        {
            *first = true;
        }
        let rank = stays.iter().filter(|stays| **stays).count();
        let share = each.site.scale / scale;
        let values = staying(values, &stays).map(|value| (f64::from(value) * share) as f32).collect();
        let (right, left) = (part(parts, "right", site)?, part(parts, "left", site)?);
        let [out, inp] = each.site.shape;
        let rows = right.values.chunks_exact(inp.max(1)).zip(&stays).filter(|(_, stays)| **stays);
        let columns = left.values.chunks_exact(stays.len().max(1)).flat_map(|row| staying(row, &stays));
        modules.push(TypedModule {
            module: site.to_owned(),
            tensors: vec![
                TypedTensor::new("right", &[rank, inp], rows.flat_map(|(row, _)| row).copied().collect()),
                TypedTensor::new("left", &[out, rank], columns.collect()),
                TypedTensor::new("values", &[rank, 1], values),
            ],
        });
        stays.resize(init_rank, false);
        if stays.contains(&false) || !is_new {
            kept.push((site.to_owned(), stays));
        }
    }
    let steps = usize::try_from(told.steps).map_err(|error| error.to_string())?;
    let adalora = Adalora::chosen(form.settings()).map_err(|error| error.to_string())?;
    let Budget { target, warmup, last, interval, total, .. } = adalora.budget(&ranks, steps);
    let settings = Settings::Adalora {
        init_rank,
        target_rank: target,
        alpha: scale * (init_rank as f64 + ABOVE_RANK),
        total_steps: total,
        first_steps: warmup,
        last_steps: last,
        kept,
    };
    let mut config = TypedConfig::new(settings, targets(all));
    let chosen = chosen(form);
    let facts = [("beta1", "beta1"), ("beta2", "beta2"), ("orth_reg_weight", "orthogonality")];
    for (key, name) in facts {
        config.other.insert(key.to_owned(), number::<f64>(&chosen, name)?.into());
    }
    config.other.insert("deltaT".to_owned(), interval.into());
    Ok(TypedFolder::new(config, modules))
}

fn staying<'a>(values: &'a [f32], stays: &'a [bool]) -> impl Iterator<Item = f32> + 'a {
    values.iter().zip(stays).filter(|(_, stays)| **stays).map(|(value, _)| *value)
}
