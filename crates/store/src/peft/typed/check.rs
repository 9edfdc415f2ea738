//! What every typed folder must fulfil, read or written.

use super::kind::join;
use super::{Kind, Settings, TypedFolder, TypedModule, TypedTensor, shapes};
use crate::peft::check::finite;
use crate::peft::matching::is_end;
use crate::peft::{Matcher, PeftError, Targets};

/// Configuration and tensors agree, and all numbers are finite.
pub(super) fn all(folder: &TypedFolder) -> Result<(), PeftError> {
    folder.config.check()?;
    if folder.modules.is_empty() {
        return Err(PeftError::Empty);
    }
    let kind = folder.kind();
    let matching = folder.config.matching();
    let matcher = Matcher::new(&matching)?;
    let mut names: Vec<&str> = folder.modules.iter().map(|module| module.module.as_str()).collect();
    names.sort_unstable();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(PeftError::DuplicateModule { module: pair[0].to_owned() });
    }
    for module in &folder.modules {
        if !matcher.is_target(&module.module) {
            return Err(PeftError::NotATarget { module: module.module.clone() });
        }
        one(kind, module)?;
        shapes::of_module(&folder.config, &matcher, module)?;
        for tensor in &module.tensors {
            finite(&join(kind, &module.module, &tensor.part)?, &tensor.values)?;
        }
    }
    if let Targets::List(list) = &folder.config.targets
        && let Some(target) = list.iter().find(|target| !names.iter().any(|name| is_end(target, name)))
    {
        return Err(PeftError::TargetWithoutFactors { target: target.clone() });
    }
    if let Settings::Adalora { kept, .. } = &folder.config.settings
        && let Some((module, _)) = kept.iter().find(|(module, _)| !names.contains(&module.as_str()))
    {
        return Err(PeftError::ChoiceWithoutModule { module: module.clone() });
    }
    shared(folder)
}

/// Every part is one of the kind, once, and its values fill its sides.
fn one(kind: Kind, module: &TypedModule) -> Result<(), PeftError> {
    for (index, tensor) in module.tensors.iter().enumerate() {
        let name = join(kind, &module.module, &tensor.part)?;
        if module.tensors[..index].iter().any(|before| before.part == tensor.part) {
            return Err(PeftError::ExtraTensor { name });
        }
        filled(name, tensor)?;
    }
    Ok(())
}

fn filled(name: String, tensor: &TypedTensor) -> Result<(), PeftError> {
    if tensor.shape.iter().product::<usize>() == tensor.values.len() {
        return Ok(());
    }
    let wanted = format!("one of {} values", tensor.values.len());
    Err(PeftError::Misshaped { name, shape: tensor.shape.clone(), wanted })
}

/// The tensors that all modules share are those of the kind.
fn shared(folder: &TypedFolder) -> Result<(), PeftError> {
    let kind = folder.kind();
    for (index, tensor) in folder.shared.iter().enumerate() {
        let Some((_, name)) = kind.shared().iter().find(|(part, _)| *part == tensor.part) else {
            return Err(PeftError::UnknownPart { kind: kind.name(), part: tensor.part.clone() });
        };
        let name = (*name).to_owned();
        if folder.shared[..index].iter().any(|before| before.part == tensor.part) {
            return Err(PeftError::ExtraTensor { name });
        }
        finite(&name, &tensor.values)?;
        filled(name, tensor)?;
    }
    for (part, name) in kind.shared() {
        if folder.shared(part).is_none() {
            return Err(PeftError::MissingTensor { name: (*name).to_owned() });
        }
    }
    shapes::of_shared(folder)
}
