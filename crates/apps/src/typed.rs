//! Between PEFT's adapters that are no LoRA and our forms: which form a folder is of, and which folder a form makes.

mod written;

use std::collections::BTreeMap;

use lowrank_adapt::{Form, Part};
use lowrank_attach::{StoredParts, restore_parts};
use lowrank_store::peft::{Matcher, Settings, Targets, TypedFolder, TypedModule, TypedTensor, is_end};

use crate::Model;
use crate::choices::PeftType;
use crate::subject::Subject;

pub(crate) use written::{Told, folder};

/// Forms that have a type of PEFT's own and are handed over in it.
pub(crate) const FORMS: [&str; 7] = ["ia3", "loha", "lokr", "oft", "boft", "vera", "adalora"];

/// Whether an adapter of this form is written as it is, so that there is no rank to cut it to.
pub(crate) fn keeps_its_type(form: &str, peft_type: PeftType) -> bool {
    form == "dora" || (peft_type == PeftType::Own && FORMS.contains(&form))
}

/// What PEFT adds to the rank of an AdaLoRA before it divides by it.
pub(crate) const ABOVE_RANK: f64 = 1e-5;

/// Mounts a typed adapter under a name, its scale `times` what its configuration says.
///
/// # Errors
/// What does not fit, for the caller to say whose fault it is; a factor other than 1 for a type that has no scale. The model is
/// then as it was.
pub(crate) fn mount<N: Subject>(
    model: &mut Model<N>,
    folder: &TypedFolder,
    name: &str,
    times: f64,
) -> Result<(), String> {
    let scaled = matches!(
        folder.config.settings,
        Settings::Loha { .. } | Settings::Lokr { .. } | Settings::Adalora { .. }
    );
    if !scaled && times != 1.0 {
        return Err(format!(
            "a scale of {times} cannot be applied: an adapter of type {} is not multiplied by one",
            folder.kind().name()
        ));
    }
    let matching = folder.config.matching();
    let matcher = Matcher::new(&matching).map_err(|error| error.to_string())?;
    let scale = |module: &str| match &folder.config.settings {
        Settings::Adalora { init_rank, alpha, .. } => times * alpha / (*init_rank as f64 + ABOVE_RANK),
        _ => times * matcher.scale(module),
    };
    // IA³ is on inputs at some layers and on outputs at others.
    let mut by_form: BTreeMap<String, (Box<dyn Form>, Vec<StoredParts>)> = BTreeMap::new();
    for module in folder.modules.iter().filter(|module| !is_empty(module)) {
        let (form_name, options) = form_of(&folder.config.settings, &module.module)?;
        let key = format!("{form_name} {options:?}");
        let form = lowrank_adapt::by_name(form_name, options).map_err(|error| error.to_string())?;
        let parts = parts(model, folder, module)?;
        by_form.entry(key).or_insert_with(|| (form, Vec::new())).1.push(parts);
    }
    for (form, stored) in by_form.into_values() {
        if let Err(error) = restore_parts(&mut model.decoder, stored, &scale, &*form, name) {
            model.unmount_named(name).map_err(|error| error.to_string())?;
            return Err(error.to_string());
        }
    }
    Ok(())
}

/// Whether every direction of a module was taken away in training.
fn is_empty(module: &TypedModule) -> bool {
    module.tensor("values").is_some_and(|values| values.values.is_empty())
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
fn parts<N: Subject>(
    model: &Model<N>,
    folder: &TypedFolder,
    module: &TypedModule,
) -> Result<StoredParts, String> {
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
