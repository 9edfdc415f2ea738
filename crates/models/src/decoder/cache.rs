//! Keys and values of the tokens already seen, and the forward of new tokens over them.

use std::sync::Arc;

use lowrank_tensor::ops;
use lowrank_tensor::{Tensor, to_rows};

use super::Decoder;
use super::block::Place;
use crate::ModelError;

/// The key-value cache of one sequence.
#[derive(Debug, Clone)]
pub struct Cache {
    /// For each layer `[seen, kv_heads · head_dim]`, keys turned to their positions.
    layers: Vec<(Vec<f32>, Vec<f32>)>,
    seen: usize,
}

impl Cache {
    /// Tokens in the cache.
    #[must_use]
    pub fn seen(&self) -> usize {
        self.seen
    }

    /// Forgets all tokens behind the first `seen`, so that several continuations share one prompt.
    pub fn rewind(&mut self, seen: usize) {
        for (keys, values) in &mut self.layers {
            let width = keys.len().checked_div(self.seen).unwrap_or(0);
            keys.truncate(seen * width);
            values.truncate(seen * width);
        }
        self.seen = self.seen.min(seen);
    }
}

impl Decoder {
    /// An empty cache.
    #[must_use]
    pub fn cache(&self) -> Cache {
        Cache { layers: vec![(Vec::new(), Vec::new()); self.blocks.len()], seen: 0 }
    }

    /// Hidden states `[new, hidden]` of new tokens behind those in the cache, which then holds them too.
    ///
    /// # Errors
    /// [`ModelError::Token`], or [`ModelError::Context`] when the sequence outgrows the context.
    pub fn extend(&self, tokens: &[u32], cache: &mut Cache) -> Result<Tensor<2>, ModelError> {
        let (past, new) = (cache.seen, tokens.len());
        let tables = self.tables_for(past + new)?;
        let positions: Arc<[u32]> = (past as u32..(past + new) as u32).collect();
        let window = self.config.sliding_window.unwrap_or(usize::MAX);
        let starts: Vec<u32> = (past..past + new).map(|at| (at + 1).saturating_sub(window) as u32).collect();
        let mut h = self.embed(tokens, &positions)?.inner();
        let place = Place { config: &self.config, tables: &tables, positions: &positions };
        for (block, (keys, values)) in self.blocks.iter().zip(&mut cache.layers) {
            h = block.forward(h, &place, |q, k, v| {
                keys.extend(to_rows(k));
                values.extend(to_rows(v));
                ops::attend(q, keys, values, &starts, self.heads())
            });
        }
        cache.seen += new;
        Ok(self.last_norm(h))
    }

    /// Logits of the token behind `tokens`, row of length `vocabulary`.
    ///
    /// # Errors
    /// As [`Decoder::extend`].
    pub fn next_logits(&self, tokens: &[u32], cache: &mut Cache) -> Result<Vec<f32>, ModelError> {
        let h = self.extend(tokens, cache)?;
        let rows = h.dims()[0];
        Ok(to_rows(self.unembed(h.narrow(0, rows.saturating_sub(1), rows.min(1)))))
    }
}
