//! `W' = m ⊙ (W + s·left·right) / ‖W + s·left·right‖`, a norm and a trained magnitude m for each row (each output).
//!
//! `y = p + (c − 1) ⊙ (p − b) + c ⊙ s·(x rightᵀ) leftᵀ` with the layer's own product p and `c = m / ‖·‖`. As in the authors'
//! and PEFT's code the norm is a constant to the gradient. The magnitude begins as the norm of the start, so the function
//! at step 0 is that of the start, whatever it is; with a shadow offset, that of the base.
//!
//! No `[out, in]` matrix is formed for the norms: `‖w + lR‖² = ‖w‖² + 2·l·(W Rᵀ) + l (R Rᵀ) lᵀ` for each row w of W and l of
//! the scaled left factor, O(out·in·r) in place of a product, a sum and a copy of the weight, all in f64: where the change
//! cancels a row, what is left of it is still right. They are kept until a factor or the weight changes, so that the batches of
//! an accumulated step, and generation, share them.
//!
//! A row of no more than a thousandth of `√(‖w‖² + ‖lR‖²)` has no direction that could be scaled: it is refused by name when
//! an adapter begins, when it is restored, and by [`Adapter::check`] while it trains.
//!
//! Source: Liu et al., "DoRA: Weight-Decomposed Low-Rank Adaptation", 2024; PEFT's `tuners/lora/dora.py`.

use std::sync::{Mutex, PoisonError};

use lowrank_record::{Card, Kind, Options, Promise, Source};
use lowrank_tensor::kernels::RowSource;
use lowrank_tensor::{DType, Matrix, Tensor, TensorData, Var, cpu, from_rows, ops, to_rows};

use super::lora::{Factors, Lora, LoraAdapter};
use crate::form::{Adapter, Effect, Form, Layer, LowRankPath, Offset, Site, Start, Takes, as_used};
use crate::part::Stored;
use crate::{AdaptError, Footprint, Part};

/// Low-rank adaptation of the direction of each row, with a trained magnitude.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dora;

static CARD: Card = Card {
    name: "dora",
    kind: Kind::Form,
    summary: "m·(W + s·left·right)/|W + s·left·right| by rows, with magnitudes m [out], left and right trained",
    source: Source {
        authors: "Liu et al.",
        title: "DoRA: Weight-Decomposed Low-Rank Adaptation",
        year: 2024,
        link: "https://arxiv.org/abs/2402.09353",
    },
    needs: &[],
    promise: Promise::Exact,
    choices: &[],
    notes: &[
        "the norm is taken of each output's row, as in PEFT; the paper writes the weight the other way round",
        "no gradient flows through the norm, as in the authors' and PEFT's code",
        "the norms are found without forming an [out, in] matrix, and kept until a factor changes; PEFT forms one in each \
         forward",
        "a row that the change cancels to a thousandth of its parts is refused; PEFT divides by what is left, or by zero",
        "the bias is not scaled, as in PEFT",
    ],
};

impl Dora {
    fn adapter(self, site: &Site<'_>, factors: Factors) -> DoraAdapter {
        let [out, _] = site.base.shape();
        let lora = Lora::DEFAULT.adapter(site, factors);
        let magnitude = Var::new(vec![1.0; out], [1, out], site.device);
        DoraAdapter { lora, magnitude, kept: Mutex::new(None) }
    }
}

impl Form for Dora {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn configure(&self, _options: &Options) -> Result<Box<dyn Form>, AdaptError> {
        Ok(Box::new(Dora))
    }

    fn takes(&self) -> Takes {
        Takes::Factors
    }

    fn footprint(&self, shape: [usize; 2], rank: usize, offset: Offset) -> Footprint {
        let ([out, inp], lora) = (shape, Lora::DEFAULT.footprint(shape, rank, offset));
        // The layer's product and the path's, for the magnitude's gradient; a product of the path's right factor with the weight
        // for the norms.
        let (kept, once) = (lora.kept + 2 * out, out * inp * lora.kept);
        Footprint { trained: lora.trained + out, kept, once, ..lora }
    }

    fn build(&self, site: &Site<'_>, start: Option<Start>) -> Result<Box<dyn Adapter>, AdaptError> {
        let Start { left, right, rank, offset, .. } = Start::factors(&CARD, site, start)?;
        let shadow = offset == Offset::Shadow;
        let (left0, right0) = (shadow.then(|| left.clone()), shadow.then(|| right.clone()));
        let adapter = self.adapter(site, Factors { left, right, rank, left0, right0 });
        adapter.check(site.base)?;
        adapter.magnitude.assign(adapter.norms(site.base, &adapter.lora.path()).0);
        Ok(Box::new(adapter))
    }

    fn restore(
        &self,
        site: &Site<'_>,
        parts: Vec<Part>,
        offset: Offset,
    ) -> Result<Box<dyn Adapter>, AdaptError> {
        let [out, inp] = site.base.shape();
        let mut stored = Stored::new(&CARD, parts);
        let rank = stored.rank("right", 0)?;
        let right = stored.take("right", &[rank, inp])?;
        let left = stored.take("left", &[out, rank])?;
        let magnitude = stored.take("magnitude", &[1, out])?;
        let (mut left0, mut right0) = (None, None);
        if offset == Offset::Shadow {
            right0 = Some(stored.take("right0", &[rank, inp])?);
            left0 = Some(stored.take("left0", &[out, rank])?);
        }
        stored.finish()?;
        let adapter = self.adapter(site, Factors { left, right, rank, left0, right0 });
        adapter.magnitude.assign(magnitude);
        adapter.check(site.base)?;
        Ok(Box::new(adapter))
    }
}

/// The part of `√(‖w‖² + ‖lR‖²)` up to which a norm counts as cancelled.
const CANCELLED: f64 = 1e-3;

struct DoraAdapter {
    lora: LoraAdapter,
    /// `[1, out]`.
    magnitude: Var,
    kept: Mutex<Option<Norms>>,
}

/// Row norms, and what they are the norms of.
struct Norms {
    base: Matrix,
    /// `‖w‖²` of each row of the base.
    energies: Vec<f64>,
    left: Vec<f32>,
    right: Vec<f32>,
    norms: Vec<f32>,
    cancelled: Option<Cancelled>,
}

/// The first row without a direction.
#[derive(Debug, Clone, Copy)]
struct Cancelled {
    row: usize,
    norm: f64,
    /// `√(‖w‖² + ‖lR‖²)`.
    parts: f64,
}

impl DoraAdapter {
    /// The norm of each row of `base + left · right`, and the first that is cancelled.
    fn norms(&self, base: &Matrix, path: &LowRankPath) -> (Vec<f32>, Option<Cancelled>) {
        let (left, right) = (to_rows(path.left.clone()), to_rows(path.right.clone()));
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let energies = match kept.take() {
            Some(kept_norms) if kept_norms.base.is(base) => {
                if kept_norms.left == left && kept_norms.right == right {
                    let kept = kept.insert(kept_norms);
                    return (kept.norms.clone(), kept.cancelled);
                }
                kept_norms.energies
            }
            _ => energies(base),
        };
        let ([out, inp], [rank, _]) = (base.shape(), path.right.dims());
        // [r, out]: the right factor takes the place of the inputs. The weight and the factors are at hand on the CPU.
        let wide =
            TensorData::new(right.iter().map(|&value| f64::from(value)).collect::<Vec<f64>>(), [rank, inp]);
        let wide = Tensor::<2>::from_data(wide, (&cpu(), DType::F64));
        let cross = ops::linear(wide, base, None, None).into_data().try_into_vec::<f64>().unwrap_or_default();
        assert_eq!(cross.len(), rank * out, "a product of f64 gives f64");
        let row = |k: usize| &right[k * inp..(k + 1) * inp];
        let gram: Vec<f64> = (0..rank * rank).map(|at| dot(row(at / rank), row(at % rank))).collect();
        let (mut norms, mut cancelled) = (Vec::with_capacity(out), None);
        for (i, &energy) in energies.iter().enumerate() {
            let l = &left[i * rank..(i + 1) * rank];
            let (mut crossed, mut added) = (0.0, 0.0);
            for (k, &value) in l.iter().enumerate() {
                let turned: f64 = l.iter().zip(&gram[k * rank..]).map(|(&l, &g)| f64::from(l) * g).sum();
                crossed += f64::from(value) * cross[k * out + i];
                added += f64::from(value) * turned;
            }
            let norm = (energy + 2.0 * crossed + added).max(0.0).sqrt();
            let parts = (energy + added.max(0.0)).sqrt();
            if cancelled.is_none() && norm <= CANCELLED * parts {
                cancelled = Some(Cancelled { row: i, norm, parts });
            }
            norms.push(norm as f32);
        }
        let found = (norms.clone(), cancelled);
        *kept = Some(Norms { base: base.clone(), energies, left, right, norms, cancelled });
        found
    }

    /// `m / ‖·‖`, `[1, out]`, where the magnitude alone has a gradient.
    fn ratio(&self, base: &Matrix, path: &LowRankPath) -> Tensor<2> {
        let (norms, _) = self.norms(base, path);
        let shape = [1, norms.len()];
        let magnitude = self.magnitude.tensor();
        let norms = from_rows(norms, shape, &magnitude.device().without_autodiff());
        magnitude / norms.autodiff()
    }
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

/// `‖w‖²` of each row, a few rows widened at a time.
fn energies(base: &Matrix) -> Vec<f64> {
    const ROWS: usize = 64;
    let [out, inp] = base.shape();
    let mut scratch: Vec<f32> = Vec::new();
    let mut energies = Vec::with_capacity(out);
    for first in (0..out).step_by(ROWS) {
        let rows: &[f32] = base.read(first..(first + ROWS).min(out), &mut scratch);
        energies.extend(rows.chunks_exact(inp.max(1)).map(|row| dot(row, row)));
    }
    energies
}

impl Adapter for DoraAdapter {
    fn effect<'a>(&'a self, layer: Layer<'a>, x: &'a Tensor<2>) -> Effect<'a> {
        let path = self.lora.path();
        let ratio = as_used(self.ratio(layer.base, &path), x);
        Effect::Output(Box::new(move |product| {
            let own = match layer.bias {
                Some(bias) => {
                    let bias = ops::composed::widen(bias, &x.device().without_autodiff());
                    product.clone() - bias
                }
                None => product.clone(),
            };
            let hidden = ops::dense(x.clone(), as_used(path.right, x));
            let added = ops::dense(hidden, as_used(path.left, x));
            own * (ratio.clone() - 1.0) + added * ratio
        }))
    }

    fn delta(&self, base: &Matrix) -> Vec<f32> {
        let ([_, inp], path) = (base.shape(), self.lora.path());
        let ratio = to_rows(self.ratio(base, &path));
        let change = |(at, (weight, low)): (usize, (f32, f32))| {
            let ratio = ratio[at / inp];
            // The two terms of the forward, so that a magnitude that has not moved gives no change.
            weight * (ratio - 1.0) + low * ratio
        };
        base.to_f32().into_iter().zip(path.product()).enumerate().map(change).collect()
    }

    fn check(&self, base: &Matrix) -> Result<(), AdaptError> {
        match self.norms(base, &self.lora.path()).1 {
            Some(Cancelled { row, norm, parts }) => {
                Err(AdaptError::NoDirection { form: CARD.name, row, norm, parts })
            }
            None => Ok(()),
        }
    }

    fn trainable(&self) -> Vec<(&'static str, Var)> {
        let mut list = self.lora.trainable();
        list.push(("magnitude", self.magnitude.clone()));
        list
    }

    fn parts(&self) -> Vec<Part> {
        let mut parts = self.lora.parts();
        let magnitude = Part::new("magnitude", &self.magnitude.shape(), self.magnitude.values());
        parts.insert(2, magnitude);
        parts
    }
}
