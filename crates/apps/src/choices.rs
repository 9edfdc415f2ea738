//! Choices that several commands offer: how weights are held, how prompts are written, which tokens count, how a start is
//! taken back, how the rate runs, what is computed again.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// When stored weights become f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Widen {
    /// At load.
    Once,
    /// In each product.
    OnUse,
}

/// Whether prompts go through the chat template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FormatChoice {
    /// If the model has one.
    Auto,
    /// Always.
    Chat,
    /// Never.
    Plain,
}

/// Which tokens carry loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LossOn {
    /// Completions, answers and assistant turns; everything in plain text.
    Completion,
    /// The last assistant turn of a conversation.
    Last,
    /// Every token.
    All,
}

/// How a start is taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OffsetChoice {
    /// Beside the weight.
    Shadow,
    /// Inside the weight.
    Base,
}

/// How the rate runs over the steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScheduleChoice {
    /// Level after the warm-up.
    Constant,
    /// Straight to zero.
    Linear,
    /// Half a cosine to zero.
    Cosine,
}

/// What the backward pass computes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecomputeChoice {
    /// Nothing.
    Nothing,
    /// Each block.
    Blocks,
}

/// Which tokens of the calibration text enter statistics of what layers are fed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shown {
    /// All but padding.
    All,
    /// Those that are learned: completions and answers, as PEFT's label mask.
    Learned,
}

/// The type of PEFT's that an adapter is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PeftType {
    /// That of the form, where PEFT has one.
    Own,
    /// Two factors, which every reader knows.
    Lora,
}

impl Widen {
    /// As the models know it.
    #[must_use]
    pub fn hold(self) -> lowrank_models::Widen {
        match self {
            Widen::Once => lowrank_models::Widen::Once,
            Widen::OnUse => lowrank_models::Widen::OnUse,
        }
    }
}

impl FormatChoice {
    /// As the data path knows it.
    #[must_use]
    pub fn format(self) -> lowrank_task::Format {
        match self {
            FormatChoice::Auto => lowrank_task::Format::Auto,
            FormatChoice::Chat => lowrank_task::Format::Chat,
            FormatChoice::Plain => lowrank_task::Format::Plain,
        }
    }
}

impl LossOn {
    /// As the data path knows it.
    #[must_use]
    pub fn learn(self) -> lowrank_task::LossOn {
        match self {
            LossOn::All => lowrank_task::LossOn::All,
            LossOn::Completion => lowrank_task::LossOn::Answers,
            LossOn::Last => lowrank_task::LossOn::Last,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_choice_of_the_data_path_is_offered() {
        // A choice that is new there does not compile here.
        let offered = |choice| match choice {
            lowrank_task::LossOn::All => LossOn::All,
            lowrank_task::LossOn::Answers => LossOn::Completion,
            lowrank_task::LossOn::Last => LossOn::Last,
        };
        for choice in LossOn::value_variants() {
            assert_eq!(offered(choice.learn()), *choice);
        }
        let offered = |choice| match choice {
            lowrank_task::Format::Auto => FormatChoice::Auto,
            lowrank_task::Format::Chat => FormatChoice::Chat,
            lowrank_task::Format::Plain => FormatChoice::Plain,
        };
        for choice in FormatChoice::value_variants() {
            assert_eq!(offered(choice.format()), *choice);
        }
    }
}
