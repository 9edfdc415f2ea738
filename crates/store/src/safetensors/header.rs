//! The JSON header, entry by entry, so that nothing that occurs twice is lost in a map.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};

/// The header as written, in the order of the text.
#[derive(Debug, Default)]
pub(super) struct RawHeader {
    pub(super) tensors: Vec<(String, RawEntry)>,
    pub(super) metadata: Vec<BTreeMap<String, String>>,
}

/// One tensor of the header.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawEntry {
    pub(super) dtype: String,
    pub(super) shape: Vec<usize>,
    pub(super) data_offsets: (usize, usize),
}

/// A map of which no key may occur twice.
pub(super) struct UniqueMap(pub(super) Vec<(String, String)>);

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = RawHeader;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<RawHeader, M::Error> {
                let mut header = RawHeader::default();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        let pairs = map.next_value::<UniqueMap>()?.0;
                        let mut metadata = BTreeMap::new();
                        for (key, value) in pairs {
                            if metadata.contains_key(&key) {
                                return Err(M::Error::custom(format!("__metadata__ has {key:?} twice")));
                            }
                            metadata.insert(key, value);
                        }
                        header.metadata.push(metadata);
                    } else {
                        header.tensors.push((name, map.next_value()?));
                    }
                }
                Ok(header)
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

impl<'de> Deserialize<'de> for UniqueMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = UniqueMap;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of strings")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<UniqueMap, M::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(UniqueMap(pairs))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}
