use std::collections::BTreeMap;
use std::path::Path;

use super::{Kind, TypedConfig, TypedFolder, TypedModule, TypedTensor};
use crate::peft::folder::holding;
use crate::peft::{CONFIG_NAME, PREFIX, PeftError, TENSORS_NAME};
use crate::safetensors::SafetensorsFile;
use crate::tensors::{Dtype, TensorSource};
use crate::{Format, StoreError, json};

/// Where a tensor of the file belongs.
enum Belongs<'a> {
    Module(&'a str, &'static str),
    Shared(&'static str),
}

impl TypedFolder {
    /// Reads a folder, strictly. [`super::kind_of`] tells whether it is one for this reader.
    ///
    /// # Errors
    /// [`StoreError::Peft`] with what is wrong, [`PeftError::IsLora`] for a LoRA; [`StoreError::Io`], [`StoreError::Json`],
    /// [`StoreError::Safetensors`] for the files themselves.
    pub fn read(path: &Path) -> Result<TypedFolder, StoreError> {
        let wrong = |cause| StoreError::Peft { path: path.to_owned(), cause };
        let config = TypedConfig::parse(&json::read(&path.join(CONFIG_NAME))?).map_err(wrong)?;
        let kind = config.settings.kind();
        let tensors = path.join(TENSORS_NAME);
        if !tensors.exists() && path.join("adapter_model.bin").exists() {
            return Err(wrong(PeftError::Pickle));
        }
        let file = SafetensorsFile::open(&tensors)?;
        let mut modules: BTreeMap<&str, Vec<TypedTensor>> = BTreeMap::new();
        let (mut shared, mut format) = (Vec::new(), None);
        for name in file.names() {
            let belongs = place(kind, name).map_err(wrong)?;
            let info = file.info(name)?;
            let Dtype::Real(stored) = info.dtype else {
                return Err(wrong(PeftError::Dtype { name: name.clone(), dtype: info.dtype.name() }));
            };
            let (shape, values) = (info.shape.clone(), file.widened(name)?);
            let tensor = |part: &str| TypedTensor { part: part.to_owned(), shape, values };
            match belongs {
                Belongs::Module(module, part) => modules.entry(module).or_default().push(tensor(part)),
                Belongs::Shared(part) => shared.push(tensor(part)),
            }
            format = Some(holding(format, stored));
        }
        let order = |tensor: &TypedTensor| kind.parts().iter().position(|(part, _)| *part == tensor.part);
        let in_order = |(module, mut tensors): (&str, Vec<TypedTensor>)| {
            tensors.sort_by_key(order);
            TypedModule { module: module.to_owned(), tensors }
        };
        let modules = modules.into_iter().map(in_order).collect();
        let mut provenance = file.metadata().clone();
        provenance.remove("format");
        let format = format.unwrap_or(Format::F32);
        let folder = TypedFolder { config, modules, shared, provenance, format };
        folder.check().map_err(wrong)?;
        Ok(folder)
    }
}

fn place(kind: Kind, name: &str) -> Result<Belongs<'_>, PeftError> {
    let misnamed = |why| Err(PeftError::Misnamed { name: name.to_owned(), why });
    if let Some((part, _)) = kind.shared().iter().find(|(_, full)| *full == name) {
        return Ok(Belongs::Shared(part));
    }
    let Some(rest) = name.strip_prefix(PREFIX) else {
        if name.starts_with("base_model.") {
            return Err(PeftError::ExtraTensor { name: name.to_owned() });
        }
        return misnamed(
            "names begin with \"base_model.model.\"; PEFT would pass over it and leave the base as it is",
        );
    };
    for (part, end) in kind.parts() {
        if let Some(module) = rest.strip_suffix(end) {
            return if module.is_empty() {
                misnamed("it names no module")
            } else {
                Ok(Belongs::Module(module, part))
            };
        }
        // As in the model itself: behind the part, before `.weight` where there is one.
        let named = format!("{}.", end.strip_suffix(".weight").unwrap_or(end));
        if rest.contains(&named) {
            return misnamed(
                "remove the adapter's name from the end; only an adapter of that very name would load it",
            );
        }
    }
    Err(PeftError::ExtraTensor { name: name.to_owned() })
}
