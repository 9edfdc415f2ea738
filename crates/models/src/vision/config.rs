//! The configuration of ViT, DeiT and DINOv2, from a Hugging Face `config.json`.

use serde_json::Value;

use crate::ModelError;
use crate::activation::Activation;
use crate::keys::{Keys, bad};

/// Architectures of `config.json` that share this network.
pub const MODEL_TYPES: &[&str] = &["vit", "deit", "dinov2"];

/// Whose names, tokens and head a vision transformer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub enum Family {
    /// Dosovitskiy et al., "An Image is Worth 16x16 Words", 2021.
    Vit,
    /// Touvron et al., "Training data-efficient image transformers & distillation through attention", 2021: a second token.
    Deit,
    /// Oquab et al., "DINOv2", 2023: each branch is scaled (Touvron et al., "Going deeper with Image Transformers", 2021), and
    /// the head sees the mean of the patches too.
    Dinov2,
}

impl Family {
    /// Tokens in front of the patches.
    #[must_use]
    pub fn tokens(self) -> usize {
        match self {
            Family::Vit | Family::Dinov2 => 1,
            Family::Deit => 2,
        }
    }
}

/// Shape and constants of a vision transformer.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Config {
    /// `vit`, `deit` or `dinov2`.
    pub family: Family,
    /// Width of the hidden state.
    pub hidden: usize,
    /// Width inside the feed-forward part.
    pub intermediate: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Heads of queries, keys and values.
    pub heads: usize,
    /// Rows and columns of the images that the positions were trained on.
    pub image: [usize; 2],
    /// Rows and columns of a patch.
    pub patch: [usize; 2],
    /// Values of a pixel.
    pub channels: usize,
    /// ε of the norms.
    pub norm_epsilon: f64,
    /// Between the two feed-forward layers.
    pub activation: Activation,
    /// Whether queries, keys and values have a bias.
    pub qkv_bias: bool,
    /// Classes of the classification head.
    pub labels: usize,
}

impl Config {
    /// Reads `config.json`.
    ///
    /// # Errors
    /// [`ModelError`] naming the key that is absent or cannot be used.
    pub fn from_json(json: &Value) -> Result<Config, ModelError> {
        let keys = Keys(json);
        let family = match keys.model_type(MODEL_TYPES)? {
            "vit" => Family::Vit,
            "deit" => Family::Deit,
            _ => Family::Dinov2,
        };
        if keys.flag("use_swiglu_ffn", false)? {
            let hint = "only the feed-forward part of two layers is supported (dinov2 small, base and large)";
            return Err(bad("use_swiglu_ffn", true, hint));
        }
        if let Some(problem) = keys.text("problem_type")?
            && problem != "single_label_classification"
        {
            return Err(bad("problem_type", problem, "only single_label_classification is supported"));
        }
        let (hidden, heads) = (keys.count("hidden_size")?, keys.count("num_attention_heads")?);
        keys.head_dim(hidden, heads)?;
        let (image, patch) = (keys.sides("image_size")?, keys.sides("patch_size")?);
        let config = Config {
            family,
            hidden,
            intermediate: match family {
                Family::Vit | Family::Deit => keys.count("intermediate_size")?,
                Family::Dinov2 => hidden * keys.optional_count("mlp_ratio")?.unwrap_or(4),
            },
            layers: keys.count("num_hidden_layers")?,
            heads,
            image,
            patch,
            channels: keys.optional_count("num_channels")?.unwrap_or(3),
            norm_epsilon: keys
                .epsilon("layer_norm_eps", if family == Family::Dinov2 { 1e-6 } else { 1e-12 })?,
            activation: Activation::of("hidden_act", keys.text("hidden_act")?.unwrap_or("gelu"))?,
            qkv_bias: keys.flag("qkv_bias", true)?,
            labels: keys.labels()?,
        };
        let values = patch[0].checked_mul(patch[1]).and_then(|area| area.checked_mul(config.channels));
        if values.is_none_or(|values| values > 1 << 24) {
            return Err(bad(
                "patch_size",
                format!("{patch:?}"),
                "a patch has more values than a layer can take",
            ));
        }
        if config.grid().contains(&0) {
            let hint = "it must not be larger than image_size";
            return Err(bad("patch_size", format!("{patch:?}"), hint));
        }
        Ok(config)
    }

    /// Rows and columns of patches in the images of training.
    #[must_use]
    pub fn grid(&self) -> [usize; 2] {
        [self.image[0] / self.patch[0], self.image[1] / self.patch[1]]
    }

    /// Values of a patch.
    pub(super) fn patch_values(&self) -> usize {
        self.channels * self.patch[0] * self.patch[1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        let vit = json!({"model_type": "dinov2", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
            "image_size": [12, 8], "patch_size": 4});
        let config = Config::from_json(&vit).unwrap();
        assert_eq!((config.grid(), config.intermediate, config.patch_values()), ([3, 2], 64, 48));
        for (key, value) in [
            ("use_swiglu_ffn", json!(true)),
            ("hidden_act", json!("quick_gelu")),
            ("problem_type", json!("regression")),
            ("patch_size", json!(9)),
            ("patch_size", json!([1 << 20, 1 << 20])),
            ("image_size", json!("8")),
            ("model_type", json!("dinov2_with_registers")),
        ] {
            let mut json = vit.clone();
            json[key] = value;
            let message = Config::from_json(&json).unwrap_err().to_string();
            assert!(message.contains(key) || message.contains("registers"), "{key}: {message}");
        }
    }
}
