//! The Llama family: RMSNorm, rotary grouped-query attention, SwiGLU, residual connections.
//!
//! `h ← h + o(attention(q(norm h), k(norm h), v(norm h)))`, then `h ← h + down(silu(gate(norm h)) ⊙ up(norm h))`, layer by
//! layer; a last norm; logits = h · headᵀ. Hidden states are `[n, hidden]` with `n = batch · time`.

mod cache;
pub mod config;
mod generate;
mod gguf;
mod gguf_save;
mod gradient;
mod inputs;
pub mod load;
mod rope;
mod rope_scaling;
mod save;

use std::sync::{Arc, Mutex, PoisonError};

use lowrank_adapt::{Linear, Weight};
use lowrank_tensor::ops::{self, Heads, Layout, Rotary, Targets};
use lowrank_tensor::{Device, Matrix, Tensor, Var};

pub use cache::Cache;
use config::Config;
pub use generate::Sampling;
pub use gradient::{Passed, Recompute};
pub use load::Widen;
pub use save::Named;

use crate::ModelError;

/// A decoder whose linear layers hold slots.
pub struct Decoder {
    /// Shape and constants.
    pub config: Config,
    device: Device,
    embedding: Weight,
    /// The blocks, first to last.
    pub blocks: Vec<Block>,
    norm: Gain,
    /// `None` when the embedding is the head.
    head: Option<Linear>,
    tables: Mutex<Arc<Rotary>>,
}

/// One layer of the decoder.
pub struct Block {
    input_norm: Gain,
    /// `[heads · head_dim, hidden]`.
    pub query: Linear,
    /// `[kv_heads · head_dim, hidden]`.
    pub key: Linear,
    /// `[kv_heads · head_dim, hidden]`.
    pub value: Linear,
    /// `[hidden, heads · head_dim]`.
    pub output: Linear,
    mlp_norm: Gain,
    /// `[intermediate, hidden]`.
    pub gate: Linear,
    /// `[intermediate, hidden]`.
    pub up: Linear,
    /// `[hidden, intermediate]`.
    pub down: Linear,
}

/// A norm's gain `[1, d]`, frozen or trained.
enum Gain {
    Frozen(Box<Tensor<2>>),
    Trained(Var),
}

impl Gain {
    /// The gain for a hidden state: recorded only where the state is, see [`Linear::forward`].
    fn beside(&self, h: &Tensor<2>) -> Tensor<2> {
        match self {
            Gain::Frozen(tensor) => Tensor::clone(tensor),
            Gain::Trained(var) if h.is_autodiff() => var.tensor(),
            Gain::Trained(var) => var.tensor().inner(),
        }
    }
}

/// The linear layers of a block by their checkpoint names, in the order in which they run.
pub const LINEAR_NAMES: [&str; 7] = [
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
];

impl Block {
    /// Whether a backward pass has anything to find here: a trained gain or weight, an adapter that is switched on, or an
    /// observer.
    fn is_trained(&self) -> bool {
        let gains = [&self.input_norm, &self.mlp_norm];
        gains.iter().any(|gain| matches!(gain, Gain::Trained(_)))
            || self.linears().iter().any(|linear| {
                matches!(linear.weight(), Weight::Trained(_))
                    || linear.is_observed()
                    || linear.adapters().iter().any(|mounted| mounted.enabled)
            })
    }

    /// The linear layers in the order of [`LINEAR_NAMES`].
    #[must_use]
    pub fn linears(&self) -> [&Linear; 7] {
        [&self.query, &self.key, &self.value, &self.output, &self.gate, &self.up, &self.down]
    }

    /// The linear layers in the order of [`LINEAR_NAMES`], to mount adapters on.
    pub fn linears_mut(&mut self) -> [&mut Linear; 7] {
        [
            &mut self.query,
            &mut self.key,
            &mut self.value,
            &mut self.output,
            &mut self.gate,
            &mut self.up,
            &mut self.down,
        ]
    }
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
    /// comes last, as `lm_head`.
    #[must_use]
    pub fn sites(&self) -> Vec<(String, &Linear)> {
        let mut sites: Vec<(String, &Linear)> = Vec::new();
        for (layer, block) in self.blocks.iter().enumerate() {
            let named = LINEAR_NAMES.iter().zip(block.linears());
            sites.extend(named.map(|(name, linear)| (format!("model.layers.{layer}.{name}"), linear)));
        }
        sites.extend(self.head.iter().map(|head| ("lm_head".to_owned(), head)));
        sites
    }

    /// The same list, to mount adapters on.
    pub fn sites_mut(&mut self) -> Vec<(String, &mut Linear)> {
        let mut sites: Vec<(String, &mut Linear)> = Vec::new();
        for (layer, block) in self.blocks.iter_mut().enumerate() {
            let named = LINEAR_NAMES.iter().zip(block.linears_mut());
            sites.extend(named.map(|(name, linear)| (format!("model.layers.{layer}.{name}"), linear)));
        }
        sites.extend(self.head.iter_mut().map(|head| ("lm_head".to_owned(), head)));
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
        self.embedding.bytes() + self.sites().iter().map(|(_, site)| site.weight().bytes()).sum::<usize>()
    }

    /// Token ids to hidden states `[n, hidden]`.
    ///
    /// # Errors
    /// [`ModelError::Token`] for an id outside the vocabulary.
    pub fn embed(&self, tokens: &[u32]) -> Result<Tensor<2>, ModelError> {
        let vocabulary = self.config.vocabulary;
        if let Some(index) = tokens.iter().position(|&token| token as usize >= vocabulary) {
            return Err(ModelError::Token { token: tokens[index], index, vocabulary });
        }
        Ok(match &self.embedding {
            Weight::Frozen(matrix) => ops::embedding(tokens, matrix, &self.device),
            Weight::Trained(var) => ops::embedding_dense(tokens, var.tensor()),
        })
    }

    /// One block over whole sequences: `[n, hidden] -> [n, hidden]`.
    fn block(&self, index: usize, h: Tensor<2>, layout: &Layout, tables: &Arc<Rotary>) -> Tensor<2> {
        let attend = |q, k, v| ops::attention(q, k, v, self.heads(), layout);
        self.block_with(index, h, tables, &layout.positions, attend)
    }

    /// One block, with the attention `(q, k, v) -> [n, heads · head_dim]` that the caller has.
    fn block_with(
        &self,
        index: usize,
        h: Tensor<2>,
        tables: &Arc<Rotary>,
        positions: &Arc<[u32]>,
        attend: impl FnOnce(Tensor<2>, Tensor<2>, Tensor<2>) -> Tensor<2>,
    ) -> Tensor<2> {
        let block = &self.blocks[index];
        let x = ops::rms_norm(h.clone(), block.input_norm.beside(&h), self.config.norm_epsilon);
        let q = ops::rotary(block.query.forward(x.clone()), tables, positions); // [n, heads · head_dim]
        let k = ops::rotary(block.key.forward(x.clone()), tables, positions); // [n, kv_heads · head_dim]
        let v = block.value.forward(x);
        let h = h + block.output.forward(attend(q, k, v));
        let x = ops::rms_norm(h.clone(), block.mlp_norm.beside(&h), self.config.norm_epsilon);
        let inner = ops::swiglu(block.gate.forward(x.clone()), block.up.forward(x)); // [n, intermediate]
        h + block.down.forward(inner)
    }

    /// Token ids to the normed hidden states before the head, `[n, hidden]`; inference, nothing is recorded.
    ///
    /// # Errors
    /// [`ModelError::Token`] or [`ModelError::Context`].
    pub fn hidden(&self, tokens: &[u32], layout: &Layout) -> Result<Tensor<2>, ModelError> {
        let (layout, tables) = self.prepare(layout)?;
        let mut h = self.embed(tokens)?.inner();
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
        let gain = self.norm.beside(&h);
        ops::rms_norm(h, gain, self.config.norm_epsilon)
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
        if tables.cos.len() < length * self.config.head_dim / 2 {
            *tables = Arc::new(rope::tables(&self.config, length.next_power_of_two().min(context)));
        }
        Ok(Arc::clone(&tables))
    }

    /// Makes every weight and gain of the model trainable, for pretraining: `(name, variable)` in a fixed order. Biases
    /// stay as they are.
    ///
    /// # Errors
    /// [`ModelError::Adapt`] while a layer holds adapters.
    pub fn train_all(&mut self) -> Result<Vec<(String, Var)>, ModelError> {
        let device = self.device.clone();
        let mut variables = Vec::new();
        let embedding = match &self.embedding {
            Weight::Trained(var) => var.clone(),
            Weight::Frozen(matrix) => Var::new(matrix.to_f32(), matrix.shape(), &device),
        };
        self.embedding = Weight::Trained(embedding.clone());
        variables.push(("model.embed_tokens.weight".to_owned(), embedding));
        for (name, linear) in self.sites_mut() {
            variables.push((format!("{name}.weight"), linear.train_weight(&device)?));
        }
        let train = |gain: &mut Gain| {
            let var = match gain {
                Gain::Trained(var) => var.clone(),
                Gain::Frozen(tensor) => {
                    let width = tensor.dims()[1];
                    Var::new(lowrank_tensor::to_rows(Tensor::clone(tensor)), [1, width], &device)
                }
            };
            *gain = Gain::Trained(var.clone());
            var
        };
        for (layer, block) in self.blocks.iter_mut().enumerate() {
            let at = |part: &str| format!("model.layers.{layer}.{part}.weight");
            variables.push((at("input_layernorm"), train(&mut block.input_norm)));
            variables.push((at("post_attention_layernorm"), train(&mut block.mlp_norm)));
        }
        variables.push(("model.norm.weight".to_owned(), train(&mut self.norm)));
        Ok(variables)
    }
}
