//! Building a vision transformer from the tensors of a Hugging Face directory.

use std::sync::Arc;

use lowrank_adapt::Linear;
use lowrank_record::Seed;
use lowrank_store::TensorSource;
use lowrank_tensor::Device;
use serde_json::Value;

use super::config::{Config, Family};
use super::names::Naming;
use super::{Block, Head, Vision};
use crate::checkpoint::Checkpoint;
use crate::keys::{Keys, bad};
use crate::{ModelError, Widen};

/// What a vision transformer is built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The features that a classifier would see.
    Features,
    /// The classification head of the file; DeiT's two, their answers averaged, where it was distilled.
    Classify,
    /// A classification head that the file does not hold, drawn anew.
    Fresh {
        /// Classes.
        labels: usize,
        /// Where the draws come from.
        seed: Seed,
    },
}

impl Purpose {
    /// What the model was written as, by the `architectures` of its `config.json`.
    ///
    /// # Errors
    /// [`ModelError`] where it says nothing, or names a head that is not ours.
    pub fn of(json: &Value) -> Result<Purpose, ModelError> {
        const KEY: &str = "architectures";
        let hint = "heads of our own are image classification and none";
        match Keys(json).architecture() {
            Some("ViTModel" | "DeiTModel" | "Dinov2Model") => Ok(Purpose::Features),
            Some(
                "ViTForImageClassification"
                | "DeiTForImageClassification"
                | "DeiTForImageClassificationWithTeacher"
                | "Dinov2ForImageClassification",
            ) => Ok(Purpose::Classify),
            Some(other) => Err(bad(KEY, other, hint)),
            None => Err(bad(KEY, "absent", hint)),
        }
    }
}

impl Vision {
    /// A vision transformer from named weights and its configuration. Heads of the file that are not asked for are left out.
    ///
    /// # Errors
    /// [`ModelError`] naming the tensor that is missing, extra or misshaped.
    pub fn from_checkpoint(
        config: Config,
        source: Arc<dyn TensorSource>,
        purpose: Purpose,
        widen: Widen,
        device: &Device,
    ) -> Result<Vision, ModelError> {
        let mut weights = Checkpoint::new(source, widen, device);
        let (hidden, epsilon) = (config.hidden, config.norm_epsilon);
        let family = match config.family {
            Family::Vit => "vit.",
            Family::Deit => "deit.",
            Family::Dinov2 => "dinov2.",
        };
        let prefix = weights.prefix(family, "embeddings.cls_token");
        let at = |part: &str| format!("{prefix}{part}");
        let (rows, columns) = (config.patch[0], config.patch[1]);
        let projection = weights.shaped(
            &at("embeddings.patch_embeddings.projection.weight"),
            &[hidden, config.channels, rows, columns],
            [hidden, config.patch_values()],
        )?;
        let projection_bias = weights.vector(&at("embeddings.patch_embeddings.projection.bias"), hidden)?;
        let mut first = Vec::new();
        let names = ["embeddings.cls_token", "embeddings.distillation_token"];
        for name in names.iter().take(config.family.tokens()) {
            first.extend(weights.shaped(&at(name), &[1, 1, hidden], [1, hidden])?.to_f32());
        }
        let positions = config.family.tokens() + config.grid()[0] * config.grid()[1];
        let positions = weights.shaped(
            &at("embeddings.position_embeddings"),
            &[1, positions, hidden],
            [positions, hidden],
        )?;
        let first_of_modules = at(&(Naming::Modules.block(config.family, 0) + "attention.q_proj.weight"));
        let naming = if weights.contains(&first_of_modules) { Naming::Modules } else { Naming::Files };
        let mut blocks = Vec::new();
        for layer in 0..config.layers {
            blocks.push(block(&config, &mut weights, naming, &at(&naming.block(config.family, layer)))?);
        }
        let norm = weights.layer_norm(&at("layernorm"), hidden, epsilon)?;
        let head = head(&config, &mut weights, purpose)?;
        weights.finish(|name| {
            // Heads that were not asked for, and what stands for masked patches in pretraining.
            let other = |name: &str| name.starts_with("pooler.") || name == "embeddings.mask_token";
            name.contains("classifier.") || name.strip_prefix(&prefix).is_some_and(other)
        })?;
        // With a head the base lies under the family's name, whatever the file that it came from calls it.
        let prefix = if matches!(head, Head::Features) { prefix } else { family.to_owned() };
        Ok(Vision {
            config,
            device: device.clone(),
            prefix,
            projection,
            projection_bias,
            first,
            positions: positions.to_f32(),
            blocks,
            norm,
            head,
            drawn: matches!(purpose, Purpose::Fresh { .. }),
        })
    }
}

fn block(
    config: &Config,
    weights: &mut Checkpoint,
    naming: Naming,
    prefix: &str,
) -> Result<Block, ModelError> {
    let (hidden, epsilon) = (config.hidden, config.norm_epsilon);
    let names = naming.linears(config.family);
    let at = |part: &str| format!("{prefix}{part}");
    let (before, after) = match config.family {
        Family::Vit | Family::Deit => ("layernorm_before", "layernorm_after"),
        Family::Dinov2 => ("norm1", "norm2"),
    };
    let scale = |weights: &mut Checkpoint, name: &str| match config.family {
        Family::Vit | Family::Deit => Ok(None),
        Family::Dinov2 => weights.row(&at(name), hidden).map(Some),
    };
    let square = [hidden, hidden];
    Ok(Block {
        before: weights.layer_norm(&at(before), hidden, epsilon)?,
        query: weights.linear(&at(names[0]), square, config.qkv_bias)?,
        key: weights.linear(&at(names[1]), square, config.qkv_bias)?,
        value: weights.linear(&at(names[2]), square, config.qkv_bias)?,
        output: weights.linear(&at(names[3]), square, true)?,
        attention_scale: scale(weights, "layer_scale1.lambda1")?,
        after: weights.layer_norm(&at(after), hidden, epsilon)?,
        inner: weights.linear(&at(names[4]), [config.intermediate, hidden], true)?,
        outer: weights.linear(&at(names[5]), [hidden, config.intermediate], true)?,
        mlp_scale: scale(weights, "layer_scale2.lambda1")?,
    })
}

fn head(config: &Config, weights: &mut Checkpoint, purpose: Purpose) -> Result<Head, ModelError> {
    let width = super::features(config);
    let distilled = weights.contains("cls_classifier.weight");
    let mut read = |name: &str| -> Result<(String, Linear), ModelError> {
        Ok((name.to_owned(), weights.linear(name, [config.labels, width], true)?))
    };
    Ok(match purpose {
        Purpose::Features => Head::Features,
        Purpose::Classify if config.family == Family::Deit && distilled => {
            Head::Distilled { class: read("cls_classifier")?, distillation: read("distillation_classifier")? }
        }
        Purpose::Classify => Head::Classify(read("classifier")?),
        Purpose::Fresh { labels, seed } => {
            Checkpoint::some_labels(labels)?;
            let name = "classifier".to_owned();
            let layer = Checkpoint::fresh(&name, [labels, width], seed)?;
            Head::Classify((name, layer))
        }
    })
}
