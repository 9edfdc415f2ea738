//! Building an encoder from the tensors of a Hugging Face directory.

use std::sync::Arc;

use lowrank_adapt::Linear;
use lowrank_store::TensorSource;
use lowrank_tensor::Device;

use super::config::{Config, Family};
use super::head::{Head, Purpose};
use super::{Block, Encoder};
use crate::activation::Activation;
use crate::checkpoint::Checkpoint;
use crate::keys::bad;
use crate::{ModelError, Widen};

impl Encoder {
    /// An encoder from named weights and its configuration. Heads of the file that are not asked for are left out.
    ///
    /// # Errors
    /// [`ModelError`] naming the tensor that is missing, extra or misshaped.
    pub fn from_checkpoint(
        config: Config,
        source: Arc<dyn TensorSource>,
        purpose: Purpose,
        widen: Widen,
        device: &Device,
    ) -> Result<Encoder, ModelError> {
        let mut weights = Checkpoint::new(source, widen, device);
        let (hidden, epsilon) = (config.hidden, config.norm_epsilon);
        let family = match config.family {
            Family::Bert => "bert.",
            Family::Roberta => "roberta.",
        };
        let prefix = weights.prefix(family, "embeddings.word_embeddings.weight");
        let at = |part: &str| format!("{prefix}embeddings.{part}");
        let words = weights.matrix(&at("word_embeddings.weight"), [config.vocabulary, hidden])?;
        let positions = weights.matrix(&at("position_embeddings.weight"), [config.positions, hidden])?;
        let segments = weights.matrix(&at("token_type_embeddings.weight"), [config.segments, hidden])?;
        let norm = weights.layer_norm(&at("LayerNorm"), hidden, epsilon)?;
        // Not by the number that the file claims: it may be too large for memory, and its tensors are not there.
        let mut blocks = Vec::new();
        for layer in 0..config.layers {
            let at = |part: &str| format!("{prefix}encoder.layer.{layer}.{part}");
            let square = [hidden, hidden];
            blocks.push(Block {
                query: weights.linear(&at("attention.self.query"), square, true)?,
                key: weights.linear(&at("attention.self.key"), square, true)?,
                value: weights.linear(&at("attention.self.value"), square, true)?,
                output: weights.linear(&at("attention.output.dense"), square, true)?,
                attention_norm: weights.layer_norm(&at("attention.output.LayerNorm"), hidden, epsilon)?,
                inner: weights.linear(&at("intermediate.dense"), [config.intermediate, hidden], true)?,
                outer: weights.linear(&at("output.dense"), [hidden, config.intermediate], true)?,
                norm: weights.layer_norm(&at("output.LayerNorm"), hidden, epsilon)?,
            });
        }
        // A head that the file does not hold makes of it a model whose base has a name: transformers and PEFT call it so.
        let called = if purpose == Purpose::Embed { prefix.clone() } else { family.to_owned() };
        let head = head(&config, &mut weights, purpose, [&prefix, &called])?;
        weights.finish(|name| {
            // Heads that were not asked for, the buffer of old exports, and the copies of what is tied.
            let other = |name: &str| name.starts_with("pooler.") || name == "embeddings.position_ids";
            ["cls.", "lm_head.", "classifier."].iter().any(|head| name.starts_with(head))
                || name.strip_prefix(&prefix).is_some_and(other)
        })?;
        let device = device.clone();
        Ok(Encoder { config, device, prefix: called, words, positions, segments, norm, blocks, head })
    }
}

fn head(
    config: &Config,
    weights: &mut Checkpoint,
    purpose: Purpose,
    [prefix, called]: [&str; 2],
) -> Result<Head, ModelError> {
    let hidden = config.hidden;
    let square = [hidden, hidden];
    let (dense, out) = match config.family {
        Family::Bert => (format!("{prefix}pooler.dense"), "classifier"),
        Family::Roberta => ("classifier.dense".to_owned(), "classifier.out_proj"),
    };
    let called_dense = match config.family {
        Family::Bert => format!("{called}pooler.dense"),
        Family::Roberta => dense.clone(),
    };
    Ok(match purpose {
        Purpose::Embed => Head::Embed,
        Purpose::Classify => Head::Classify {
            dense: (called_dense, weights.linear(&dense, square, true)?),
            out: named(out, |name| weights.linear(name, [config.labels, hidden], true))?,
            drawn: Vec::new(),
        },
        Purpose::Fresh { labels, seed } => {
            Checkpoint::some_labels(labels)?;
            let pooled = config.family == Family::Bert && weights.contains(&format!("{dense}.weight"));
            let pooler = match pooled {
                true => weights.linear(&dense, square, true)?,
                false => Checkpoint::fresh(&called_dense, square, seed)?,
            };
            let mut drawn = vec![out.to_owned()];
            drawn.extend((!pooled).then(|| called_dense.clone()));
            Head::Classify {
                dense: (called_dense, pooler),
                out: named(out, |name| Checkpoint::fresh(name, [labels, hidden], seed))?,
                drawn,
            }
        }
        Purpose::MaskedLanguage => {
            if !config.tied {
                let hint = "only a masked-language head that is the word embedding is supported";
                return Err(bad("tie_word_embeddings", false, hint));
            }
            let (dense, norm, bias, activation) = match config.family {
                Family::Bert => (
                    "cls.predictions.transform.dense",
                    "cls.predictions.transform.LayerNorm",
                    "cls.predictions.bias",
                    config.activation,
                ),
                // Its head has GELU whatever the blocks have.
                Family::Roberta => ("lm_head.dense", "lm_head.layer_norm", "lm_head.bias", Activation::Gelu),
            };
            Head::Masked {
                dense: named(dense, |name| weights.linear(name, square, true))?,
                activation,
                norm: Box::new(weights.layer_norm(norm, hidden, config.norm_epsilon)?),
                bias: Box::new(weights.vector(bias, config.vocabulary)?),
            }
        }
    })
}

/// A layer with its name.
fn named(
    name: &str,
    make: impl FnOnce(&str) -> Result<Linear, ModelError>,
) -> Result<(String, Linear), ModelError> {
    Ok((name.to_owned(), make(name)?))
}
