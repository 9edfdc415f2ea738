use std::collections::BTreeMap;
use std::path::Path;

use lowrank_blocks::narrow;

use super::{AdapterFolder, CONFIG_NAME, INITIAL_NAME, PeftError, TENSORS_NAME, check, folder, names};
use crate::atomic::{Disk, Existing, Folder, write_folder_on};
use crate::safetensors::{Entry, write_to};
use crate::{Dtype, StoreError, json};

impl AdapterFolder {
    /// Writes the folder as PEFT does: sorted keys, two spaces, tensors sorted by name. The same adapter gives the
    /// same bytes, and what [`AdapterFolder::read`] would refuse is not written.
    ///
    /// Patterns are written sorted, as PEFT does; an adapter whose patterns mean something else in that order is
    /// refused ([`PeftError::RankDiffers`], [`PeftError::PatternOrder`]).
    ///
    /// # Errors
    /// [`StoreError::Peft`] with what is wrong, [`StoreError::Exists`], [`StoreError::Io`].
    pub fn write(&self, path: &Path, existing: Existing) -> Result<(), StoreError> {
        self.write_on(&Disk::real(), path, existing)
    }

    /// [`AdapterFolder::write`] on a given disk.
    ///
    /// # Errors
    /// As [`AdapterFolder::write`].
    pub fn write_on(&self, disk: &Disk, path: &Path, existing: Existing) -> Result<(), StoreError> {
        write_folder_on(disk, path, existing, |out| self.fill(path, out))
    }

    /// [`AdapterFolder::write`] with the factors that the training began with in a folder [`INITIAL_NAME`] inside: an
    /// adapter of its own, in the layout that PEFT's conversion of offset starts reads.
    ///
    /// # Errors
    /// As [`AdapterFolder::write`].
    pub fn write_with_initial(
        &self,
        initial: &AdapterFolder,
        path: &Path,
        existing: Existing,
    ) -> Result<(), StoreError> {
        write_folder_on(&Disk::real(), path, existing, |out| {
            self.fill(path, out)?;
            out.folder(INITIAL_NAME, |inside| initial.fill(&path.join(INITIAL_NAME), inside))
        })
    }

    fn fill(&self, path: &Path, out: &Folder<'_>) -> Result<(), StoreError> {
        let (config, tensors, metadata) =
            self.encode().map_err(|cause| StoreError::Peft { path: path.to_owned(), cause })?;
        let entries: Vec<Entry<'_>> = tensors
            .iter()
            .map(|(name, shape, bytes)| Entry { name, dtype: Dtype::Real(self.format), shape, bytes })
            .collect();
        out.file(CONFIG_NAME, |sink| sink.write_all(config.as_bytes()))?;
        out.file(TENSORS_NAME, |sink| write_to(sink, &entries, &metadata))
    }

    #[expect(clippy::type_complexity, reason = "used once, right above")]
    fn encode(
        &self,
    ) -> Result<(String, Vec<(String, Vec<usize>, Vec<u8>)>, BTreeMap<String, String>), PeftError> {
        let mut sorted = self.clone();
        sorted.config.rank_pattern.sort_by(|a, b| a.0.cmp(&b.0));
        sorted.config.alpha_pattern.sort_by(|a, b| a.0.cmp(&b.0));
        check::all(&sorted)?;
        check::same_scales(&self.config, &sorted.config, &self.factors)?;
        let mut tensors = Vec::new();
        let mut put = |name: String, shape: Vec<usize>, values: &[f32]| match narrow(self.format, values) {
            Ok(bytes) => {
                tensors.push((name, shape, bytes));
                Ok(())
            }
            Err(cause) => Err(PeftError::Narrow { name, cause }),
        };
        for factor in &self.factors {
            for (part, values) in check::parts(factor) {
                put(names::join(&factor.module, part), check::shape(factor, part), values)?;
            }
        }
        for whole in &self.whole {
            put(folder::whole_name(whole), whole.shape.clone(), &whole.values)?;
        }
        tensors.sort_by(|a, b| a.0.cmp(&b.0));
        let mut metadata = self.provenance.clone();
        if metadata.insert("format".to_owned(), "pt".to_owned()).is_some() {
            return Err(PeftError::ReservedProvenance);
        }
        Ok((json::sorted_text(&sorted.config.to_value()), tensors, metadata))
    }
}
