use std::collections::BTreeMap;
use std::path::Path;

use lowrank_blocks::narrow;

use super::kind::join;
use super::{Settings, TypedConfig, TypedFolder};
use crate::atomic::{Disk, Existing, Folder, write_folder_on};
use crate::peft::{CONFIG_NAME, Matcher, PeftError, TENSORS_NAME};
use crate::safetensors::{Entry, write_to};
use crate::{Dtype, StoreError, json};

/// Name, shape and bytes of a tensor.
type Encoded = (String, Vec<usize>, Vec<u8>);

impl TypedFolder {
    /// Writes the folder as PEFT does: sorted keys, two spaces, tensors sorted by name. The same adapter gives the
    /// same bytes, and what [`TypedFolder::read`] would refuse is not written.
    ///
    /// # Errors
    /// [`StoreError::Peft`] with what is wrong, [`StoreError::Exists`], [`StoreError::Io`].
    pub fn write(&self, path: &Path, existing: Existing) -> Result<(), StoreError> {
        self.write_on(&Disk::real(), path, existing)
    }

    /// [`TypedFolder::write`] on a given disk.
    ///
    /// # Errors
    /// As [`TypedFolder::write`].
    pub fn write_on(&self, disk: &Disk, path: &Path, existing: Existing) -> Result<(), StoreError> {
        write_folder_on(disk, path, existing, |out| self.fill(path, out))
    }

    fn fill(&self, path: &Path, out: &Folder<'_>) -> Result<(), StoreError> {
        let wrong = |cause| StoreError::Peft { path: path.to_owned(), cause };
        self.check().map_err(wrong)?;
        self.patterns_in_any_order().map_err(wrong)?;
        let tensors = self.encode().map_err(wrong)?;
        let mut metadata: BTreeMap<String, String> = self.provenance.clone();
        if metadata.insert("format".to_owned(), "pt".to_owned()).is_some() {
            return Err(wrong(PeftError::ReservedProvenance));
        }
        let entries: Vec<Entry<'_>> = tensors
            .iter()
            .map(|(name, shape, bytes)| Entry { name, dtype: Dtype::Real(self.format), shape, bytes })
            .collect();
        let config = json::sorted_text(&self.config.to_value());
        out.file(CONFIG_NAME, |sink| sink.write_all(config.as_bytes()))?;
        out.file(TENSORS_NAME, |sink| write_to(sink, &entries, &metadata))
    }

    /// Every tensor by its name in the file, sorted.
    fn encode(&self) -> Result<Vec<Encoded>, PeftError> {
        let kind = self.kind();
        let mut tensors = Vec::new();
        for module in &self.modules {
            for tensor in &module.tensors {
                tensors.push((join(kind, &module.module, &tensor.part)?, tensor));
            }
        }
        for (part, name) in kind.shared() {
            tensors.extend(self.shared(part).map(|tensor| ((*name).to_owned(), tensor)));
        }
        tensors.sort_by(|a, b| a.0.cmp(&b.0));
        let encoded = tensors.into_iter().map(|(name, tensor)| match narrow(self.format, &tensor.values) {
            Ok(bytes) => Ok((name, tensor.shape.clone(), bytes)),
            Err(cause) => Err(PeftError::Narrow { name, cause }),
        });
        encoded.collect()
    }

    /// The patterns, written sorted as PEFT writes them, give every module the rank and scale that they give it as they stand.
    fn patterns_in_any_order(&self) -> Result<(), PeftError> {
        let mut sorted: TypedConfig = self.config.clone();
        if let Settings::Loha { rank_pattern, alpha_pattern, .. }
        | Settings::Lokr { rank_pattern, alpha_pattern, .. } = &mut sorted.settings
        {
            rank_pattern.sort_by(|a, b| a.0.cmp(&b.0));
            alpha_pattern.sort_by(|a, b| a.0.cmp(&b.0));
        }
        let (given, sorted) = (self.config.matching(), sorted.matching());
        let (given, sorted) = (Matcher::new(&given)?, Matcher::new(&sorted)?);
        let differs = |module: &&str| {
            given.rank(module) != sorted.rank(module) || given.scale(module) != sorted.scale(module)
        };
        match self.modules.iter().map(|module| module.module.as_str()).find(differs) {
            Some(module) => Err(PeftError::PatternOrder { module: module.to_owned() }),
            None => Ok(()),
        }
    }
}
