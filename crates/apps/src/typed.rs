//! Between PEFT's adapters that are no LoRA and our forms: which form a folder is of, and which folder a form makes.

use std::collections::BTreeMap;

use lowrank_adapt::{Form, Part};
use lowrank_attach::{Attached, StoredParts, restore_parts};
use lowrank_store::peft::{
    Blocks, Matcher, Settings, Targets, TypedConfig, TypedFolder, TypedModule, TypedTensor, is_end,
};

use crate::Model;
use crate::model::ADAPTER;

/// Forms that have a type of PEFT's own and are handed over in it.
pub(crate) const FORMS: [&str; 5] = ["ia3", "loha", "lokr", "oft", "boft"];

/// Whether an adapter of this form is written as it is, so that there is no rank to cut it to.
pub(crate) fn keeps_its_type(form: &str) -> bool {
    form == "dora" || FORMS.contains(&form)
}

/// Mounts a typed adapter, as its configuration scales it.
///
/// # Errors
/// What does not fit, for the caller to say whose fault it is. The model is then as it was.
pub(crate) fn mount(model: &mut Model, folder: &TypedFolder) -> Result<(), String> {
    let matching = folder.config.matching();
    let matcher = Matcher::new(&matching).map_err(|error| error.to_string())?;
    let scale = |module: &str| match &folder.config.settings {
        // PEFT's own denominator.
        Settings::Adalora { init_rank, alpha, .. } => alpha / (*init_rank as f64 + 1e-5),
        _ => matcher.scale(module),
    };
    // IA³ is on inputs at some layers and on outputs at others.
    let mut by_form: BTreeMap<String, (Box<dyn Form>, Vec<StoredParts>)> = BTreeMap::new();
    for module in &folder.modules {
        let (name, options) = form_of(&folder.config.settings, &module.module)?;
        let key = format!("{name} {options:?}");
        let form = lowrank_adapt::by_name(name, options).map_err(|error| error.to_string())?;
        let parts = parts(model, folder, module)?;
        by_form.entry(key).or_insert_with(|| (form, Vec::new())).1.push(parts);
    }
    for (form, stored) in by_form.into_values() {
        if let Err(error) = restore_parts(&mut model.decoder, stored, &scale, &*form, ADAPTER) {
            model.unmount().map_err(|error| error.to_string())?;
            return Err(error.to_string());
        }
    }
    Ok(())
}

/// A form by name, with its choices.
type Named = (&'static str, Vec<(&'static str, String)>);

fn form_of(settings: &Settings, module: &str) -> Result<Named, String> {
    Ok(match settings {
        Settings::Ia3 { feedforward } => {
            let on = if names(feedforward, module)? { "input" } else { "output" };
            ("ia3", vec![("on", on.to_owned())])
        }
        Settings::Loha { .. } => ("loha", Vec::new()),
        Settings::Lokr { decompose_both, decompose_factor, .. } => {
            let factor = match decompose_factor {
                factor if *factor > 0 => factor.to_string(),
                _ => "auto".to_owned(),
            };
            ("lokr", vec![("decompose-factor", factor), ("decompose-both", decompose_both.to_string())])
        }
        Settings::Oft { coft: true, .. } => {
            return Err("the adapter is a constrained OFT (coft), which lowrank does not apply".to_owned());
        }
        Settings::Oft { block_share, cayley_neumann, terms, .. } => {
            let cayley = if *cayley_neumann { "neumann" } else { "exact" };
            let options = [
                ("share", block_share.to_string()),
                ("cayley", cayley.to_owned()),
                ("terms", terms.to_string()),
            ];
            ("oft", options.into())
        }
        Settings::Boft { .. } => ("boft", Vec::new()),
        Settings::Vera { .. } => ("vera", Vec::new()),
        Settings::Adalora { .. } => ("adalora", Vec::new()),
    })
}

fn names(targets: &Targets, module: &str) -> Result<bool, String> {
    match targets {
        Targets::List(ends) => Ok(ends.iter().any(|end| is_end(end, module))),
        Targets::Pattern(pattern) => {
            let full = lowrank_store::peft::full_match(pattern).map_err(|error| error.to_string())?;
            Ok(full.is_match(module))
        }
    }
}

/// The parts of a module as its form names and shapes them.
fn parts(model: &Model, folder: &TypedFolder, module: &TypedModule) -> Result<StoredParts, String> {
    let mut parts = Vec::new();
    let mut rank = 0;
    for TypedTensor { part, shape, values } in &module.tensors {
        // A vector is held as a row.
        let shape = if let [width] = shape[..] { vec![1, width] } else { shape.clone() };
        if matches!(part.as_str(), "right" | "w1_b" | "w2_b") {
            rank = shape[0];
        }
        parts.push(Part { name: part.clone(), shape, values: values.clone() });
    }
    if let Settings::Vera { rank: shared_rank, .. } = folder.config.settings {
        rank = shared_rank;
        let sites = model.decoder.sites();
        let linear = sites.iter().find(|(site, _)| *site == module.module);
        let (_, linear) = linear.ok_or_else(|| format!("this model has no layer {}", module.module))?;
        let [out, inp] = linear.shape();
        // The corner of the shared projections that fits the layer, as PEFT cuts it.
        for (own, shared, [rows, cols]) in [("right", "vera_A", [rank, inp]), ("left", "vera_B", [out, rank])]
        {
            let whole = folder.shared(shared).ok_or_else(|| format!("the adapter has no {shared}"))?;
            let width = whole.shape.get(1).copied().unwrap_or(0);
            if whole.shape.first().is_none_or(|held| *held < rows) || width < cols {
                return Err(format!("{shared} is too small for {}", module.module));
            }
            let corner = whole.values.chunks(width).take(rows).flat_map(|row| &row[..cols]).copied();
            parts.push(Part { name: own.to_owned(), shape: vec![rows, cols], values: corner.collect() });
        }
    }
    Ok(StoredParts { module: module.module.clone(), shape: None, rank, parts })
}

/// The folder of mounted adapters of a form among [`FORMS`], with its choices.
///
/// # Errors
/// A form that has no type of its own.
pub(crate) fn folder(
    form: &dyn Form,
    attached: &[Attached],
    parts: &dyn Fn(&Attached) -> Vec<Part>,
) -> Result<TypedFolder, String> {
    let modules: Vec<TypedModule> = attached
        .iter()
        .map(|each| TypedModule {
            module: each.site.name.clone(),
            tensors: parts(each)
                .into_iter()
                .map(|Part { name, shape, values }| TypedTensor { part: name, shape, values })
                .collect(),
        })
        .collect();
    let chosen: BTreeMap<&str, String> = form.settings().into_iter().collect();
    let text = |name: &str| chosen.get(name).cloned().unwrap_or_default();
    let number = |name: &str| text(name).parse::<usize>();
    let targets: Vec<String> = attached.iter().map(|each| each.site.name.clone()).collect();
    let site = attached.first().map(|each| &each.site).ok_or("there is nothing to write")?;
    // One entry a layer, by its full name: no pattern can match more than was meant. α is what gives the scale at α/r.
    let rank = site.rank;
    let alpha = |each: &Attached| each.site.scale * each.site.rank as f64;
    let first_alpha = site.scale * rank as f64;
    let other_ranks = attached.iter().filter(|each| each.site.rank != rank);
    let rank_pattern: Vec<(String, usize)> =
        other_ranks.map(|each| (each.site.name.clone(), each.site.rank)).collect();
    let other_alphas = attached.iter().filter(|each| alpha(each) != first_alpha);
    let alpha_pattern: Vec<(String, f64)> =
        other_alphas.map(|each| (each.site.name.clone(), alpha(each))).collect();
    let bad = |name: &str| format!("{name} of the form is no number");
    let settings = match form.card().name {
        "ia3" => {
            let on_input = text("on") == "input";
            Settings::Ia3 { feedforward: Targets::List(if on_input { targets.clone() } else { Vec::new() }) }
        }
        "loha" => Settings::Loha { rank, alpha: first_alpha, rank_pattern, alpha_pattern },
        "lokr" => Settings::Lokr {
            rank,
            alpha: first_alpha,
            rank_pattern,
            alpha_pattern,
            decompose_both: text("decompose-both") == "true",
            decompose_factor: number("decompose-factor")
                .ok()
                .and_then(|n| i64::try_from(n).ok())
                .unwrap_or(-1),
        },
        "oft" => Settings::Oft {
            blocks: Blocks::Size(number("block-size").map_err(|_| bad("block-size"))?),
            block_share: text("share") == "true",
            coft: false,
            eps: 6e-5,
            cayley_neumann: text("cayley") == "neumann",
            terms: number("terms").map_err(|_| bad("terms"))?,
        },
        "boft" => Settings::Boft {
            blocks: Blocks::Size(number("block-size").map_err(|_| bad("block-size"))?),
            factors: number("factors").map_err(|_| bad("factors"))?,
        },
        other => return Err(format!("the form {other} has no type of its own in PEFT")),
    };
    Ok(TypedFolder::new(TypedConfig::new(settings, Targets::List(targets)), modules))
}
