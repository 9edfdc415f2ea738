//! One of the two stacks of blocks, and the names of its layers.

use lowrank_adapt::Linear;
use lowrank_tensor::Tensor;
use lowrank_tensor::ops::{self, FullAttention};

use super::{Config, relative};
use crate::norm::RmsNorm;

/// Which of the two stacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// Sees its whole input.
    Encoder,
    /// Sees the past of its input, and the whole output of the encoder.
    Decoder,
}

/// Blocks that share one table of relative positions.
pub(super) struct Stack {
    pub(super) side: Side,
    pub(super) blocks: Vec<Block>,
    /// `[buckets, heads]`.
    pub(super) bias: Vec<f32>,
    pub(super) norm: RmsNorm,
}

/// One layer of a stack: each part with the norm before it.
pub(super) struct Block {
    pub(super) attention: (RmsNorm, Attention),
    /// Over the output of the encoder, in the decoder.
    pub(super) cross: Option<(RmsNorm, Attention)>,
    pub(super) feed_forward: (RmsNorm, FeedForward),
}

/// Layers around an attention, all heads side by side; no biases.
pub(super) struct Attention {
    /// `[heads · head_dim, hidden]`, as the next two.
    pub(super) query: Linear,
    pub(super) key: Linear,
    pub(super) value: Linear,
    /// `[hidden, heads · head_dim]`.
    pub(super) output: Linear,
}

/// `outer(activation(inner x))`, or `outer(activation(inner x) ⊙ gated x)` (Shazeer, "GLU Variants Improve Transformer",
/// 2020); no biases.
pub(super) struct FeedForward {
    /// `[intermediate, hidden]`.
    pub(super) inner: Linear,
    /// `[intermediate, hidden]`.
    pub(super) gated: Option<Linear>,
    /// `[hidden, intermediate]`.
    pub(super) outer: Linear,
}

/// What a decoder looks at beside its own past.
pub(super) struct Memory<'a> {
    /// The output of the encoder, `[batch · keys, hidden]`.
    pub(super) states: Tensor<2>,
    /// Its length.
    pub(super) keys: usize,
    /// Which of it may be seen.
    pub(super) visible: Option<&'a [bool]>,
}

impl Attention {
    /// Queries of `x` over keys and values of `seen`.
    fn run(&self, x: Tensor<2>, seen: Tensor<2>, how: &FullAttention) -> Tensor<2> {
        let (q, k) = (self.query.forward(x), self.key.forward(seen.clone()));
        self.output.forward(ops::attention_full(q, k, self.value.forward(seen), how))
    }

    fn linears(&self) -> [(&'static str, &Linear); 4] {
        [("q", &self.query), ("k", &self.key), ("v", &self.value), ("o", &self.output)]
    }

    fn linears_mut(&mut self) -> [(&'static str, &mut Linear); 4] {
        [("q", &mut self.query), ("k", &mut self.key), ("v", &mut self.value), ("o", &mut self.output)]
    }
}

impl FeedForward {
    fn run(&self, x: Tensor<2>, config: &Config) -> Tensor<2> {
        let mut inner = config.activation.apply(self.inner.forward(x.clone()));
        if let Some(gated) = &self.gated {
            inner = inner * gated.forward(x);
        }
        self.outer.forward(inner)
    }

    fn linears(&self) -> Vec<(&'static str, &Linear)> {
        match &self.gated {
            None => vec![("wi", &self.inner), ("wo", &self.outer)],
            Some(gated) => vec![("wi_0", &self.inner), ("wi_1", gated), ("wo", &self.outer)],
        }
    }

    fn linears_mut(&mut self) -> Vec<(&'static str, &mut Linear)> {
        match &mut self.gated {
            None => vec![("wi", &mut self.inner), ("wo", &mut self.outer)],
            Some(gated) => vec![("wi_0", &mut self.inner), ("wi_1", gated), ("wo", &mut self.outer)],
        }
    }
}

impl Block {
    /// The linear layers with what their names end in, in the order in which they run.
    fn linears(&self) -> Vec<(String, &Linear)> {
        let mut all: Vec<(String, &Linear)> = Vec::new();
        let attention = self.attention.1.linears();
        all.extend(attention.map(|(name, linear)| (format!("0.SelfAttention.{name}"), linear)));
        if let Some((_, cross)) = &self.cross {
            all.extend(cross.linears().map(|(name, linear)| (format!("1.EncDecAttention.{name}"), linear)));
        }
        let last = if self.cross.is_some() { 2 } else { 1 };
        let feed_forward = self.feed_forward.1.linears().into_iter();
        all.extend(feed_forward.map(|(name, linear)| (format!("{last}.DenseReluDense.{name}"), linear)));
        all
    }

    /// The same, to mount adapters on.
    fn linears_mut(&mut self) -> Vec<(String, &mut Linear)> {
        let mut all: Vec<(String, &mut Linear)> = Vec::new();
        let last = if self.cross.is_some() { 2 } else { 1 };
        let attention = self.attention.1.linears_mut();
        all.extend(attention.map(|(name, linear)| (format!("0.SelfAttention.{name}"), linear)));
        if let Some((_, cross)) = &mut self.cross {
            let cross = cross.linears_mut();
            all.extend(cross.map(|(name, linear)| (format!("1.EncDecAttention.{name}"), linear)));
        }
        let feed_forward = self.feed_forward.1.linears_mut().into_iter();
        all.extend(feed_forward.map(|(name, linear)| (format!("{last}.DenseReluDense.{name}"), linear)));
        all
    }
}

impl Stack {
    fn name(side: Side) -> &'static str {
        match side {
            Side::Encoder => "encoder",
            Side::Decoder => "decoder",
        }
    }

    /// Every linear layer with its checkpoint name.
    pub(super) fn sites(&self) -> impl Iterator<Item = (String, &Linear)> {
        let side = Stack::name(self.side);
        self.blocks.iter().enumerate().flat_map(move |(layer, block)| {
            let named = block.linears().into_iter();
            named.map(move |(name, linear)| (format!("{side}.block.{layer}.layer.{name}"), linear))
        })
    }

    /// The same, to mount adapters on.
    pub(super) fn sites_mut(&mut self) -> impl Iterator<Item = (String, &mut Linear)> {
        let side = Stack::name(self.side);
        self.blocks.iter_mut().enumerate().flat_map(move |(layer, block)| {
            let named = block.linears_mut().into_iter();
            named.map(move |(name, linear)| (format!("{side}.block.{layer}.layer.{name}"), linear))
        })
    }

    /// All blocks and the last norm over `batch` sequences of `time` tokens: `[n, hidden] -> [n, hidden]`.
    pub(super) fn run(
        &self,
        h: Tensor<2>,
        [batch, time]: [usize; 2],
        visible: Option<&[bool]>,
        memory: Option<&Memory<'_>>,
        config: &Config,
    ) -> Tensor<2> {
        let both_sides = self.side == Side::Encoder;
        let marks = |visible: Option<&[bool]>| visible.map(|visible| visible.to_vec().into());
        let own = FullAttention {
            scale: 1.0,
            visible: marks(visible),
            causal: !both_sides,
            bias: Some(relative::bias(&self.bias, config, time, both_sides).into()),
            ..FullAttention::dense(batch, time, config.heads, config.head_dim)
        };
        let over = memory.map(|memory| FullAttention {
            keys: memory.keys,
            scale: 1.0,
            visible: marks(memory.visible),
            ..FullAttention::dense(batch, time, config.heads, config.head_dim)
        });
        let mut h = h;
        for block in &self.blocks {
            let (norm, attention) = &block.attention;
            let x = norm.apply(h.clone());
            h = h + attention.run(x.clone(), x, &own);
            if let (Some((norm, cross)), Some(memory), Some(over)) = (&block.cross, memory, &over) {
                h = h.clone() + cross.run(norm.apply(h), memory.states.clone(), over);
            }
            let (norm, feed_forward) = &block.feed_forward;
            h = h.clone() + feed_forward.run(norm.apply(h), config);
        }
        self.norm.apply(h)
    }
}
