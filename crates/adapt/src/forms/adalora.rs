//! `y = x Wᵀ + s·((x rightᵀ) ⊙ E) leftᵀ` with left, right and the values E `[r, 1]` trained: a change written as a singular
//! value decomposition, whose least important values are set to zero while it trains.
//!
//! Which values stay is decided over all layers together by [`RankSchedule`], which stands behind this form's
//! [`Allocator`]. The factors are held near orthogonal by a penalty beside the loss, `‖left'left − I‖ + ‖right right' − I‖` of each
//! layer ([`Adapter::penalty`]), weighed with `orthogonality / (2 · layers)`.
//!
//! Source: Zhang et al., "Adaptive Budget Allocation for Parameter-Efficient Fine-Tuning", 2023; PEFT's `tuners/adalora`.

use lowrank_record::{Card, Choice, Kind, Options, Promise, Source};
use lowrank_tensor::{Matrix, Tensor, Var, from_rows};

use crate::form::{Adapter, Effect, Form, Layer, LowRankPath, Offset, Site, Start, Takes};
use crate::part::Stored;
use crate::{AdaptError, Allocator, Budget, Footprint, Part, RankSchedule, Trained, Triplets};

/// A change written as a singular value decomposition, with a rank that is allotted while it trains.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Adalora {
    /// The mean rank of a layer at the end; `None` is two thirds of that at the start.
    pub target: Option<usize>,
    /// Steps before the first cut; `None` is a tenth of all.
    pub warmup: Option<usize>,
    /// Steps at the end that keep what was chosen; `None` is three tenths of all.
    pub last: Option<usize>,
    /// Steps between two cuts.
    pub interval: usize,
    /// Smoothing of the sensitivity.
    pub sensitivity: f32,
    /// Smoothing of the uncertainty.
    pub uncertainty: f32,
    /// Weight of the mean distance from orthogonal factors beside the loss.
    pub orthogonality: f64,
}

static CARD: Card = Card {
    name: "adalora",
    kind: Kind::Form,
    summary: "W + s·left·diag(E)·right, all trained, where the least important of all layers' values E are set to zero",
    source: Source {
        authors: "Zhang et al.",
        title: "Adaptive Budget Allocation for Parameter-Efficient Fine-Tuning",
        year: 2023,
        link: "https://arxiv.org/abs/2303.10512",
    },
    needs: &[],
    promise: Promise::Zero,
    choices: &[
        Choice {
            name: "target-rank",
            default: "auto",
            values: "auto | a whole number above 0",
            meaning: "the mean rank of a layer at the end (target_r in PEFT); auto is two thirds of that at the start, as PEFT's \
                      8 of 12",
        },
        Choice {
            name: "t-init",
            default: "auto",
            values: "auto | a whole number",
            meaning: "steps before the first cut (tinit); auto is a tenth of all steps",
        },
        Choice {
            name: "t-final",
            default: "auto",
            values: "auto | a whole number",
            meaning: "steps at the end that keep the ranks that were chosen (tfinal); auto is three tenths of all steps",
        },
        Choice {
            name: "delta-t",
            default: "1",
            values: "a whole number above 0",
            meaning: "steps between two cuts (deltaT)",
        },
        Choice {
            name: "beta1",
            default: "0.85",
            values: "a number between 0 and 1",
            meaning: "smoothing of the sensitivity of each entry, |w·dL/dw|",
        },
        Choice {
            name: "beta2",
            default: "0.85",
            values: "a number between 0 and 1",
            meaning: "smoothing of the uncertainty of the sensitivity",
        },
        Choice {
            name: "orthogonality",
            default: "0.5",
            values: "a number, 0 or more",
            meaning: "weight of the mean over all factors of |F F' - I| beside the loss (orth_reg_weight)",
        },
    ],
    notes: &[
        "the scale is alpha/r of the rank that it begins with; PEFT divides by r + 0.00001, and a file says the alpha for which \
         that is the same",
        "E begins with zeros, left and right with N(0, 0.02²), as in PEFT",
        "the rank of a site is the one it begins with (PEFT's init_r); where it ends the schedule of all sites decides",
        "the penalty is the norm, averaged over all factors, as in the authors' and PEFT's code; the paper adds up squared norms",
        "the loss that is shown is that of the data; PEFT adds the penalty to it, in evaluations too",
        "PEFT's t-init and t-final are 0 by default, so that it cuts from the first step to the last and nothing is trained \
         behind the last cut; the paper's runs keep such steps, and so do ours",
        "of equal scores the first stay, so that the budget is kept; PEFT takes away all that are at the threshold",
        "a value that was set to zero may come back at a later cut, until t-final: its gradient goes on, as in PEFT",
        "a file has PEFT's rank_pattern, and of each site the directions whose value is not zero; of a site that lost all, one of \
         value zero, since PEFT takes empty tensors for damage",
        "PEFT 0.21 does not load an AdaLoRA that was cut with low_cpu_mem_usage = True, its own or ours",
    ],
};

/// The deviation of the factors at the start, as in PEFT.
const DEVIATION: f32 = 0.02;

impl Adalora {
    /// PEFT's choices, but for the steps without cuts at both ends.
    pub const DEFAULT: Adalora = Adalora {
        target: None,
        warmup: None,
        last: None,
        interval: 1,
        sensitivity: 0.85,
        uncertainty: 0.85,
        orthogonality: 0.5,
    };

    /// The form with these choices.
    ///
    /// # Errors
    /// [`AdaptError::Choice`].
    pub fn chosen<K: AsRef<str>, V: AsRef<str>>(
        options: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Adalora, AdaptError> {
        Adalora::read(&Options::new(&CARD, options)?)
    }

    fn read(options: &Options) -> Result<Adalora, AdaptError> {
        let count = |name| match options.text(name) {
            "auto" => Ok(None),
            _ => options.count(name, usize::MAX).map(Some),
        };
        let above_zero = |name, number: Option<usize>| match number {
            Some(0) => Err(options.bad(name)),
            other => Ok(other),
        };
        let smoothing = |name| {
            let number = options.text(name).parse().ok().filter(|x: &f32| 0.0 < *x && *x < 1.0);
            number.ok_or_else(|| options.bad(name))
        };
        let weight = options.text("orthogonality").parse().ok().filter(|x: &f64| x.is_finite() && *x >= 0.0);
        Ok(Adalora {
            target: above_zero("target-rank", count("target-rank")?)?,
            warmup: count("t-init")?,
            last: count("t-final")?,
            interval: above_zero("delta-t", Some(options.count("delta-t", usize::MAX)?))?.unwrap_or(1),
            sensitivity: smoothing("beta1")?,
            uncertainty: smoothing("beta2")?,
            orthogonality: weight.ok_or_else(|| options.bad("orthogonality"))?,
        })
    }

    /// The numbers of the schedule for sites that begin with these ranks and train for `steps` steps.
    #[must_use]
    pub fn budget(&self, ranks: &[usize], steps: usize) -> Budget {
        let mean = ranks.iter().sum::<usize>() as f64 / ranks.len().max(1) as f64;
        Budget {
            target: self.target.unwrap_or(((2.0 * mean / 3.0).round() as usize).max(1)),
            warmup: self.warmup.unwrap_or(steps / 10),
            last: self.last.unwrap_or(3 * steps / 10),
            interval: self.interval,
            total: steps,
            sensitivity: self.sensitivity,
            uncertainty: self.uncertainty,
        }
    }
}

/// The schedule of ranks at work: masked values are set to zero.
struct Ranks {
    schedule: RankSchedule,
    penalty_weight: f64,
}

impl Allocator for Ranks {
    fn penalty_weight(&self) -> f64 {
        self.penalty_weight
    }

    fn step(&mut self, step: usize, sites: &mut [Trained<'_>]) -> Result<(), AdaptError> {
        let mut seen = Vec::with_capacity(sites.len());
        for site in sites.iter() {
            // In the order of `trainable`.
            let ([right, values, left], [by_right, by_values, by_left]) =
                (&site.values[..], &site.gradients[..])
            else {
                return Err(AdaptError::Budget { why: "a site has three trained matrices".to_owned() });
            };
            seen.push(Triplets {
                right: [right, by_right],
                values: [values, by_values],
                left: [left, by_left],
            });
        }
        let Some(kept) = self.schedule.step(step, &seen)? else { return Ok(()) };
        for (site, kept) in sites.iter_mut().zip(kept) {
            if let Some(values) = site.values.get_mut(1) {
                values.iter_mut().zip(kept).filter(|(_, kept)| !**kept).for_each(|(value, _)| *value = 0.0);
            }
        }
        Ok(())
    }

    fn parts(&self) -> Vec<Part> {
        self.schedule.parts()
    }

    fn resume(&mut self, parts: Vec<Part>) -> Result<(), AdaptError> {
        self.schedule.resume(parts)
    }
}

impl Form for Adalora {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        let count = |count: Option<usize>| count.map_or_else(|| "auto".to_owned(), |count| count.to_string());
        vec![
            ("target-rank", count(self.target)),
            ("t-init", count(self.warmup)),
            ("t-final", count(self.last)),
            ("delta-t", self.interval.to_string()),
            ("beta1", self.sensitivity.to_string()),
            ("beta2", self.uncertainty.to_string()),
            ("orthogonality", self.orthogonality.to_string()),
        ]
    }

    fn configure(&self, options: &Options) -> Result<Box<dyn Form>, AdaptError> {
        Ok(Box::new(Adalora::read(options)?))
    }

    fn allocator(
        &self,
        sites: &[[usize; 3]],
        steps: usize,
    ) -> Result<Option<Box<dyn Allocator>>, AdaptError> {
        let ranks: Vec<usize> = sites.iter().map(|[_, rank, _]| *rank).collect();
        let schedule = RankSchedule::new(self.budget(&ranks, steps), sites)?;
        let penalty_weight = self.orthogonality / (2 * sites.len().max(1)) as f64;
        Ok(Some(Box::new(Ranks { schedule, penalty_weight })))
    }

    fn takes(&self) -> Takes {
        Takes::Nothing
    }

    fn footprint(&self, shape: [usize; 2], rank: usize, _offset: Offset) -> Footprint {
        let ([out, inp], path) = (shape, Footprint::path(shape, rank));
        Footprint { trained: rank * (out + inp + 1), keeps_inputs: true, once: rank * out, ..path }
    }

    fn build(&self, site: &Site<'_>, start: Option<Start>) -> Result<Box<dyn Adapter>, AdaptError> {
        Start::none(&CARD, start.as_ref())?;
        let ([out, inp], rank, device) = (site.base.shape(), site.rank, site.device);
        if rank == 0 {
            return Err(AdaptError::Rank);
        }
        let draw = |part: &str, [rows, cols]: [usize; 2]| {
            let values = site.draws(part).normal(rows * cols).into_iter().map(|value| DEVIATION * value);
            Var::new(values.collect(), [rows, cols], device)
        };
        Ok(Box::new(AdaloraAdapter {
            right: draw("right", [rank, inp]),
            values: Var::new(vec![0.0; rank], [rank, 1], device),
            left: draw("left", [out, rank]),
            scale: site.scale,
        }))
    }

    fn restore(
        &self,
        site: &Site<'_>,
        parts: Vec<Part>,
        _offset: Offset,
    ) -> Result<Box<dyn Adapter>, AdaptError> {
        let [out, inp] = site.base.shape();
        let mut stored = Stored::new(&CARD, parts);
        let rank = stored.rank("right", 0)?;
        let mut take = |name, shape: [usize; 2]| {
            stored.take(name, &shape).map(|values| Var::new(values, shape, site.device))
        };
        let adapter = AdaloraAdapter {
            right: take("right", [rank, inp])?,
            values: take("values", [rank, 1])?,
            left: take("left", [out, rank])?,
            scale: site.scale,
        };
        stored.finish()?;
        Ok(Box::new(adapter))
    }
}

struct AdaloraAdapter {
    right: Var,
    /// `[r, 1]`.
    values: Var,
    left: Var,
    scale: f64,
}

impl AdaloraAdapter {
    fn path(&self) -> LowRankPath {
        let left = self.left.tensor() * self.values.tensor().transpose() * self.scale;
        LowRankPath { left, right: self.right.tensor() }
    }
}

/// `‖F F' − I‖` of the rows of a factor, with a gradient of zero where it is zero.
fn from_orthogonal(rows: Tensor<2>) -> Tensor<1> {
    let [rank, _] = rows.dims();
    let values = (0..rank * rank).map(|at| if at % (rank + 1) == 0 { 1.0 } else { 0.0 }).collect();
    let one = from_rows(values, [rank, rank], &rows.device().without_autodiff());
    let gap = rows.clone().matmul(rows.transpose()) - one;
    // A square below what f32 can tell from the rounding of the product.
    (gap.powf_scalar(2.0).sum() + 1e-24).sqrt()
}

impl Adapter for AdaloraAdapter {
    fn effect<'a>(&'a self, _layer: Layer<'a>, _x: &'a Tensor<2>) -> Effect<'a> {
        Effect::LowRank(self.path())
    }

    fn low_rank(&self) -> Option<LowRankPath> {
        Some(self.path())
    }

    fn delta(&self, _base: &Matrix) -> Vec<f32> {
        self.path().product()
    }

    fn penalty(&self) -> Option<Tensor<1>> {
        Some(from_orthogonal(self.right.tensor()) + from_orthogonal(self.left.tensor().transpose()))
    }

    fn rank(&self) -> Option<usize> {
        Some(self.values.values().iter().filter(|value| **value != 0.0).count())
    }

    fn trainable(&self) -> Vec<(&'static str, Var)> {
        vec![("right", self.right.clone()), ("values", self.values.clone()), ("left", self.left.clone())]
    }

    fn parts(&self) -> Vec<Part> {
        let part = |(name, var): (&str, Var)| Part::new(name, &var.shape(), var.values());
        self.trainable().into_iter().map(part).collect()
    }
}
