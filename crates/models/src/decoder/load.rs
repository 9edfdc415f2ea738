//! Building a decoder from named weights: a Hugging Face directory, a GGUF file, or random draws.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use lowrank_adapt::{Linear, Weight};
use lowrank_record::Seed;
use lowrank_store::TensorSource;
use lowrank_tensor::{Device, Matrix, from_rows};

use super::block::{Block, Join, Projection};
use super::config::{Config, Residual};
use super::conv1d::transposed_bytes;
use super::family::{ProjectionNames, Table};
use super::norm::{Gain, Norm};
use super::{Decoder, rope};
use crate::ModelError;
use crate::tensors::{mapped, refuse_extra, stored_format};

/// Whether stored weights are widened to f32 at once or each time they are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Widen {
    /// At load: more memory, no work later.
    #[default]
    Once,
    /// In each product: a bf16 model takes half, a 4-bit model an eighth of the memory.
    OnUse,
}

/// Weights by their Hugging Face names.
pub trait Weights {
    /// A matrix `[out, in]`.
    ///
    /// # Errors
    /// [`ModelError::MissingTensor`] or [`ModelError::Shape`].
    fn matrix(&mut self, name: &str, shape: [usize; 2]) -> Result<Matrix, ModelError>;

    /// A vector as a matrix `[1, width]`.
    ///
    /// # Errors
    /// [`ModelError::MissingTensor`] or [`ModelError::Shape`].
    fn vector(&mut self, name: &str, width: usize) -> Result<Matrix, ModelError>;

    /// Refuses what was never asked for.
    ///
    /// # Errors
    /// [`ModelError::ExtraTensors`].
    fn finish(&mut self) -> Result<(), ModelError>;
}

impl Decoder {
    /// A decoder from named weights.
    ///
    /// # Errors
    /// [`ModelError`] naming the tensor that is missing, extra or misshaped.
    pub fn build(
        config: Config,
        weights: &mut dyn Weights,
        widen: Widen,
        device: &Device,
    ) -> Result<Decoder, ModelError> {
        let (hidden, inner, table) = (config.hidden, config.intermediate, config.family.table());
        let (q, kv) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
        let held = |matrix: Matrix| if widen == Widen::Once { matrix.widened() } else { matrix };
        let gain = |weights: &mut dyn Weights, name: &str| -> Result<Gain, ModelError> {
            let vector = weights.vector(name, hidden)?;
            Ok(Gain::Frozen(Box::new(from_rows(vector.to_f32(), [1, hidden], device))))
        };
        let norm = |weights: &mut dyn Weights, name: &str| -> Result<Norm, ModelError> {
            let gain_of_norm = gain(weights, &format!("{name}.weight"))?;
            let bias = table.layer_norm.then(|| gain(weights, &format!("{name}.bias"))).transpose()?;
            Ok(Norm { gain: gain_of_norm, bias })
        };
        let linear = |weights: &mut dyn Weights, name: String, out: usize, inp: usize, bias: bool| {
            let weight = held(weights.matrix(&format!("{name}.weight"), [out, inp])?);
            let bias = bias.then(|| weights.vector(&format!("{name}.bias"), out)).transpose()?;
            Ok::<Linear, ModelError>(Linear::new(Weight::Frozen(weight), bias.map(|bias| bias.widened())))
        };
        let embedding =
            held(weights.matrix(&format!("{}.weight", table.embedding), [config.vocabulary, hidden])?);
        let positions = match table.positions {
            Some(name) => Some(Weight::Frozen(held(
                weights.matrix(&format!("{name}.weight"), [config.context, hidden])?,
            ))),
            None => None,
        };
        // Not by the number that the file claims: it may be too large for memory, and its tensors are not there.
        let mut blocks = Vec::new();
        for layer in 0..config.layers {
            let at = |part: &str| table.inside(layer, part);
            let input_norm = norm(weights, &at(table.input_norm))?;
            let projection = match table.projection {
                ProjectionNames::Separate([query, key, value]) => Projection::Separate {
                    query: linear(weights, at(query), q, hidden, config.qkv_bias)?,
                    key: linear(weights, at(key), kv, hidden, config.qkv_bias)?,
                    value: linear(weights, at(value), kv, hidden, config.qkv_bias)?,
                },
                ProjectionNames::Fused(name, order) => {
                    Projection::Fused(linear(weights, at(name), q + 2 * kv, hidden, config.qkv_bias)?, order)
                }
            };
            let output = linear(weights, at(table.output), hidden, q, config.output_bias)?;
            let mlp_norm = table.mlp_norm.map(|name| norm(weights, &at(name))).transpose()?;
            let join = match (config.residual, mlp_norm) {
                (Residual::Sequential, Some(norm)) => Join::Sequential(norm),
                (Residual::Parallel, Some(norm)) => Join::Parallel(norm),
                (_, None) | (Residual::Shared, _) => Join::Shared,
            };
            let gate = table.gate.map(|name| linear(weights, at(name), inner, hidden, config.mlp_bias));
            blocks.push(Block {
                input_norm,
                projection,
                output,
                join,
                gate: gate.transpose()?,
                up: linear(weights, at(table.up), inner, hidden, config.mlp_bias)?,
                down: linear(weights, at(table.down), hidden, inner, config.mlp_bias)?,
            });
        }
        let norm = norm(weights, table.norm)?;
        let head = if config.tied {
            None
        } else {
            Some(linear(weights, table.head.to_owned(), config.vocabulary, hidden, config.head_bias)?)
        };
        weights.finish()?;
        let tables = Mutex::new(Arc::new(rope::tables(&config, 0)));
        let embedding = Weight::Frozen(embedding);
        Ok(Decoder { config, device: device.clone(), embedding, positions, blocks, norm, head, tables })
    }

    /// A decoder from the tensors of a Hugging Face directory and its configuration.
    ///
    /// # Errors
    /// [`ModelError`] naming what is missing, extra or misshaped.
    pub fn from_checkpoint(
        config: Config,
        source: Arc<dyn TensorSource>,
        widen: Widen,
        device: &Device,
    ) -> Result<Decoder, ModelError> {
        let mut weights = Checkpoint::new(source, &config);
        Decoder::build(config, &mut weights, widen, device)
    }

    /// A decoder with random weights: normal draws of deviation `1/√in`, norms at 1. For pretraining and for tests.
    ///
    /// # Errors
    /// None for a checked configuration.
    pub fn random(config: Config, seed: Seed, device: &Device) -> Result<Decoder, ModelError> {
        Decoder::build(config, &mut Random { seed }, Widen::Once, device)
    }
}

/// Weights of a Hugging Face directory.
pub struct Checkpoint {
    source: Arc<dyn TensorSource>,
    asked: BTreeSet<String>,
    tied: bool,
    table: &'static Table,
    /// What the names of this checkpoint lack at their beginning.
    lacks: &'static str,
}

impl Checkpoint {
    /// Reads from an open source.
    #[must_use]
    pub fn new(source: Arc<dyn TensorSource>, config: &Config) -> Checkpoint {
        let table = config.family.table();
        let whole = format!("{}.weight", table.embedding);
        let lacks = match table.optional_prefix {
            Some(prefix) if !source.contains(&whole) => prefix,
            _ => "",
        };
        Checkpoint { source, asked: BTreeSet::new(), tied: config.tied, table, lacks }
    }

    /// The name in this checkpoint, which is asked for from here on.
    fn stored(&mut self, name: &str) -> String {
        let stored = name.strip_prefix(self.lacks).unwrap_or(name).to_owned();
        self.asked.insert(stored.clone());
        stored
    }
}

impl Weights for Checkpoint {
    fn matrix(&mut self, name: &str, [out, inp]: [usize; 2]) -> Result<Matrix, ModelError> {
        let stored = self.stored(name);
        if !self.table.is_transposed(name) {
            return mapped(&self.source, &stored, &[out, inp], [out, inp]);
        }
        let format = stored_format(&*self.source, &stored, &[inp, out])?;
        let bytes = transposed_bytes(self.source.bytes(&stored)?, format.block_bytes(), inp, out);
        let Some(bytes) = bytes else {
            return Err(ModelError::Dtype { name: stored, dtype: format.name() });
        };
        Matrix::from_bytes(Arc::new(bytes), format, [out, inp])
            .map_err(|source| ModelError::Matrix { name: stored, source })
    }

    fn vector(&mut self, name: &str, width: usize) -> Result<Matrix, ModelError> {
        let stored = self.stored(name);
        mapped(&self.source, &stored, &[width], [1, width])
    }

    fn finish(&mut self) -> Result<(), ModelError> {
        // Old exports keep masks and rotary frequencies as buffers; tied models may repeat the embedding as the head.
        let head = self.tied.then(|| format!("{}.weight", self.table.head));
        refuse_extra(&*self.source, &self.asked, |name| {
            self.table.buffers.iter().any(|end| name.ends_with(end)) || head.as_deref() == Some(name)
        })
    }
}

struct Random {
    seed: Seed,
}

impl Weights for Random {
    fn matrix(&mut self, name: &str, [out, inp]: [usize; 2]) -> Result<Matrix, ModelError> {
        let deviation = 1.0 / (inp as f32).sqrt();
        let draws = self.seed.at("weight", name).normal(out * inp).into_iter().map(|draw| draw * deviation);
        Matrix::from_f32(draws.collect(), [out, inp])
            .map_err(|source| ModelError::Matrix { name: name.to_owned(), source })
    }

    fn vector(&mut self, name: &str, width: usize) -> Result<Matrix, ModelError> {
        let value = if name.ends_with(".bias") { 0.0 } else { 1.0 };
        Matrix::from_f32(vec![value; width], [1, width])
            .map_err(|source| ModelError::Matrix { name: name.to_owned(), source })
    }

    fn finish(&mut self) -> Result<(), ModelError> {
        Ok(())
    }
}
