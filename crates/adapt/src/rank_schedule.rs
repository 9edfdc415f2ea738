//! Which singular values of which layers stay: AdaLoRA's budget of ranks, shared by all layers and shrinking while they
//! train.
//!
//! Each entry w of a trained matrix has a sensitivity `|w·∂L/∂w|`, smoothed to Ī; its uncertainty `|I − Ī|` is smoothed to
//! Ū, and its score is `Ī·Ū`. A triplet (a row of right, a value, a column of left) scores the value's score and the mean
//! scores of its row and column. The budget falls from all values to `target` a layer as a cubic, between `warmup` and
//! `last` steps before the end, and the values beyond it, over all layers together, are set to zero. They may come back,
//! until the last steps keep what was chosen.
//!
//! Pure: numbers in, masks out. Source: Zhang et al., "Adaptive Budget Allocation for Parameter-Efficient Fine-Tuning",
//! 2023, section 3; PEFT's `tuners/adalora/layer.py`, with one difference: of equal scores PEFT sets all to zero that are
//! at the threshold, here exactly the budget is kept, the first in the order of the layers.

use std::collections::BTreeMap;

use crate::{AdaptError, Part};

/// When and how far the ranks fall. Steps are those of the optimiser, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Budget {
    /// The mean rank of a layer at the end (PEFT's `target_r`).
    pub target: usize,
    /// Steps before the first cut (`tinit`).
    pub warmup: usize,
    /// Steps at the end that keep what was chosen (`tfinal`).
    pub last: usize,
    /// Steps between two cuts (`deltaT`).
    pub interval: usize,
    /// All steps (`total_step`).
    pub total: usize,
    /// Smoothing of the sensitivity (`beta1`).
    pub sensitivity: f32,
    /// Smoothing of the uncertainty (`beta2`).
    pub uncertainty: f32,
}

/// The numbers of one layer at one step: each trained matrix and the gradient of the loss.
#[derive(Debug, Clone, Copy)]
pub struct Triplets<'a> {
    /// `[r, in]`.
    pub right: [&'a [f32]; 2],
    /// `[r, 1]`.
    pub values: [&'a [f32]; 2],
    /// `[out, r]`.
    pub left: [&'a [f32]; 2],
}

/// The state of the allocation, for a list of layers in a fixed order.
#[derive(Debug, Clone, PartialEq)]
pub struct RankSchedule {
    budget: Budget,
    layers: Vec<Scores>,
    /// For each layer, which values stay; none before the first cut.
    kept: Option<Vec<Vec<bool>>>,
}

#[derive(Debug, Clone, PartialEq)]
struct Scores {
    rank: usize,
    right: Smoothed,
    values: Smoothed,
    left: Smoothed,
}

#[derive(Debug, Clone, PartialEq)]
struct Smoothed {
    sensitivity: Vec<f32>,
    uncertainty: Vec<f32>,
}

impl Smoothed {
    fn new(count: usize) -> Smoothed {
        Smoothed { sensitivity: vec![0.0; count], uncertainty: vec![0.0; count] }
    }

    fn see(&mut self, [values, gradients]: [&[f32]; 2], budget: &Budget) {
        let smoothed = self.sensitivity.iter_mut().zip(&mut self.uncertainty);
        for ((mean, spread), (value, gradient)) in smoothed.zip(values.iter().zip(gradients)) {
            let now = (value * gradient).abs();
            *mean = budget.sensitivity * *mean + (1.0 - budget.sensitivity) * now;
            *spread = budget.uncertainty * *spread + (1.0 - budget.uncertainty) * (now - *mean).abs();
        }
    }

    fn score(&self, at: usize) -> f64 {
        f64::from(self.sensitivity[at]) * f64::from(self.uncertainty[at])
    }
}

impl RankSchedule {
    /// A schedule for layers of these shapes `[out, r, in]`.
    ///
    /// # Errors
    /// [`AdaptError::Budget`] for numbers that make no schedule.
    pub fn new(budget: Budget, layers: &[[usize; 3]]) -> Result<RankSchedule, AdaptError> {
        let refuse = |why: String| Err(AdaptError::Budget { why });
        let Budget { target, warmup, last, interval, total, sensitivity, uncertainty } = budget;
        if target == 0 || interval == 0 {
            return refuse("the target rank and the interval are at least 1".to_owned());
        }
        if warmup.checked_add(last).is_none_or(|fixed| fixed >= total) {
            return refuse(format!(
                "of {total} steps, {warmup} before the first cut and {last} at the end leave none to cut in; lower them"
            ));
        }
        if !(0.0 < sensitivity && sensitivity < 1.0 && 0.0 < uncertainty && uncertainty < 1.0) {
            return refuse("both smoothing factors lie between 0 and 1".to_owned());
        }
        let all: usize = layers.iter().map(|[_, rank, _]| rank).sum();
        if target.checked_mul(layers.len()).is_none_or(|end| end > all) {
            return refuse(format!(
                "a target rank of {target} for {} layers is more than the {all} values that they begin with; lower it, or \
                 raise the rank",
                layers.len()
            ));
        }
        let layers = layers.iter().map(|&[out, rank, inp]| Scores {
            rank,
            right: Smoothed::new(rank * inp),
            values: Smoothed::new(rank),
            left: Smoothed::new(out * rank),
        });
        Ok(RankSchedule { budget, layers: layers.collect(), kept: None })
    }

    /// How many values stay, over all layers, at this step.
    #[must_use]
    pub fn values_at(&self, step: usize) -> usize {
        let Budget { target, warmup, last, total, .. } = self.budget;
        let all: usize = self.layers.iter().map(|layer| layer.rank).sum();
        let end = target * self.layers.len();
        if step <= warmup {
            return all;
        }
        if step >= total - last {
            return end;
        }
        let left = 1.0 - (step - warmup) as f64 / (total - last - warmup) as f64;
        ((all - end) as f64 * left.powi(3) + end as f64) as usize
    }

    /// Sees a step, after the optimiser has moved the values and with the gradients that moved them, and says which values
    /// stay: those that do not are to be set to zero. None says that nothing changes at this step.
    ///
    /// # Errors
    /// [`AdaptError::Budget`] when the layers are not those of [`RankSchedule::new`].
    pub fn step(&mut self, step: usize, layers: &[Triplets<'_>]) -> Result<Option<&[Vec<bool>]>, AdaptError> {
        let fits = layers.len() == self.layers.len()
            && layers.iter().zip(&self.layers).all(|(seen, scores)| scores.fits(seen));
        if !fits {
            return Err(AdaptError::Budget { why: "the layers are not those it was made for".to_owned() });
        }
        let (budget, end) = (self.budget, self.budget.total - self.budget.last);
        if step > end {
            return Ok(self.kept.as_deref());
        }
        if step < end {
            for (scores, seen) in self.layers.iter_mut().zip(layers) {
                scores.right.see(seen.right, &budget);
                scores.values.see(seen.values, &budget);
                scores.left.see(seen.left, &budget);
            }
            if step <= budget.warmup || !step.is_multiple_of(budget.interval) {
                return Ok(None);
            }
        }
        self.kept = Some(self.best(self.values_at(step)));
        Ok(self.kept.as_deref())
    }

    /// Which values the `count` best triplets have.
    fn best(&self, count: usize) -> Vec<Vec<bool>> {
        let mut scored: Vec<(f64, usize, usize)> = Vec::new();
        for (index, layer) in self.layers.iter().enumerate() {
            scored.extend((0..layer.rank).map(|k| (layer.triplet(k), index, k)));
        }
        // Stable: of equal scores the first stay.
        scored.sort_by(|(a, ..), (b, ..)| b.total_cmp(a));
        let mut kept: Vec<Vec<bool>> = self.layers.iter().map(|layer| vec![false; layer.rank]).collect();
        for (_, index, k) in scored.into_iter().take(count) {
            kept[index][k] = true;
        }
        kept
    }

    /// Everything that a resumed run needs beside the budget and the shapes.
    #[must_use]
    pub fn parts(&self) -> Vec<Part> {
        let mut parts = Vec::new();
        for (index, layer) in self.layers.iter().enumerate() {
            for (matrix, smoothed) in layer.matrices() {
                for (kind, values) in smoothed.kinds() {
                    let name = format!("{index}.{matrix}.{kind}");
                    parts.push(Part::new(&name, &[values.len()], values.clone()));
                }
            }
        }
        for (index, kept) in self.kept.iter().flatten().enumerate() {
            let kept = kept.iter().map(|&kept| if kept { 1.0 } else { 0.0 }).collect::<Vec<f32>>();
            parts.push(Part::new(&format!("{index}.kept"), &[kept.len()], kept));
        }
        parts
    }

    /// Takes up what [`RankSchedule::parts`] gave.
    ///
    /// # Errors
    /// [`AdaptError::Budget`] when a part is missing, strange, or of another size.
    pub fn resume(&mut self, parts: Vec<Part>) -> Result<(), AdaptError> {
        let mut stored = StoredState(parts.into_iter().map(|part| (part.name, part.values)).collect());
        let mut layers = self.layers.clone();
        for (index, layer) in layers.iter_mut().enumerate() {
            for (matrix, smoothed) in layer.matrices_mut() {
                for (kind, values) in smoothed.kinds_mut() {
                    *values = stored.take(&format!("{index}.{matrix}.{kind}"), values.len())?;
                }
            }
        }
        // Before the first cut there is nothing that was kept; after it, of every layer.
        let mut kept = None;
        if stored.0.keys().any(|name| name.ends_with(".kept")) {
            let mut all = Vec::with_capacity(layers.len());
            for (index, layer) in layers.iter().enumerate() {
                let values = stored.take(&format!("{index}.kept"), layer.rank)?;
                all.push(values.into_iter().map(|value| value != 0.0).collect());
            }
            kept = Some(all);
        }
        if let Some(name) = stored.0.into_keys().next() {
            return Err(AdaptError::Budget {
                why: format!("the stored state holds {name}, which is of no layer"),
            });
        }
        (self.layers, self.kept) = (layers, kept);
        Ok(())
    }
}

/// Stored values by name, taken out one by one.
struct StoredState(BTreeMap<String, Vec<f32>>);

impl StoredState {
    fn take(&mut self, name: &str, count: usize) -> Result<Vec<f32>, AdaptError> {
        match self.0.remove(name) {
            Some(values) if values.len() == count => Ok(values),
            _ => {
                Err(AdaptError::Budget { why: format!("the stored state has no {name} with {count} values") })
            }
        }
    }
}

impl Scores {
    fn fits(&self, seen: &Triplets<'_>) -> bool {
        let pairs = [(&self.right, seen.right), (&self.values, seen.values), (&self.left, seen.left)];
        pairs.into_iter().all(|(scores, both)| both.iter().all(|side| side.len() == scores.sensitivity.len()))
    }

    /// The score of the value, and the mean scores of its row and its column.
    fn triplet(&self, k: usize) -> f64 {
        let (inp, out) = (self.right.sensitivity.len() / self.rank, self.left.sensitivity.len() / self.rank);
        let row: f64 = (0..inp).map(|j| self.right.score(k * inp + j)).sum();
        let column: f64 = (0..out).map(|i| self.left.score(i * self.rank + k)).sum();
        self.values.score(k) + row / inp.max(1) as f64 + column / out.max(1) as f64
    }

    fn matrices(&self) -> [(&'static str, &Smoothed); 3] {
        [("right", &self.right), ("values", &self.values), ("left", &self.left)]
    }

    fn matrices_mut(&mut self) -> [(&'static str, &mut Smoothed); 3] {
        [("right", &mut self.right), ("values", &mut self.values), ("left", &mut self.left)]
    }
}

impl Smoothed {
    fn kinds(&self) -> [(&'static str, &Vec<f32>); 2] {
        [("sensitivity", &self.sensitivity), ("uncertainty", &self.uncertainty)]
    }

    fn kinds_mut(&mut self) -> [(&'static str, &mut Vec<f32>); 2] {
        [("sensitivity", &mut self.sensitivity), ("uncertainty", &mut self.uncertainty)]
    }
}
