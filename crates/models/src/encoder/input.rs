//! What an encoder is fed, and what it should answer.

use lowrank_tensor::ops::Targets;

use super::Config;
use crate::{ModelError, network};

/// Sequences of one length.
#[derive(Debug, Clone, PartialEq)]
pub struct Input {
    /// Token ids, row-major `[batch, time]`.
    pub tokens: Vec<u32>,
    /// Segment (token type) of each token; all 0 when absent.
    pub segments: Option<Vec<u32>>,
    /// Whether each token may be seen: false at padding. All may when absent.
    pub visible: Option<Vec<bool>>,
    /// Sequences.
    pub batch: usize,
    /// Tokens in each sequence, padding included.
    pub time: usize,
}

impl Input {
    /// Sequences of any lengths, filled up at their ends with padding that is not seen.
    #[must_use]
    pub fn padded(rows: &[Vec<u32>], padding: u32) -> Input {
        let time = rows.iter().map(Vec::len).max().unwrap_or(0);
        let (mut tokens, mut visible) = (Vec::new(), Vec::new());
        for row in rows {
            tokens.extend(row);
            tokens.resize(tokens.len() + time - row.len(), padding);
            visible.extend((0..time).map(|at| at < row.len()));
        }
        Input { tokens, segments: None, visible: Some(visible), batch: rows.len(), time }
    }

    /// Refuses what the network has no row for.
    pub(super) fn check(&self, config: &Config) -> Result<(), ModelError> {
        network::fits("tokens", self.tokens.len(), self.batch.saturating_mul(self.time).max(1))?;
        network::tokens_fit(&self.tokens, config.vocabulary)?;
        if let Some(segments) = &self.segments {
            network::fits("segments", segments.len(), self.tokens.len())?;
            if let Some(index) = segments.iter().position(|&segment| segment as usize >= config.segments) {
                let (segment, segments) = (segments[index], config.segments);
                return Err(ModelError::Segment { segment, index, segments });
            }
        }
        network::marks_fit(self.visible.as_deref(), self.batch, self.time)?;
        let context = config.context();
        if self.time > context {
            return Err(ModelError::Context { length: self.time, context });
        }
        Ok(())
    }

    /// The row of the position embedding of each token. RoBERTa counts the tokens that are not padding, by their ids and not
    /// by the marks, and gives padding the row of the padding token.
    pub(super) fn positions(&self, config: &Config) -> Vec<u32> {
        let first = config.first_position();
        let mut positions = Vec::with_capacity(self.tokens.len());
        for row in self.tokens.chunks_exact(self.time.max(1)) {
            let mut seen = 0;
            for &token in row {
                let padding = first > 0 && token == config.padding;
                positions.push(if padding { config.padding } else { first + seen });
                seen += u32::from(!padding);
            }
        }
        positions
    }
}

/// What the head of an encoder should answer.
#[derive(Debug, Clone)]
pub enum Labels {
    /// A class for each sequence; the loss is the cross-entropy.
    Classes(Targets),
    /// A number for each sequence; the loss is the squared error.
    Values(Vec<f32>),
    /// A token for each token, negative where nothing was masked; the loss is the cross-entropy.
    Tokens(Targets),
    /// The embedding of each sequence, row-major `[batch, hidden]`; the loss is the squared distance (Reimers & Gurevych,
    /// "Making Monolingual Sentence Embeddings Multilingual using Knowledge Distillation", 2020).
    Vectors(Vec<f32>),
}

impl Labels {
    /// The weight of what carries loss, of a batch of so many sequences.
    pub(super) fn weight(&self, batch: usize) -> f64 {
        match self {
            Labels::Classes(targets) | Labels::Tokens(targets) => network::weight_of(targets),
            Labels::Values(_) | Labels::Vectors(_) => batch as f64,
        }
    }

    /// For messages.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Labels::Classes(_) => "classes",
            Labels::Values(_) => "a number for each sequence",
            Labels::Tokens(_) => "tokens",
            Labels::Vectors(_) => "sentence embeddings",
        }
    }
}

/// One batch to learn from.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The sequences.
    pub input: Input,
    /// What the head should answer.
    pub labels: Labels,
}
