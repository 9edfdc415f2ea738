//! One block of a decoder: attention and a feed-forward part, joined one behind the other or side by side.

use std::sync::Arc;

use lowrank_adapt::{Linear, Weight};
use lowrank_tensor::Tensor;
use lowrank_tensor::ops::{self, Gelu, Rotary};

use super::config::{Config, FeedForward};
use super::family::Order;
use super::norm::Norm;

/// One layer of the decoder.
pub struct Block {
    pub(super) input_norm: Norm,
    /// What makes queries, keys and values.
    pub projection: Projection,
    /// `[hidden, heads · head_dim]`.
    pub output: Linear,
    pub(super) join: Join,
    /// `[intermediate, hidden]`, where the feed-forward part is gated.
    pub gate: Option<Linear>,
    /// `[intermediate, hidden]`.
    pub up: Linear,
    /// `[hidden, intermediate]`.
    pub down: Linear,
}

/// How the feed-forward part joins the attention, with its norm: [`super::config::Residual`].
pub(super) enum Join {
    Sequential(Norm),
    Parallel(Norm),
    Shared,
}

impl Join {
    fn norm(&self) -> Option<&Norm> {
        match self {
            Join::Sequential(norm) | Join::Parallel(norm) => Some(norm),
            Join::Shared => None,
        }
    }
}

/// The layers that make queries, keys and values.
#[allow(clippy::large_enum_variant)] // One a block.
pub enum Projection {
    /// One for each.
    Separate {
        /// `[heads · head_dim, hidden]`.
        query: Linear,
        /// `[kv_heads · head_dim, hidden]`.
        key: Linear,
        /// `[kv_heads · head_dim, hidden]`.
        value: Linear,
    },
    /// One for all, `[3 · heads · head_dim, hidden]`, its rows as in the checkpoint.
    Fused(Linear, Order),
}

/// What a block needs of the model and the batch.
pub(super) struct Place<'a> {
    pub(super) config: &'a Config,
    pub(super) tables: &'a Arc<Rotary>,
    pub(super) positions: &'a Arc<[u32]>,
}

impl Projection {
    /// `[n, hidden]` to queries `[n, heads · head_dim]`, keys and values `[n, kv_heads · head_dim]`.
    fn forward(&self, x: Tensor<2>, head_dim: usize) -> [Tensor<2>; 3] {
        match self {
            Projection::Separate { query, key, value } => {
                [query.forward(x.clone()), key.forward(x.clone()), value.forward(x)]
            }
            Projection::Fused(linear, Order::Blocks) => {
                let all = linear.forward(x);
                let width = all.dims()[1] / 3;
                [0, 1, 2].map(|part| all.clone().narrow(1, part * width, width))
            }
            Projection::Fused(linear, Order::Heads) => {
                let all = linear.forward(x);
                let [n, width] = all.dims();
                let heads: Tensor<3> = all.reshape([n, width / (3 * head_dim), 3 * head_dim]);
                [0, 1, 2]
                    .map(|part| heads.clone().narrow(2, part * head_dim, head_dim).reshape([n, width / 3]))
            }
        }
    }
}

impl Block {
    /// Whether a backward pass has anything to find here: a trained gain or weight, an adapter that is switched on, or an
    /// observer.
    pub(super) fn is_trained(&self) -> bool {
        self.input_norm.is_trained()
            || self.join.norm().is_some_and(Norm::is_trained)
            || self.linears().iter().any(|linear| {
                matches!(linear.weight(), Weight::Trained(_))
                    || linear.is_observed()
                    || linear.adapters().iter().any(|mounted| mounted.enabled)
            })
    }

    /// The linear layers in the order of [`super::family::Family::linears`].
    #[must_use]
    pub fn linears(&self) -> Vec<&Linear> {
        let mut all = match &self.projection {
            Projection::Separate { query, key, value } => vec![query, key, value],
            Projection::Fused(linear, _) => vec![linear],
        };
        all.push(&self.output);
        all.extend(&self.gate);
        all.extend([&self.up, &self.down]);
        all
    }

    /// The linear layers in the order of [`super::family::Family::linears`], to mount adapters on.
    pub fn linears_mut(&mut self) -> Vec<&mut Linear> {
        let mut all = match &mut self.projection {
            Projection::Separate { query, key, value } => vec![query, key, value],
            Projection::Fused(linear, _) => vec![linear],
        };
        all.push(&mut self.output);
        all.extend(&mut self.gate);
        all.extend([&mut self.up, &mut self.down]);
        all
    }

    /// The norms by what the family's table calls them: before the attention, before the feed-forward part.
    pub(super) fn norms(&self) -> impl Iterator<Item = &Norm> {
        std::iter::once(&self.input_norm).chain(self.join.norm())
    }

    /// As [`Block::norms`].
    pub(super) fn norms_mut(&mut self) -> impl Iterator<Item = &mut Norm> {
        let other = match &mut self.join {
            Join::Sequential(norm) | Join::Parallel(norm) => Some(norm),
            Join::Shared => None,
        };
        std::iter::once(&mut self.input_norm).chain(other)
    }

    /// `[n, hidden] -> [n, hidden]`, with the attention `(q, k, v) -> [n, heads · head_dim]` that the caller has.
    pub(super) fn forward(
        &self,
        h: Tensor<2>,
        place: &Place<'_>,
        attend: impl FnOnce(Tensor<2>, Tensor<2>, Tensor<2>) -> Tensor<2>,
    ) -> Tensor<2> {
        let epsilon = place.config.norm_epsilon;
        let x = self.input_norm.apply(h.clone(), epsilon);
        match &self.join {
            Join::Sequential(norm) => {
                let h = h + self.attention(x, place, attend);
                let x = norm.apply(h.clone(), epsilon);
                h + self.feed_forward(x, place.config.activation)
            }
            Join::Parallel(norm) => {
                let beside = norm.apply(h.clone(), epsilon);
                let h = h + self.attention(x, place, attend);
                h + self.feed_forward(beside, place.config.activation)
            }
            Join::Shared => {
                let h = h + self.attention(x.clone(), place, attend);
                h + self.feed_forward(x, place.config.activation)
            }
        }
    }

    fn attention(
        &self,
        x: Tensor<2>,
        place: &Place<'_>,
        attend: impl FnOnce(Tensor<2>, Tensor<2>, Tensor<2>) -> Tensor<2>,
    ) -> Tensor<2> {
        let [q, k, v] = self.projection.forward(x, place.config.head_dim);
        let (q, k) = match place.config.rotary_dim {
            0 => (q, k),
            _ => {
                let turn = |x| ops::rotary(x, place.tables, place.positions);
                (turn(q), turn(k))
            }
        };
        self.output.forward(attend(q, k, v))
    }

    fn feed_forward(&self, x: Tensor<2>, activation: FeedForward) -> Tensor<2> {
        let inner = match (&self.gate, activation) {
            (Some(gate), _) => ops::swiglu(gate.forward(x.clone()), self.up.forward(x)), // [n, intermediate]
            (None, FeedForward::GeluTanh) => ops::gelu(self.up.forward(x), Gelu::Tanh),
            (None, _) => ops::gelu(self.up.forward(x), Gelu::Exact),
        };
        self.down.forward(inner)
    }
}
