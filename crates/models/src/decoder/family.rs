//! What sets the families of decoders apart besides sizes: the names of their tensors, how these are stored, and which norm
//! they use. A family is a file of `families`, which holds its table and reads its configuration.

use serde_json::Value;

use super::config::Config;
use super::families::{gpt_neox, gpt2, llama, phi};
use crate::ModelError;

/// Decoders whose checkpoints have the same names and the same configuration keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
pub enum Family {
    /// Llama, Mistral and Qwen2.
    Llama,
    /// GPT-2 (Radford et al., "Language Models are Unsupervised Multitask Learners", 2019).
    Gpt2,
    /// GPT-NeoX and Pythia (Black et al., "GPT-NeoX-20B: An Open-Source Autoregressive Language Model", 2022).
    GptNeox,
    /// Phi-1, Phi-1.5 and Phi-2 (Gunasekar et al., "Textbooks Are All You Need", 2023).
    Phi,
}

/// Every model type of `config.json` that this decoder runs, and its family.
const MODELS: [(&str, Family); 6] = [
    ("llama", Family::Llama),
    ("mistral", Family::Llama),
    ("qwen2", Family::Llama),
    ("gpt2", Family::Gpt2),
    ("gpt_neox", Family::GptNeox),
    ("phi", Family::Phi),
];

/// The model types of `config.json` that this decoder runs.
pub fn model_types() -> impl Iterator<Item = &'static str> {
    MODELS.iter().map(|(name, _)| *name)
}

/// The heads of classifiers, of encoders and of vision transformers.
const CLASSIFIERS: [&str; 5] =
    ["classifier", "classifier.dense", "classifier.out_proj", "cls_classifier", "distillation_classifier"];

/// Whether a layer of this name is a head, or a part of one: what PEFT's `all-linear` leaves out. (Of RoBERTa's `classifier` PEFT
/// leaves out only the whole, which is no linear layer, so that it would adapt both layers of a head that it also trains.)
#[must_use]
pub fn is_head(name: &str) -> bool {
    CLASSIFIERS.contains(&name) || MODELS.iter().any(|(_, family)| family.table().head == name)
}

/// How the rows of one projection to queries, keys and values are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// All queries, then all keys, then all values.
    Blocks,
    /// Head by head: its query, its key, its value.
    Heads,
}

/// The layers that make queries, keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProjectionNames {
    /// One for each.
    Separate([&'static str; 3]),
    /// One for all.
    Fused(&'static str, Order),
}

/// The tensors of a family by their names in checkpoints: whole outside the blocks, and inside a block behind its number.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Table {
    /// `[vocabulary, hidden]`.
    pub embedding: &'static str,
    /// `[context, hidden]`, where positions are learned.
    pub positions: Option<&'static str>,
    /// What stands before a block's number.
    pub blocks: &'static str,
    pub projection: ProjectionNames,
    /// The layer behind the attention.
    pub output: &'static str,
    /// The gate of a gated feed-forward part.
    pub gate: Option<&'static str>,
    pub up: &'static str,
    pub down: &'static str,
    /// The norm before the attention.
    pub input_norm: &'static str,
    /// The norm before the feed-forward part, unless that shares the attention's.
    pub mlp_norm: Option<&'static str>,
    /// The norm behind the last block.
    pub norm: &'static str,
    pub head: &'static str,
    /// Whether norms take the mean out and add a bias (LayerNorm), or neither (RMSNorm).
    pub layer_norm: bool,
    /// Whether the weights inside the blocks are stored `[in, out]` (`Conv1D` of transformers).
    pub conv1d: bool,
    /// A beginning of all names that some checkpoints leave out.
    pub optional_prefix: Option<&'static str>,
    /// Ends of the names of tensors that hold no weights: masks and frequencies that older exports kept.
    pub buffers: &'static [&'static str],
}

impl Table {
    /// The linear layers of a block in the order in which they run.
    pub(super) fn linears(&self) -> Vec<&'static str> {
        let mut all = match self.projection {
            ProjectionNames::Separate(names) => names.to_vec(),
            ProjectionNames::Fused(name, _) => vec![name],
        };
        all.push(self.output);
        all.extend(self.gate);
        all.extend([self.up, self.down]);
        all
    }

    /// The name of a part of a block.
    pub(super) fn inside(&self, layer: usize, part: &str) -> String {
        format!("{}.{layer}.{part}", self.blocks)
    }

    /// Whether a matrix of this name is stored `[in, out]`.
    pub(super) fn is_transposed(&self, name: &str) -> bool {
        self.conv1d && name.strip_prefix(self.blocks).is_some_and(|rest| rest.starts_with('.'))
    }
}

impl Family {
    /// The family of a model type.
    ///
    /// # Errors
    /// [`ModelError::Architecture`] for a type that is not one of ours.
    pub fn of(model_type: &str) -> Result<Family, ModelError> {
        let known = MODELS.iter().find(|(name, _)| *name == model_type);
        known.map(|(_, family)| *family).ok_or_else(|| ModelError::Architecture {
            found: model_type.to_owned(),
            known: model_types().collect::<Vec<_>>().join(", "),
        })
    }

    /// The linear layers of a block in the order in which they run, by their names behind the block's number.
    #[must_use]
    pub fn linears(self) -> Vec<&'static str> {
        self.table().linears()
    }

    /// Whether checkpoints hold the weights of its linear layers `[in, out]`: PEFT's `fan_in_fan_out`.
    #[must_use]
    pub fn is_conv1d(self) -> bool {
        self.table().conv1d
    }

    pub(super) fn table(self) -> &'static Table {
        match self {
            Family::Llama => &llama::TABLE,
            Family::Gpt2 => &gpt2::TABLE,
            Family::GptNeox => &gpt_neox::TABLE,
            Family::Phi => &phi::TABLE,
        }
    }

    /// Reads `config.json`.
    pub(super) fn read(self, model_type: &str, json: &Value) -> Result<Config, ModelError> {
        match self {
            Family::Llama => llama::read(model_type, json),
            Family::Gpt2 => gpt2::read(json),
            Family::GptNeox => gpt_neox::read(json),
            Family::Phi => phi::read(json),
        }
    }

    /// Writes `config.json` without what all families share.
    pub(super) fn write(self, config: &Config) -> Value {
        match self {
            Family::Llama => llama::write(config),
            Family::Gpt2 => gpt2::write(config),
            Family::GptNeox => gpt_neox::write(config),
            Family::Phi => phi::write(config),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_has_a_name_of_its_own() {
        for family in [Family::Llama, Family::Gpt2, Family::GptNeox, Family::Phi] {
            let table = family.table();
            let mut names = table.linears();
            names.push(table.input_norm);
            names.extend(table.mlp_norm);
            let count = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), count, "{family:?}");
            assert!(is_head(table.head) && !names.iter().any(|name| is_head(name)));
        }
    }

    #[test]
    fn only_what_stands_inside_a_block_is_transposed() {
        let table = Family::Gpt2.table();
        assert!(table.is_transposed("transformer.h.0.mlp.c_fc.weight"));
        assert!(!table.is_transposed("transformer.wte.weight") && !table.is_transposed("lm_head.weight"));
        assert!(!Family::Phi.table().is_transposed("model.layers.0.mlp.fc1.weight"));
    }

    #[test]
    fn an_unknown_type_is_refused_with_the_known_ones() {
        let message = Family::of("bloom").unwrap_err().to_string();
        assert!(message.contains("bloom") && message.contains("llama, mistral, qwen2, gpt2, gpt_neox, phi"));
    }
}
