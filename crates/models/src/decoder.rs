//! Decoders: token embedding, blocks of causal attention and a feed-forward part with residual connections, a last norm, a
//! head.
//!
//! One decoder runs every family: a [`Config`] says which norm, activation, positions and residual connections a model has,
//! and its [`family::Family`] what its tensors are called. In the Llama family `h ← h + o(attention(q(norm h), k(norm h), v(norm h)))`,
//! then `h ← h + down(silu(gate(norm h)) ⊙ up(norm h))`, layer by layer; a last norm; logits = h · headᵀ. Hidden states are
//! `[n, hidden]` with `n = batch · time`.

pub mod block;
mod cache;
pub mod config;
mod conv1d;
mod families;
pub mod family;
mod generate;
mod gguf;
mod gguf_save;
mod gradient;
mod inputs;
pub mod load;
mod norm;
mod rope;
mod rope_scaling;
mod save;
mod train;

use std::sync::{Arc, Mutex, PoisonError};

use lowrank_adapt::{Linear, Weight};
use lowrank_tensor::ops::{self, Heads, Layout, Rotary, Targets};
use lowrank_tensor::{Device, Matrix, Tensor, Var};

use block::Place;
pub use block::{Block, Projection};
pub use cache::Cache;
use config::Config;
pub use generate::Sampling;
pub use gradient::{Passed, Recompute};
pub use load::Widen;
use norm::Norm;
pub use save::Named;

use crate::ModelError;

/// A decoder whose linear layers hold slots.
pub struct Decoder {
    /// Shape and constants.
    pub config: Config,
    device: Device,
    embedding: Weight,
    /// `[context, hidden]`, where positions are learned.
    positions: Option<Weight>,
    /// The blocks, first to last.
    pub blocks: Vec<Block>,
    norm: Norm,
    /// `None` when the embedding is the head.
    head: Option<Linear>,
    tables: Mutex<Arc<Rotary>>,
}

/// What makes the logits, as far as a loss can be computed without forming them all.
#[allow(clippy::large_enum_variant)] // One value lives for one call.
enum Head<'a> {
    /// A frozen weight, with the low-rank adapters on it as one path.
    Frozen(&'a Matrix, Option<(Tensor<2>, Tensor<2>)>),
    /// A weight that is trained itself.
    Trained(&'a Var),
    /// A head with a bias, an observer, or an adapter that is no low-rank path: its own forward makes the logits.
    Own,
}

impl Decoder {
    /// Every linear layer with its checkpoint name (`model.layers.0.self_attn.q_proj`), in a fixed order; an own head
    /// comes last, as `lm_head` or what its family calls it.
    #[must_use]
    pub fn sites(&self) -> Vec<(String, &Linear)> {
        let table = self.config.family.table();
        let names = table.linears();
        let mut sites: Vec<(String, &Linear)> = Vec::new();
        for (layer, block) in self.blocks.iter().enumerate() {
            let named = names.iter().zip(block.linears());
            sites.extend(named.map(|(name, linear)| (table.inside(layer, name), linear)));
        }
        sites.extend(self.head.iter().map(|head| (table.head.to_owned(), head)));
        sites
    }

    /// The same list, to mount adapters on.
    pub fn sites_mut(&mut self) -> Vec<(String, &mut Linear)> {
        let table = self.config.family.table();
        let names = table.linears();
        let mut sites: Vec<(String, &mut Linear)> = Vec::new();
        for (layer, block) in self.blocks.iter_mut().enumerate() {
            let named = names.iter().zip(block.linears_mut());
            sites.extend(named.map(|(name, linear)| (table.inside(layer, name), linear)));
        }
        sites.extend(self.head.iter_mut().map(|head| (table.head.to_owned(), head)));
        sites
    }

    /// Where the model computes.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Bytes that the weights of the embedding and the linear layers take as they are held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let positions = self.positions.as_ref().map_or(0, Weight::bytes);
        self.embedding.bytes()
            + positions
            + self.sites().iter().map(|(_, site)| site.weight().bytes()).sum::<usize>()
    }

    /// Token ids to hidden states `[n, hidden]`; where positions are learned, theirs are added.
    ///
    /// # Errors
    /// [`ModelError::Token`] for an id outside the vocabulary, [`ModelError::Context`] for a position outside the context.
    ///
    /// # Panics
    /// Panics when there are not as many positions as tokens.
    pub fn embed(&self, tokens: &[u32], positions: &[u32]) -> Result<Tensor<2>, ModelError> {
        assert_eq!(tokens.len(), positions.len(), "a token has one position");
        let (vocabulary, context) = (self.config.vocabulary, self.config.context);
        if let Some(index) = tokens.iter().position(|&token| token as usize >= vocabulary) {
            return Err(ModelError::Token { token: tokens[index], index, vocabulary });
        }
        let rows = |ids: &[u32], table: &Weight| match table {
            Weight::Frozen(matrix) => ops::embedding(ids, matrix, &self.device),
            Weight::Trained(var) => ops::embedding_dense(ids, var.tensor()),
        };
        let h = rows(tokens, &self.embedding);
        let Some(table) = &self.positions else { return Ok(h) };
        if let Some(&last) = positions.iter().max().filter(|&&last| last as usize >= context) {
            return Err(ModelError::Context { length: last as usize + 1, context });
        }
        Ok(h + rows(positions, table))
    }

    /// One block over whole sequences: `[n, hidden] -> [n, hidden]`.
    fn block(&self, index: usize, h: Tensor<2>, layout: &Layout, tables: &Arc<Rotary>) -> Tensor<2> {
        let attend = |q, k, v| ops::attention(q, k, v, self.heads(), layout);
        let place = Place { config: &self.config, tables, positions: &layout.positions };
        self.blocks[index].forward(h, &place, attend)
    }

    /// Token ids to the normed hidden states before the head, `[n, hidden]`; inference, nothing is recorded.
    ///
    /// # Errors
    /// [`ModelError::Token`] or [`ModelError::Context`].
    pub fn hidden(&self, tokens: &[u32], layout: &Layout) -> Result<Tensor<2>, ModelError> {
        let (layout, tables) = self.prepare(layout)?;
        let mut h = self.embed(tokens, &layout.positions)?.inner();
        for index in 0..self.blocks.len() {
            h = self.block(index, h, &layout, &tables);
        }
        Ok(self.last_norm(h))
    }

    /// All logits `[n, vocabulary]`: for short inputs; losses do not form them.
    ///
    /// # Errors
    /// [`ModelError::Token`] or [`ModelError::Context`].
    pub fn logits(&self, tokens: &[u32], layout: &Layout) -> Result<Tensor<2>, ModelError> {
        Ok(self.unembed(self.hidden(tokens, layout)?))
    }

    /// `−log p` of each row's target, 0 where a row carries no loss.
    ///
    /// # Errors
    /// [`ModelError::Token`], [`ModelError::Context`] or [`ModelError::Target`].
    pub fn log_likelihoods(
        &self,
        tokens: &[u32],
        targets: &[i32],
        layout: &Layout,
    ) -> Result<Vec<f32>, ModelError> {
        self.score(self.hidden(tokens, layout)?, targets)
    }

    /// `−log p` of each row's target, from final hidden states `[n, hidden]`; 0 where a row carries no loss.
    ///
    /// # Errors
    /// [`ModelError::Target`].
    pub fn score(&self, h: Tensor<2>, targets: &[i32]) -> Result<Vec<f32>, ModelError> {
        match self.head() {
            Head::Frozen(head, path) => return Ok(ops::log_likelihoods(h, head, path, targets)?),
            Head::Trained(var) => return Ok(ops::log_likelihoods_dense(h, var.tensor(), targets)?),
            Head::Own => {}
        }
        // A few rows at a time, so that at least not all logits are in memory at once.
        const ROWS: usize = 64;
        let mut all = Vec::with_capacity(targets.len());
        for (index, targets) in targets.chunks(ROWS).enumerate() {
            let rows = h.clone().narrow(0, index * ROWS, targets.len());
            all.extend(ops::log_likelihoods_of_logits(self.unembed(rows), targets)?);
        }
        Ok(all)
    }

    /// Hidden states to logits.
    fn unembed(&self, h: Tensor<2>) -> Tensor<2> {
        match (&self.head, &self.embedding) {
            (Some(head), _) => head.forward(h),
            (None, Weight::Frozen(matrix)) => ops::linear(h, matrix, None, None),
            (None, Weight::Trained(var)) if h.is_autodiff() => ops::dense(h, var.tensor()),
            (None, Weight::Trained(var)) => ops::dense(h, var.tensor().inner()),
        }
    }

    /// The summed loss of hidden states against targets.
    fn loss(&self, h: Tensor<2>, targets: &Targets) -> Result<Tensor<1>, ModelError> {
        Ok(match self.head() {
            Head::Frozen(head, path) => ops::cross_entropy(h, head, path, targets)?,
            Head::Trained(var) => ops::cross_entropy_dense(h, var.tensor(), targets)?,
            Head::Own => ops::cross_entropy_of_logits(self.unembed(h), targets)?,
        })
    }

    fn head(&self) -> Head<'_> {
        let (weight, adapters) = match &self.head {
            None => (&self.embedding, &[][..]),
            Some(head) if head.bias().is_some() || head.is_observed() => return Head::Own,
            Some(head) => (head.weight(), head.adapters()),
        };
        let enabled = adapters.iter().filter(|mounted| mounted.enabled);
        let paths: Option<Vec<_>> = enabled.map(|mounted| mounted.adapter.low_rank()).collect();
        match (weight, paths) {
            (Weight::Trained(var), _) => Head::Trained(var),
            (Weight::Frozen(matrix), Some(paths)) if paths.is_empty() => Head::Frozen(matrix, None),
            (Weight::Frozen(matrix), Some(paths)) => {
                let (lefts, rights) = paths.into_iter().map(|path| (path.left, path.right)).unzip();
                Head::Frozen(matrix, Some((Tensor::cat(lefts, 1), Tensor::cat(rights, 0))))
            }
            (Weight::Frozen(_), None) => Head::Own,
        }
    }

    fn last_norm(&self, h: Tensor<2>) -> Tensor<2> {
        self.norm.apply(h, self.config.norm_epsilon)
    }

    fn heads(&self) -> Heads {
        Heads { heads: self.config.heads, kv_heads: self.config.kv_heads, head_dim: self.config.head_dim }
    }

    /// The layout as attention sees it (sliding window applied), and rotary tables that are long enough.
    fn prepare(&self, layout: &Layout) -> Result<(Layout, Arc<Rotary>), ModelError> {
        let length = layout.positions.iter().max().map_or(0, |&last| last as usize + 1);
        let tables = self.tables_for(length)?;
        let layout = match self.config.sliding_window {
            Some(window) => layout.windowed(window),
            None => layout.clone(),
        };
        Ok((layout, tables))
    }

    /// Rotary tables for at least `length` positions; grown in powers of two and kept.
    fn tables_for(&self, length: usize) -> Result<Arc<Rotary>, ModelError> {
        let context = self.config.context;
        if length > context {
            return Err(ModelError::Context { length, context });
        }
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        if tables.cos.len() < length * self.config.rotary_dim / 2 {
            *tables = Arc::new(rope::tables(&self.config, length.next_power_of_two().min(context)));
        }
        Ok(Arc::clone(&tables))
    }
}
