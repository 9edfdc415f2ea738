use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::header::UniqueMap;
use super::{INDEX_NAME, IndexError, SafetensorsFile};
use crate::tensors::TensorInfo;
use crate::{StoreError, TensorSource, json, text};

/// A model in several safetensors files: a folder with `model.safetensors.index.json`. Strict: each listed tensor is in
/// its shard, and no shard holds another.
#[derive(Debug)]
pub struct ShardedModel {
    folder: PathBuf,
    names: Vec<String>,
    /// The shard of each name, in the order of `names`.
    shard: Vec<usize>,
    shards: Vec<SafetensorsFile>,
    metadata: BTreeMap<String, String>,
}

#[derive(serde::Deserialize)]
struct Index {
    weight_map: UniqueMap,
    // Holds total_size, which says nothing that the shards do not say.
    #[serde(rename = "metadata", default)]
    _metadata: Option<json::Unambiguous>,
}

impl ShardedModel {
    /// Opens every shard and compares it with the index.
    ///
    /// # Errors
    /// [`StoreError::Index`] where index and shards disagree, or what a shard's own reader says.
    pub fn open(folder: &Path) -> Result<ShardedModel, StoreError> {
        let path = folder.join(INDEX_NAME);
        let wrong = |cause| StoreError::Index { path: path.clone(), cause };
        let index: Index = json::parse(&path, &text::read(&path)?)?;
        let mut listed = index.weight_map.0;
        listed.sort();
        if listed.is_empty() {
            return Err(wrong(IndexError::Empty));
        }
        if let Some(pair) = listed.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(wrong(IndexError::DuplicateName { name: pair[0].0.clone() }));
        }
        let mut files: Vec<&str> = listed.iter().map(|(_, shard)| shard.as_str()).collect();
        files.sort_unstable();
        files.dedup();
        let mut shards = Vec::with_capacity(files.len());
        for &name in &files {
            // A name such as "../other" must not lead out of the folder.
            if Path::new(name).file_name() != Some(name.as_ref()) {
                return Err(wrong(IndexError::BadShardName { shard: name.to_owned() }));
            }
            let file = folder.join(name);
            if !file.is_file() {
                return Err(wrong(IndexError::MissingShard { shard: name.to_owned() }));
            }
            shards.push(SafetensorsFile::open(&file)?);
        }
        let mut shard = Vec::with_capacity(listed.len());
        for (name, file) in &listed {
            let at = files.partition_point(|known| *known < file.as_str());
            if !shards[at].contains(name) {
                return Err(wrong(IndexError::MissingTensor { name: name.clone(), shard: file.clone() }));
            }
            shard.push(at);
        }
        for (at, file) in shards.iter().enumerate() {
            for name in file.names() {
                let known = listed.binary_search_by(|(listed, _)| listed.cmp(name));
                if !known.is_ok_and(|row| shard[row] == at) {
                    let (name, shard) = (name.clone(), files[at].to_owned());
                    return Err(wrong(IndexError::ExtraTensor { name, shard }));
                }
            }
        }
        let metadata = shards.first().map(|file| file.metadata().clone()).unwrap_or_default();
        let names = listed.into_iter().map(|(name, _)| name).collect();
        Ok(ShardedModel { folder: folder.to_owned(), names, shard, shards, metadata })
    }

    fn shard_of(&self, name: &str) -> Result<&SafetensorsFile, StoreError> {
        match self.names.binary_search_by(|known| known.as_str().cmp(name)) {
            Ok(at) => Ok(&self.shards[self.shard[at]]),
            Err(_) => Err(StoreError::NoTensor { path: self.folder.clone(), name: name.to_owned() }),
        }
    }
}

impl TensorSource for ShardedModel {
    fn names(&self) -> &[String] {
        &self.names
    }

    fn info(&self, name: &str) -> Result<&TensorInfo, StoreError> {
        self.shard_of(name)?.info(name)
    }

    fn bytes(&self, name: &str) -> Result<&[u8], StoreError> {
        self.shard_of(name)?.bytes(name)
    }

    fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    fn path(&self) -> &Path {
        &self.folder
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::super::{Entry, IndexError as E, write};
    use super::{INDEX_NAME, ShardedModel};
    use crate::atomic::Disk;
    use crate::{Dtype, StoreError, TensorSource, hash, tensors};

    fn shard(path: &Path, tensors: &[(&str, u8)]) {
        let bytes: Vec<[u8; 1]> = tensors.iter().map(|&(_, value)| [value]).collect();
        let entries: Vec<Entry<'_>> = tensors
            .iter()
            .zip(&bytes)
            .map(|(&(name, _), bytes)| Entry { name, dtype: Dtype::U8, shape: &[1], bytes })
            .collect();
        write(&Disk::real(), path, &entries, &BTreeMap::new()).unwrap();
    }

    #[test]
    fn shards_and_index_must_agree() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        shard(&path.join("1.safetensors"), &[("c", 3), ("a", 1)]);
        shard(&path.join("2.safetensors"), &[("b", 2)]);
        let open = |index: &str| {
            std::fs::write(path.join(INDEX_NAME), index).unwrap();
            match ShardedModel::open(path) {
                Ok(model) => Ok(model),
                Err(StoreError::Index { cause, .. }) => Err(cause),
                Err(other) => panic!("{other}"),
            }
        };
        let good = r#"{"metadata":{"total_size":3},"weight_map":{"b":"2.safetensors","a":"1.safetensors","c":"1.safetensors"}}"#;
        let model = open(good).unwrap();
        assert_eq!(model.names(), ["a", "b", "c"]);
        assert_eq!([model.bytes("a").unwrap(), model.bytes("b").unwrap()].concat(), [1, 2]);
        let whole = tempfile::tempdir().unwrap();
        shard(&whole.path().join("model.safetensors"), &[("a", 1), ("b", 2), ("c", 3)]);
        let whole = tensors::open(whole.path()).unwrap();
        assert_eq!(hash::of_tensors(&model).unwrap(), hash::of_tensors(&*whole).unwrap());

        let name = |name: &str| name.to_owned();
        let cases = [
            (r#"{"weight_map":{}}"#, E::Empty),
            (
                r#"{"weight_map":{"a":"1.safetensors","a":"2.safetensors"}}"#,
                E::DuplicateName { name: name("a") },
            ),
            (
                r#"{"weight_map":{"a":"../1.safetensors"}}"#,
                E::BadShardName { shard: name("../1.safetensors") },
            ),
            (r#"{"weight_map":{"a":"3.safetensors"}}"#, E::MissingShard { shard: name("3.safetensors") }),
            (
                r#"{"weight_map":{"a":"2.safetensors"}}"#,
                E::MissingTensor { name: name("a"), shard: name("2.safetensors") },
            ),
            (
                r#"{"weight_map":{"a":"1.safetensors","b":"2.safetensors"}}"#,
                E::ExtraTensor { name: name("c"), shard: name("1.safetensors") },
            ),
        ];
        std::fs::write(path.join(INDEX_NAME), r#"{"metadata":{"a":1,"a":2},"weight_map":{}}"#).unwrap();
        let twice = ShardedModel::open(path).unwrap_err();
        assert!(twice.to_string().ends_with("key \"a\" occurs twice"), "{twice}");
        for (index, expected) in cases {
            assert_eq!(open(index).unwrap_err(), expected);
        }
        // The same name in two shards, listed in one of them.
        shard(&path.join("2.safetensors"), &[("b", 2), ("a", 9)]);
        assert_eq!(open(good).unwrap_err(), E::ExtraTensor { name: name("a"), shard: name("2.safetensors") });
        // A folder with both forms is ambiguous.
        shard(&path.join("model.safetensors"), &[("a", 1)]);
        assert!(matches!(tensors::open(path), Err(StoreError::TwoModels { .. })));
    }
}
