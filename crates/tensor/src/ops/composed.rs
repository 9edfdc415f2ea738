//! The same formulas from the engine's own operations: for devices without a kernel of ours, and for the tests to
//! compare with. These hold everything in memory that the fused forms avoid.

use std::sync::Arc;

use burn::tensor::{Device, Int, Tensor, TensorData, activation};

use crate::{Matrix, kernels::RowSource};

use super::{Gelu, Heads, Layout, Rotary, Targets};

/// A frozen matrix as a tensor of the device.
#[must_use]
pub fn widen(matrix: &Matrix, device: &Device) -> Tensor<2> {
    if matrix.format() == lowrank_blocks::Format::F64 {
        let mut scratch: Vec<f64> = Vec::new();
        let values: &[f64] = matrix.read(0..matrix.shape()[0], &mut scratch);
        let data = TensorData::new(values.to_vec(), matrix.shape());
        return Tensor::from_data(data, (device, crate::DType::F64));
    }
    crate::from_rows(matrix.to_f32(), matrix.shape(), device)
}

/// `x Wᵀ + b + (x rightᵀ) leftᵀ`.
#[must_use]
pub fn linear(
    x: Tensor<2>,
    weight: &Matrix,
    bias: Option<&Matrix>,
    low_rank: Option<(Tensor<2>, Tensor<2>)>,
) -> Tensor<2> {
    let device = x.device().without_autodiff();
    let mut y = x.clone().matmul(widen(weight, &device).transpose());
    if let Some(bias) = bias {
        y = y + widen(bias, &device);
    }
    if let Some((left, right)) = low_rank {
        y = y + x.matmul(right.transpose()).matmul(left.transpose());
    }
    y
}

/// `x / √(mean(x²) + ε) ⊙ gain`.
#[must_use]
pub fn rms_norm(x: Tensor<2>, gain: Tensor<2>, epsilon: f64) -> Tensor<2> {
    let mean_square = x.clone().powf_scalar(2.0).mean_dim(1);
    x / (mean_square + epsilon).sqrt() * gain
}

/// `(x − μ) / √(mean((x − μ)²) + ε) ⊙ gain + bias`.
#[must_use]
pub fn layer_norm(x: Tensor<2>, gain: Tensor<2>, bias: Tensor<2>, epsilon: f64) -> Tensor<2> {
    let centred = x.clone() - x.mean_dim(1);
    let variance = centred.clone().powf_scalar(2.0).mean_dim(1);
    centred / (variance + epsilon).sqrt() * gain + bias
}

/// `x·Φ(x)`, or its approximation.
#[must_use]
pub fn gelu(x: Tensor<2>, kind: Gelu) -> Tensor<2> {
    match kind {
        Gelu::Exact => {
            let factor = (x.clone() * std::f64::consts::FRAC_1_SQRT_2).erf() + 1.0;
            x * factor * 0.5
        }
        Gelu::Tanh => {
            let cubic = x.clone().powf_scalar(3.0) * 0.044_715;
            let inner = (x.clone() + cubic) * (2.0 / std::f64::consts::PI).sqrt();
            x * (inner.tanh() + 1.0) * 0.5
        }
    }
}

/// Turns each head by its position.
#[must_use]
pub fn rotary(x: Tensor<2>, tables: &Arc<Rotary>, positions: &Arc<[u32]>) -> Tensor<2> {
    let [n, width] = x.dims();
    let (head_dim, turned, half) = (tables.head_dim, tables.rotary_dim, tables.rotary_dim / 2);
    let (device, dtype) = (x.device().without_autodiff(), x.dtype());
    let gather = |table: &[f32]| -> Tensor<3> {
        let rows: Vec<f32> = positions
            .iter()
            .flat_map(|&p| table[p as usize * half..(p as usize + 1) * half].to_vec())
            .collect();
        Tensor::from_data(TensorData::new(rows, [n, 1, half]).convert_dtype(dtype), (&device, dtype))
    };
    let (cos, sin) = (gather(&tables.cos), gather(&tables.sin));
    let heads: Tensor<3> = x.reshape([n, width / head_dim, head_dim]);
    let first = heads.clone().narrow(2, 0, half);
    let second = heads.clone().narrow(2, half, half);
    let turned_first = first.clone() * cos.clone() - second.clone() * sin.clone();
    let turned_second = second * cos + first * sin;
    let mut parts = vec![turned_first, turned_second];
    if turned < head_dim {
        parts.push(heads.narrow(2, turned, head_dim - turned));
    }
    Tensor::cat(parts, 2).reshape([n, width])
}

/// Causal attention within each document, with the whole score matrix.
#[must_use]
pub fn attention(q: Tensor<2>, k: Tensor<2>, v: Tensor<2>, heads: Heads, layout: &Layout) -> Tensor<2> {
    let Heads { heads: h, kv_heads, head_dim } = heads;
    let (b, t, group) = (layout.batch, layout.time, h / kv_heads);
    let device = q.device().without_autodiff();
    // Heads of one group share keys and values: [b, kv, group, t, d] against [b, kv, 1, t, d].
    let split =
        |x: Tensor<2>, heads: usize| -> Tensor<4> { x.reshape([b, t, heads, head_dim]).swap_dims(1, 2) };
    let repeat = |x: Tensor<4>| -> Tensor<4> {
        x.reshape([b, kv_heads, 1, t, head_dim]).repeat_dim(2, group).reshape([b, h, t, head_dim])
    };
    let (q, k, v) = (split(q, h), repeat(split(k, kv_heads)), repeat(split(v, kv_heads)));
    let scores = q.matmul(k.swap_dims(2, 3)) * heads.scale();
    let hidden: Vec<bool> = (0..b * t * t)
        .map(|index| {
            let (row, key) = (index / t, (index % t) as u32);
            key < layout.starts[row] || key as usize > row % t
        })
        .collect();
    let hidden = Tensor::<4, burn::tensor::Bool>::from_data(TensorData::new(hidden, [b, 1, t, t]), &device);
    let scores = scores.mask_fill(hidden.repeat_dim(1, h), f32::NEG_INFINITY);
    activation::softmax(scores, 3).matmul(v).swap_dims(1, 2).reshape([b * t, h * head_dim])
}

/// `silu(gate) ⊙ up`.
#[must_use]
pub fn swiglu(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    activation::silu(gate) * up
}

/// `Σ wᵢ · −log p(targetᵢ)` with all logits in memory.
#[must_use]
pub fn cross_entropy(h: Tensor<2>, head: Tensor<2>, targets: &Targets) -> Tensor<1> {
    cross_entropy_of_logits(h.matmul(head.transpose()), targets)
}

/// `Σ wᵢ · −log p(targetᵢ)` of logits `[n, V]`.
#[must_use]
pub fn cross_entropy_of_logits(logits: Tensor<2>, targets: &Targets) -> Tensor<1> {
    let device = logits.device().without_autodiff();
    let (n, dtype) = (targets.ids.len(), logits.dtype());
    let ids: Vec<i64> = targets.ids.iter().map(|&id| i64::from(id.max(0))).collect();
    let weights: Vec<f32> = (0..n)
        .map(|row| {
            let weight = targets.weights.as_ref().map_or(1.0, |weights| weights[row]);
            if targets.ids[row] < 0 { 0.0 } else { weight }
        })
        .collect();
    let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [n, 1]), &device);
    let weights = TensorData::new(weights, [n, 1]).convert_dtype(dtype);
    let weights = Tensor::<2>::from_data(weights, (&device, dtype));
    let log_p = activation::log_softmax(logits, 1).gather(1, ids);
    (log_p * weights).sum().neg()
}
