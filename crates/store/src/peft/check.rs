//! What every adapter must fulfil, read or written.

use super::matching::{is_end, is_inside};
use super::names::{self, Part};
use super::{AdapterConfig, AdapterFolder, Factor, Matcher, PeftError, Place, Targets, folder};

/// Configuration and tensors agree, and all numbers are finite.
pub(super) fn all(adapter: &AdapterFolder) -> Result<(), PeftError> {
    let config = &adapter.config;
    if adapter.factors.is_empty() {
        return Err(PeftError::Empty);
    }
    let matcher = Matcher::new(config)?;
    let mut modules: Vec<&str> = adapter.factors.iter().map(|factor| factor.module.as_str()).collect();
    modules.sort_unstable();
    if let Some(pair) = modules.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(PeftError::DuplicateModule { module: pair[0].to_owned() });
    }
    for factor in &adapter.factors {
        shapes(factor)?;
        let module = || factor.module.clone();
        if !matcher.is_target(&factor.module) {
            return Err(PeftError::NotATarget { module: module() });
        }
        let expected = matcher.rank(&factor.module);
        if factor.rank != expected {
            return Err(PeftError::RankDiffers { module: module(), found: factor.rank, expected });
        }
        announced(factor, config)?;
        for (part, values) in parts(factor) {
            finite(&names::join(&factor.module, part), values)?;
        }
    }
    if let Targets::List(list) = &config.targets {
        for target in list {
            if !modules.iter().any(|module| is_end(target, module)) {
                return Err(PeftError::TargetWithoutFactors { target: target.clone() });
            }
        }
    }
    whole(adapter, &matcher)
}

/// The parts beside the two factors are those that the configuration announces.
fn announced(factor: &Factor, config: &AdapterConfig) -> Result<(), PeftError> {
    // PEFT gives embeddings no bias.
    let bias = config.left_bias && factor.place == Place::Linear;
    for (part, key, announced, is_there) in [
        (Part::Magnitude, "use_dora", config.dora, factor.magnitude.is_some()),
        (Part::Bias, "lora_bias", bias, factor.bias.is_some()),
    ] {
        match (announced, is_there) {
            (true, false) => {
                let module = factor.module.clone();
                return Err(PeftError::MissingPart { module, what: names::label(part), key });
            }
            (false, true) => {
                return Err(PeftError::ExtraTensor { name: names::join(&factor.module, part) });
            }
            _ => {}
        }
    }
    Ok(())
}

/// The weights stored whole are those that `modules_to_save` names.
fn whole(adapter: &AdapterFolder, matcher: &Matcher<'_>) -> Result<(), PeftError> {
    let mut names: Vec<&str> = Vec::new();
    for whole in &adapter.whole {
        if names.contains(&whole.name.as_str()) || !matcher.is_saved_whole(&whole.name) {
            return Err(PeftError::BadWhole { name: whole.name.clone() });
        }
        names.push(&whole.name);
        let name = folder::whole_name(whole);
        if whole.shape.iter().product::<usize>() != whole.values.len() {
            let wanted = format!("one of {} values", whole.values.len());
            return Err(PeftError::Misshaped { name, shape: whole.shape.clone(), wanted });
        }
        finite(&name, &whole.values)?;
    }
    match adapter.config.modules_to_save.iter().find(|saved| !names.iter().any(|name| is_inside(saved, name)))
    {
        Some(saved) => Err(PeftError::SavedWithoutTensor { module: saved.clone() }),
        None => Ok(()),
    }
}

/// Two configurations give every module the same scale.
pub(super) fn same_scales(a: &AdapterConfig, b: &AdapterConfig, factors: &[Factor]) -> Result<(), PeftError> {
    let (a, b) = (Matcher::new(a)?, Matcher::new(b)?);
    match factors.iter().find(|factor| a.scale(&factor.module) != b.scale(&factor.module)) {
        Some(factor) => Err(PeftError::PatternOrder { module: factor.module.clone() }),
        None => Ok(()),
    }
}

/// Every tensor of a module, with the part that it is.
pub(super) fn parts(factor: &Factor) -> Vec<(Part, &[f32])> {
    let (right, left) = match factor.place {
        Place::Linear => (Part::Right, Part::Left),
        Place::Embedding => (Part::EmbeddingRight, Part::EmbeddingLeft),
    };
    let mut parts: Vec<(Part, &[f32])> = vec![(right, &factor.right), (left, &factor.left)];
    parts.extend(factor.magnitude.iter().map(|values| (Part::Magnitude, values.as_slice())));
    parts.extend(factor.bias.iter().map(|values| (Part::Bias, values.as_slice())));
    parts
}

/// The shape of a part.
pub(super) fn shape(factor: &Factor, part: Part) -> Vec<usize> {
    match part {
        Part::Left | Part::EmbeddingLeft => vec![factor.output, factor.rank],
        Part::Right | Part::EmbeddingRight => vec![factor.rank, factor.input],
        Part::Magnitude | Part::Bias | Part::Base => vec![factor.output],
    }
}

/// The values fill the sides; only our own callers can get this wrong.
fn shapes(factor: &Factor) -> Result<(), PeftError> {
    for (part, values) in parts(factor) {
        let shape = shape(factor, part);
        if shape.iter().product::<usize>() != values.len() {
            let wanted = format!("one of {} values", values.len());
            return Err(PeftError::Misshaped { name: names::join(&factor.module, part), shape, wanted });
        }
    }
    Ok(())
}

pub(super) fn finite(name: &str, values: &[f32]) -> Result<(), PeftError> {
    match values.iter().enumerate().find(|(_, value)| !value.is_finite()) {
        Some((index, &value)) => Err(PeftError::NotFinite { name: name.to_owned(), index, value }),
        None => Ok(()),
    }
}
