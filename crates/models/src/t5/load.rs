//! Building an encoder–decoder from the tensors of a Hugging Face directory.

use std::sync::Arc;

use lowrank_store::TensorSource;
use lowrank_tensor::Device;

use super::{Attention, Block, Config, FeedForward, Side, Stack, T5};
use crate::checkpoint::Checkpoint;
use crate::{ModelError, Widen};

const SHARED: &str = "shared.weight";
const HEAD: &str = "lm_head.weight";
/// Copies of the embedding, and a table that no version uses and old files hold.
const IGNORED: [&str; 3] = [
    "encoder.embed_tokens.weight",
    "decoder.embed_tokens.weight",
    "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",
];

impl T5 {
    /// An encoder–decoder from named weights and its configuration.
    ///
    /// A head that is the embedding may be left out of the file; one that is there and has other values is the head, whatever
    /// the configuration says of it, as `transformers` takes it.
    ///
    /// # Errors
    /// [`ModelError`] naming the tensor that is missing, extra or misshaped.
    pub fn from_checkpoint(
        config: Config,
        source: Arc<dyn TensorSource>,
        widen: Widen,
        device: &Device,
    ) -> Result<T5, ModelError> {
        let own = !config.tied
            || source.contains(HEAD)
                && (!source.contains(SHARED) || source.bytes(HEAD)? != source.bytes(SHARED)?);
        let mut weights = Checkpoint::new(source, widen, device);
        let shared = weights.matrix(SHARED, [config.vocabulary, config.hidden])?;
        let encoder = stack(&config, &mut weights, Side::Encoder)?;
        let decoder = stack(&config, &mut weights, Side::Decoder)?;
        let head = match own {
            true => Some(weights.linear("lm_head", [config.vocabulary, config.hidden], false)?),
            false => None,
        };
        weights.finish(|name| IGNORED.contains(&name) || !own && name == HEAD)?;
        Ok(T5 { config, device: device.clone(), shared, encoder, decoder, head })
    }
}

fn stack(config: &Config, weights: &mut Checkpoint, side: Side) -> Result<Stack, ModelError> {
    let (hidden, epsilon) = (config.hidden, config.norm_epsilon);
    let (name, layers) = match side {
        Side::Encoder => ("encoder", config.encoder_layers),
        Side::Decoder => ("decoder", config.decoder_layers),
    };
    let table = format!("{name}.block.0.layer.0.SelfAttention.relative_attention_bias.weight");
    let bias = weights.matrix(&table, [config.buckets, config.heads])?.to_f32();
    let mut blocks = Vec::new();
    for layer in 0..layers {
        let at = |part: &str| format!("{name}.block.{layer}.layer.{part}");
        let norm = at("0.layer_norm");
        let attention =
            (weights.rms_norm(&norm, hidden, epsilon)?, attention(config, weights, &at("0.SelfAttention"))?);
        let cross = match side {
            Side::Encoder => None,
            Side::Decoder => {
                let norm = weights.rms_norm(&at("1.layer_norm"), hidden, epsilon)?;
                Some((norm, self::attention(config, weights, &at("1.EncDecAttention"))?))
            }
        };
        let last = match side {
            Side::Encoder => "1",
            Side::Decoder => "2",
        };
        let at = |part: &str| at(&format!("{last}.{part}"));
        let inner = [config.intermediate, hidden];
        let feed_forward = FeedForward {
            inner: weights.linear(
                &at(if config.gated { "DenseReluDense.wi_0" } else { "DenseReluDense.wi" }),
                inner,
                false,
            )?,
            gated: match config.gated {
                true => Some(weights.linear(&at("DenseReluDense.wi_1"), inner, false)?),
                false => None,
            },
            outer: weights.linear(&at("DenseReluDense.wo"), [hidden, config.intermediate], false)?,
        };
        let feed_forward = (weights.rms_norm(&at("layer_norm"), hidden, epsilon)?, feed_forward);
        blocks.push(Block { attention, cross, feed_forward });
    }
    let norm = weights.rms_norm(&format!("{name}.final_layer_norm"), hidden, epsilon)?;
    Ok(Stack { side, blocks, bias, norm })
}

fn attention(config: &Config, weights: &mut Checkpoint, name: &str) -> Result<Attention, ModelError> {
    let (hidden, width) = (config.hidden, config.heads * config.head_dim);
    let mut linear = |part: &str, shape| weights.linear(&format!("{name}.{part}"), shape, false);
    Ok(Attention {
        query: linear("q", [width, hidden])?,
        key: linear("k", [width, hidden])?,
        value: linear("v", [width, hidden])?,
        output: linear("o", [hidden, width])?,
    })
}
