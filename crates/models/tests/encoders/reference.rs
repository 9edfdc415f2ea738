//! The models of `tests/reference`, made again from their names, as Hugging Face directories.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use lowrank_models::{Encoder, T5, Vision, Widen, encoder, t5, vision};
use lowrank_store::safetensors::{Entry, encode};
use lowrank_store::{Dtype, Format, TensorSource, json, tensors};
use lowrank_tensor::cpu;
use lowrank_tensor::ops::Targets;
use serde_json::Value;

/// Uniform values on [-1, 1): `draws` of `reference/make.py`.
pub fn draws(name: &str, count: usize) -> Vec<f64> {
    let seed = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |seed, byte| (seed ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    let one = |index: u64| {
        let mut z = seed.wrapping_add((index + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        (z >> 40) as f64 / f64::from(1 << 23) - 1.0
    };
    (0..count as u64).map(one).collect()
}

/// `values` of `reference/make.py`.
fn values(name: &str, shape: &[usize]) -> Vec<f32> {
    let drawn = draws(name, shape.iter().product()).into_iter();
    let scaled: Vec<f64> = match shape {
        [_] if name.ends_with("bias") => drawn.map(|value| value * 0.25).collect(),
        [_] => drawn.map(|value| 1.0 + value * 0.25).collect(),
        [_, inner @ ..] => {
            let deviation = (3.0 / inner.iter().product::<usize>() as f64).sqrt();
            let small = if name == "shared.weight" { 0.25 } else { 1.0 };
            drawn.map(|value| value * deviation * small).collect()
        }
        [] => unreachable!("no tensor is a number"),
    };
    scaled.into_iter().map(|value| value as f32).collect()
}

/// What transformers computed, and the model on disk.
pub struct Reference {
    pub json: Value,
    pub source: Arc<dyn TensorSource>,
}

impl Reference {
    /// The reference of this name; `names` says under what names each tensor stands in the file that `test` reads.
    pub fn copied(name: &str, test: &str, names: impl Fn(&str) -> Vec<String>) -> Reference {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference").join(format!("{name}.json"));
        let json = json::read(&path).unwrap();
        let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = json["tensors"]
            .as_object()
            .unwrap()
            .iter()
            .flat_map(|(name, shape)| {
                let shape: Vec<usize> = serde_json::from_value(shape.clone()).unwrap();
                let bytes: Vec<u8> = values(name, &shape).into_iter().flat_map(f32::to_le_bytes).collect();
                names(name).into_iter().map(move |name| (name, shape.clone(), bytes.clone()))
            })
            .collect();
        let entries: Vec<Entry<'_>> = tensors
            .iter()
            .map(|(name, shape, bytes)| Entry { name, dtype: Dtype::Real(Format::F32), shape, bytes })
            .collect();
        // One folder for each test: they run side by side.
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("encoders-{test}-{name}"));
        std::fs::create_dir_all(&folder).unwrap();
        let bytes = encode(&entries, &BTreeMap::new()).unwrap();
        std::fs::write(folder.join("model.safetensors"), bytes).unwrap();
        Reference { json, source: Arc::from(tensors::open(&folder).unwrap()) }
    }

    /// The same with one name for each tensor.
    pub fn renamed(name: &str, test: &str, renamed: impl Fn(&str) -> String) -> Reference {
        Reference::copied(name, test, |name| vec![renamed(name)])
    }

    /// The reference of this name, for one test.
    pub fn new(name: &str, test: &str) -> Reference {
        Reference::renamed(name, test, str::to_owned)
    }

    pub fn config(&self) -> &Value {
        &self.json["config"]
    }

    /// A list of numbers under a key.
    pub fn list<T: serde::de::DeserializeOwned>(&self, key: &str) -> Vec<T> {
        serde_json::from_value(self.json[key].clone()).unwrap()
    }

    pub fn count(&self, key: &str) -> usize {
        self.json[key].as_u64().unwrap() as usize
    }

    pub fn encoder(&self, purpose: encoder::Purpose, widen: Widen) -> Encoder {
        let config = encoder::Config::from_json(self.config()).unwrap();
        Encoder::from_checkpoint(config, Arc::clone(&self.source), purpose, widen, &cpu()).unwrap()
    }

    pub fn vision(&self, purpose: vision::Purpose, widen: Widen) -> Vision {
        let config = vision::Config::from_json(self.config()).unwrap();
        Vision::from_checkpoint(config, Arc::clone(&self.source), purpose, widen, &cpu()).unwrap()
    }

    pub fn t5(&self, widen: Widen) -> T5 {
        let config = t5::Config::from_json(self.config()).unwrap();
        T5::from_checkpoint(config, Arc::clone(&self.source), widen, &cpu()).unwrap()
    }

    /// The sequences of an encoder.
    pub fn input(&self) -> encoder::Input {
        encoder::Input {
            tokens: self.list("tokens"),
            segments: self
                .json
                .get("segments")
                .map(|segments| serde_json::from_value(segments.clone()).unwrap()),
            visible: Some(self.list("visible")),
            batch: self.count("batch"),
            time: self.count("time"),
        }
    }

    /// What the head of an encoder should answer, if transformers computed a loss.
    pub fn labels(&self, purpose: encoder::Purpose) -> Option<encoder::Labels> {
        self.json.get("labels")?;
        let targets = || Targets { ids: self.list::<i32>("labels").into(), weights: None };
        Some(match purpose {
            encoder::Purpose::MaskedLanguage => encoder::Labels::Tokens(targets()),
            _ if self.list::<f64>("labels").iter().any(|label| label.fract() != 0.0) => {
                encoder::Labels::Values(self.list("labels"))
            }
            _ => encoder::Labels::Classes(targets()),
        })
    }

    /// Two images of this size: `images` of `reference/make.py`.
    pub fn images(height: usize, width: usize) -> vision::Images {
        let drawn = draws(&format!("pixels {height} {width}"), 2 * 3 * height * width);
        let pixels = drawn.into_iter().map(|value| value as f32).collect();
        vision::Images { pixels, batch: 2, height, width }
    }

    /// Questions and answers of an encoder–decoder: the decoder reads the answers one token late.
    pub fn answers(&self) -> t5::Batch {
        let targets: Vec<i32> = self.list("answers");
        let batch = self.count("batch");
        let late = |row: &[i32]| {
            let shown = [0].into_iter().chain(row[..row.len() - 1].iter().map(|&id| id.max(0) as u32));
            shown.collect::<Vec<u32>>()
        };
        let tokens = targets.chunks_exact(targets.len() / batch).flat_map(late).collect();
        let (visible, time) = (Some(self.list("visible")), self.count("time"));
        let source = t5::Source { tokens: self.list("tokens"), visible, batch, time };
        t5::Batch { source, tokens, targets: Targets { ids: targets.into(), weights: None } }
    }
}
