//! The state of a training run: tensors, counters and settings in one file that is whole or recognisably not.
//!
//! The container is a safetensors file, so that other tools can look into it. Its metadata hold the settings as JSON
//! text and a BLAKE3 checksum over everything else; a file that was torn or altered is an error with that name.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::atomic::Disk;
use crate::json::Unambiguous;
use crate::mapped::Mapped;
use crate::safetensors::{Entry, SafetensorsError, parse, write};
use crate::{Dtype, Format, StoreError, hash};

const KIND: &str = "lowrank-checkpoint-1";

/// What is wrong with a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// The container is damaged.
    #[error("the checkpoint is torn or damaged ({cause}); go back to the one before")]
    Torn {
        /// How.
        cause: SafetensorsError,
    },
    /// A safetensors file, but no checkpoint.
    #[error("this is not a checkpoint of this program (format {found:?}, {KIND:?} is read)")]
    NotACheckpoint {
        /// The format it names.
        found: String,
    },
    /// A part that a checkpoint has is not there.
    #[error("the checkpoint has no {part:?}; go back to the one before")]
    MissingPart {
        /// The part.
        part: &'static str,
    },
    /// The content is not what was saved.
    #[error(
        "the checkpoint was altered or damaged: its checksum is {found}, {stored} was saved; go back to the one before"
    )]
    Checksum {
        /// As saved.
        stored: String,
        /// As found.
        found: String,
    },
    /// The settings are not JSON.
    #[error("the settings in the checkpoint are not JSON: {message}")]
    Settings {
        /// What the parser says.
        message: String,
    },
    /// A tensor of a type that checkpoints do not have.
    #[error("tensor {name:?} is {dtype}; a checkpoint holds F32 and U64, the latter as lists")]
    Dtype {
        /// The tensor.
        name: String,
        /// Its type.
        dtype: &'static str,
    },
}

/// The state of a training run. The order of the lists is kept.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Checkpoint {
    /// Name, sides, values (row-major). Names are unique over both lists.
    pub tensors: Vec<(String, Vec<usize>, Vec<f32>)>,
    /// Name, values: steps, positions of random streams.
    pub integers: Vec<(String, Vec<u64>)>,
    /// Everything else.
    pub json: Value,
}

/// Whether a safetensors file with this metadata is, or was before it was damaged, a checkpoint.
#[must_use]
pub fn is_checkpoint(metadata: &BTreeMap<String, String>) -> bool {
    metadata.get("format").is_some_and(|format| format == KIND)
}

impl Checkpoint {
    /// Saves it; the file before stays as it was until this one is complete and on the disk.
    ///
    /// # Errors
    /// [`StoreError::Io`]; [`StoreError::Safetensors`] when names repeat or values do not fill the sides.
    pub fn save(&self, path: &Path) -> Result<(), StoreError> {
        self.save_on(&Disk::real(), path)
    }

    /// [`Checkpoint::save`] on a given disk.
    ///
    /// # Errors
    /// As [`Checkpoint::save`].
    pub fn save_on(&self, disk: &Disk, path: &Path) -> Result<(), StoreError> {
        let sides: Vec<[usize; 1]> = self.integers.iter().map(|(_, values)| [values.len()]).collect();
        let counts = self.integers.iter().map(|(_, v)| v.iter().flat_map(|v| v.to_le_bytes()).collect());
        let values = self.tensors.iter().map(|(_, _, v)| v.iter().flat_map(|v| v.to_le_bytes()).collect());
        let bytes: Vec<Vec<u8>> = counts.chain(values).collect();
        let counts =
            self.integers.iter().zip(&sides).map(|((name, _), side)| (name, Dtype::U64, side.as_slice()));
        let tensors =
            self.tensors.iter().map(|(name, shape, _)| (name, Dtype::Real(Format::F32), shape.as_slice()));
        let entries: Vec<Entry<'_>> = counts
            .chain(tensors)
            .zip(&bytes)
            .map(|((name, dtype, shape), bytes)| Entry { name, dtype, shape, bytes })
            .collect();
        let json = self.json.to_string();
        let parts = entries.iter().map(|entry| (entry.name, entry.dtype, entry.shape, entry.bytes));
        let metadata = BTreeMap::from([
            ("checksum".to_owned(), checksum(&json, parts)),
            ("format".to_owned(), KIND.to_owned()),
            ("json".to_owned(), json),
        ]);
        write(disk, path, &entries, &metadata)
    }

    /// Loads what [`Checkpoint::save`] saved. Saving it again gives the same bytes.
    ///
    /// # Errors
    /// [`StoreError::Io`], or [`StoreError::Checkpoint`] with the kind of damage.
    pub fn load(path: &Path) -> Result<Checkpoint, StoreError> {
        let bytes = Mapped::open(path)?;
        Checkpoint::decode(&bytes).map_err(|cause| StoreError::Checkpoint { path: path.to_owned(), cause })
    }

    /// Reads a checkpoint from the bytes of its file.
    ///
    /// # Errors
    /// The kind of damage.
    pub fn decode(bytes: &[u8]) -> Result<Checkpoint, CheckpointError> {
        let parsed = parse(bytes).map_err(|cause| CheckpointError::Torn { cause })?;
        let part =
            |part: &'static str| parsed.metadata.get(part).ok_or(CheckpointError::MissingPart { part });
        let found = part("format")?;
        if found != KIND {
            return Err(CheckpointError::NotACheckpoint { found: found.clone() });
        }
        let (stored, json) = (part("checksum")?, part("json")?);
        let of = |tensor: &crate::tensors::Placed| &bytes[tensor.begin..tensor.end];
        let parts = parsed
            .tensors
            .iter()
            .map(|t| (t.info.name.as_str(), t.info.dtype, t.info.shape.as_slice(), of(t)));
        let found = checksum(json, parts);
        if found != *stored {
            return Err(CheckpointError::Checksum { stored: stored.clone(), found });
        }
        let Unambiguous(json) = serde_json::from_str(json)
            .map_err(|error| CheckpointError::Settings { message: error.to_string() })?;
        let mut out = Checkpoint { json, ..Checkpoint::default() };
        for tensor in &parsed.tensors {
            let (name, shape) = (tensor.info.name.clone(), tensor.info.shape.clone());
            match tensor.info.dtype {
                Dtype::Real(Format::F32) => {
                    let values =
                        of(tensor).as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
                    out.tensors.push((name, shape, values));
                }
                Dtype::U64 if shape.len() == 1 => {
                    let values =
                        of(tensor).as_chunks::<8>().0.iter().map(|b| u64::from_le_bytes(*b)).collect();
                    out.integers.push((name, values));
                }
                dtype => return Err(CheckpointError::Dtype { name, dtype: dtype.name() }),
            }
        }
        Ok(out)
    }
}

/// Over the settings and every tensor, in the order of the file.
fn checksum<'a>(json: &str, parts: impl Iterator<Item = (&'a str, Dtype, &'a [usize], &'a [u8])>) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(KIND.as_bytes());
    hash::update(&mut hasher, "json", "text", &[], json.as_bytes());
    for (name, dtype, shape, bytes) in parts {
        hash::update(&mut hasher, name, dtype.name(), shape, bytes);
    }
    hasher.finalize().to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Checkpoint, CheckpointError as E, KIND, checksum};
    use crate::atomic::Disk;
    use crate::safetensors::{Entry, encode};
    use crate::{Dtype, Format, StoreError};

    fn sample() -> Checkpoint {
        Checkpoint {
            tensors: vec![
                ("z.left".into(), vec![2, 1], vec![0.1, f32::NAN]),
                ("a.right".into(), vec![3], vec![-0.0, f32::INFINITY, 1e-45]),
                ("none".into(), vec![0, 4], vec![]),
            ],
            integers: vec![("step".into(), vec![7]), ("rng".into(), vec![u64::MAX, 0, 1])],
            json: json!({"z": 0.1, "a": [1e-7, 2.0, 1234567.125e-9], "text": "größe"}),
        }
    }

    #[test]
    fn saved_loaded_saved_is_the_same_file() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (folder.path().join("1"), folder.path().join("2"));
        let saved = sample();
        saved.save(&first).unwrap();
        let loaded = Checkpoint::load(&first).unwrap();
        loaded.save(&second).unwrap();
        assert_eq!(std::fs::read(&first).unwrap(), std::fs::read(&second).unwrap());
        assert_eq!((&loaded.integers, &loaded.json), (&saved.integers, &saved.json));
        for (a, b) in saved.tensors.iter().zip(&loaded.tensors) {
            assert_eq!((&a.0, &a.1), (&b.0, &b.1));
            let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&a.2), bits(&b.2), "NaN included");
        }
    }

    #[test]
    fn every_torn_or_altered_file_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        sample().save(&path).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        for len in 0..bytes.len() {
            let error = Checkpoint::decode(&bytes[..len]).unwrap_err();
            assert!(matches!(error, E::Torn { .. }), "{len}: {error}");
        }
        let saved = format!("{:?}", sample());
        for at in 0..bytes.len() {
            for bit in [1, 128] {
                let mut altered = bytes.clone();
                altered[at] ^= bit;
                if let Ok(read) = Checkpoint::decode(&altered) {
                    // Only spaces around the header's JSON may change without a trace.
                    assert_eq!(format!("{read:?}"), saved, "byte {at}");
                }
            }
        }
        let last = bytes.len() - 1;
        let mut altered = bytes.clone();
        altered[last] ^= 1;
        assert!(matches!(Checkpoint::decode(&altered), Err(E::Checksum { .. })));
    }

    #[test]
    fn other_files_are_no_checkpoints() {
        let empty = crate::safetensors::encode(&[], &std::collections::BTreeMap::new()).unwrap();
        assert_eq!(Checkpoint::decode(&empty), Err(E::MissingPart { part: "format" }));
        let metadata = std::collections::BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
        let model = crate::safetensors::encode(&[], &metadata).unwrap();
        assert_eq!(Checkpoint::decode(&model), Err(E::NotACheckpoint { found: "pt".into() }));
    }

    /// A file whose checksum is right, whatever it holds.
    fn signed(json: &str, entries: &[Entry<'_>]) -> Vec<u8> {
        let parts = entries.iter().map(|entry| (entry.name, entry.dtype, entry.shape, entry.bytes));
        let metadata = [
            ("checksum".to_owned(), checksum(json, parts)),
            ("format".to_owned(), KIND.to_owned()),
            ("json".to_owned(), json.to_owned()),
        ];
        encode(entries, &metadata.into()).unwrap()
    }

    #[test]
    fn settings_and_types_that_no_checkpoint_has_are_refused() {
        let none: [Entry<'_>; 0] = [];
        assert!(Checkpoint::decode(&signed("{}", &none)).is_ok());
        for (json, words) in [("{", "EOF"), ("{\"rate\": 1, \"rate\": 2}", "\"rate\" occurs twice")] {
            let error = Checkpoint::decode(&signed(json, &none)).unwrap_err();
            assert!(matches!(error, E::Settings { .. }), "{error}");
            assert!(error.to_string().contains(words), "{error}");
        }
        let refused = |dtype: Dtype, shape: &[usize], bytes: &[u8]| {
            Checkpoint::decode(&signed("{}", &[Entry { name: "w", dtype, shape, bytes }])).unwrap_err()
        };
        let wrong = |dtype| E::Dtype { name: "w".into(), dtype };
        assert_eq!(refused(Dtype::Real(Format::BF16), &[2], &[0; 4]), wrong("BF16"));
        assert_eq!(refused(Dtype::I32, &[1], &[0; 4]), wrong("I32"));
        assert_eq!(refused(Dtype::U64, &[1, 1], &[0; 8]), wrong("U64"), "counts are lists");
        assert!(wrong("I32").to_string().contains("F32 and U64"));
    }

    #[test]
    fn a_full_disk_keeps_the_old_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        sample().save(&path).unwrap();
        let before = std::fs::read(&path).unwrap();
        let mut next = sample();
        next.integers[0].1[0] = 8;
        for room in [0, 9, before.len() as u64 - 1] {
            assert!(matches!(next.save_on(&Disk::with_room(room), &path), Err(StoreError::Io { .. })));
            assert_eq!(std::fs::read(&path).unwrap(), before);
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        next.save_on(&Disk::with_room(before.len() as u64), &path).unwrap();
        assert_eq!(Checkpoint::load(&path).unwrap().integers, next.integers);
    }
}
