//! `Σ wᵢ·(log Σⱼ e^(zᵢⱼ) − zᵢ,target)` with logits `z = h·Wᵀ + (h·rightᵀ)·leftᵀ`, over chunks of rows, and its gradients in
//! the same pass.
//!
//! A chunk's logits `[chunk, V]` are formed block of vocabulary by block, turned into `P = w·(softmax − onehot)` in place
//! and multiplied by the head at once: 4·n·d·V flops for loss and gradient together, chunk × V values in memory. With
//! `inner = h·rightᵀ` and `t = P·left`: `dh = P·W + t·right`, `dleft = Pᵀ·inner`, `dright = tᵀ·h`.

use rayon::prelude::*;

use super::linear::LowRank;
use super::memory::zeros;
use super::real::{exp_and_sum, largest};
use super::{Real, RowSource, SliceRows, product};

/// Logits of one chunk of rows take at most this many values.
/// 24 MiB in f32: below what glibc would give back to the kernel after each chunk.
const CHUNK: usize = 6 << 20;
/// Rows of the vocabulary that are widened and multiplied at a time.
const VOCABULARY: usize = 4096;
/// A stored head is widened once for all chunks if it then has at most this many values (128 MiB in f32).
const WIDENED: usize = 32 << 20;

/// A target outside the vocabulary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "target {target} of row {index} lies outside the vocabulary of {vocabulary}; is this the model's own tokenizer?"
)]
pub struct TargetError {
    /// The row.
    pub index: usize,
    /// Its target.
    pub target: i32,
    /// Size of the vocabulary.
    pub vocabulary: usize,
}

/// What turns hidden states into logits.
#[derive(Clone, Copy)]
pub struct Head<'a, T> {
    /// W `[V, d]`.
    pub weight: &'a dyn RowSource<T>,
    /// A path beside it: left `[V, r]`, right `[r, d]`.
    pub low_rank: Option<LowRank<'a, T>>,
}

/// Which gradients are wanted.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// Of the hidden states.
    pub dh: bool,
    /// Of the head's weight.
    pub dw: bool,
    /// Of the factors beside it, where there are any.
    pub factors: bool,
}

impl Wanted {
    /// None: the loss alone.
    pub const NOTHING: Wanted = Wanted { dh: false, dw: false, factors: false };
}

/// Loss and gradients.
#[derive(Debug, Clone)]
pub struct Outcome<T> {
    /// `Σ wᵢ·nllᵢ`.
    pub loss: f64,
    /// `−log p` of each row's target; 0 where there is none.
    pub nll: Vec<f32>,
    /// `[n, d]`.
    pub dh: Option<Vec<T>>,
    /// `[V, d]`.
    pub dw: Option<Vec<T>>,
    /// `[V, r]`.
    pub dleft: Option<Vec<T>>,
    /// `[r, d]`.
    pub dright: Option<Vec<T>>,
}

/// Whether all targets lie inside the vocabulary; negative ones carry no loss.
///
/// # Errors
/// [`TargetError`] for the first that does not.
pub fn check(targets: &[i32], vocabulary: usize) -> Result<(), TargetError> {
    let outside =
        targets.iter().position(|&target| usize::try_from(target).is_ok_and(|target| target >= vocabulary));
    match outside {
        Some(index) => Err(TargetError { index, target: targets[index], vocabulary }),
        None => Ok(()),
    }
}

/// # Shapes
/// `h: [n, d]`, `targets: [n]`, `weights: [n]`.
///
/// # Errors
/// [`TargetError`].
pub fn forward<T: Real>(
    h: &[T],
    head: Head<'_, T>,
    targets: &[i32],
    weights: Option<&[T]>,
    wanted: Wanted,
) -> Result<Outcome<T>, TargetError> {
    let (v, d) = (head.weight.rows(), head.weight.cols());
    check(targets, v)?;
    let path = head.low_rank;
    let r = path.map_or(0, |path| path.left.len() / v.max(1));
    let factors = wanted.factors && path.is_some();
    let mut outcome = Outcome {
        loss: 0.0,
        nll: vec![0.0; targets.len()],
        dh: wanted.dh.then(|| zeros(targets.len() * d)),
        dw: wanted.dw.then(|| zeros(v * d)),
        dleft: factors.then(|| zeros(v * r)),
        dright: factors.then(|| zeros(r * d)),
    };
    // Each chunk reads the head twice. Where that means widening it, it is done once for all, or the chunks are larger.
    let (mut widened, mut scratch, whole) = (Vec::new(), Vec::new(), v * d <= WIDENED);
    let rows;
    let (words, least): (&dyn RowSource<T>, usize) = match head.weight {
        weight if weight.lends() => (weight, 16),
        weight if whole => {
            rows = SliceRows { values: weight.read(0..v, &mut widened), cols: d };
            (&rows, 16)
        }
        weight => (weight, 128),
    };
    // Rows without a target are dropped before anything is multiplied.
    let kept: Vec<usize> = (0..targets.len()).filter(|&row| targets[row] >= 0).collect();
    let weight = |row: usize| weights.map_or(T::ONE, |weights| weights[row]);
    let chunk = (CHUNK / v.max(1)).clamp(least, 1024).min(kept.len().max(1));
    let mut logits = zeros(chunk * v);
    for rows in kept.chunks(chunk) {
        let n = rows.len();
        let hidden: Vec<T> = rows.iter().flat_map(|&row| &h[row * d..(row + 1) * d]).copied().collect();
        let mut inner = zeros(n * r);
        if let Some(path) = path {
            product::nt(&mut inner, &hidden, path.right, [n, d, r], false);
        }
        // One block after another, each [n, block]: rows of a block are contiguous for the products.
        let logits = &mut logits[..n * v];
        for (block, logits) in logits.chunks_mut(n * VOCABULARY).enumerate() {
            let m = logits.len() / n;
            let range = block * VOCABULARY..block * VOCABULARY + m;
            product::nt(logits, &hidden, words.read(range.clone(), &mut scratch), [n, d, m], false);
            if let Some(path) = path {
                product::nt(logits, &inner, &path.left[range.start * r..range.end * r], [n, r, m], true);
            }
        }
        let losses =
            softmax(logits, n, v, |index| targets[rows[index]] as usize, |index| weight(rows[index]));
        for (&row, nll) in rows.iter().zip(losses) {
            outcome.nll[row] = nll as f32;
            outcome.loss += nll * weight(row).to_f64();
        }
        if !(wanted.dh || wanted.dw || factors) {
            continue;
        }
        let (mut dh, mut dinner) = (zeros(n * d), zeros(n * r));
        for (block, residual) in logits.chunks(n * VOCABULARY).enumerate() {
            let m = residual.len() / n;
            let range = block * VOCABULARY..block * VOCABULARY + m;
            let factor = range.start * r..range.end * r;
            if let Some(dw) = &mut outcome.dw {
                product::tn(&mut dw[range.start * d..range.end * d], residual, &hidden, [n, m, d], true);
            }
            if let Some(dleft) = &mut outcome.dleft {
                product::tn(&mut dleft[factor.clone()], residual, &inner, [n, m, r], true);
            }
            if let Some(path) = path {
                product::nn(&mut dinner, residual, &path.left[factor], [n, m, r], true);
            }
            if wanted.dh {
                product::nn(&mut dh, residual, words.read(range, &mut scratch), [n, m, d], true);
            }
        }
        if let Some(dright) = &mut outcome.dright {
            product::tn(dright, &dinner, &hidden, [n, r, d], true);
        }
        if let Some(all) = &mut outcome.dh {
            if let Some(path) = path {
                product::nn(&mut dh, &dinner, path.right, [n, r, d], true);
            }
            for (&row, dh) in rows.iter().zip(dh.chunks_exact(d)) {
                all[row * d..(row + 1) * d].copy_from_slice(dh);
            }
        }
    }
    Ok(outcome)
}

/// Logits to `w·(softmax − onehot)` in place; returns each row's `−log p(target)`.
///
/// `logits` holds blocks `[n, block]` one after another.
fn softmax<T: Real>(
    logits: &mut [T],
    n: usize,
    v: usize,
    target: impl Fn(usize) -> usize + Sync,
    weight: impl Fn(usize) -> T + Sync,
) -> Vec<f64> {
    // Every block is cut into its rows, and the pieces are regrouped by row.
    let mut pieces: Vec<Vec<&mut [T]>> = (0..n).map(|_| Vec::with_capacity(v.div_ceil(VOCABULARY))).collect();
    for block in logits.chunks_mut(n * VOCABULARY) {
        let m = block.len() / n;
        for (row, piece) in block.chunks_exact_mut(m).enumerate() {
            pieces[row].push(piece);
        }
    }
    pieces
        .into_par_iter()
        .enumerate()
        .map(|(row, mut pieces)| {
            let maxima: Vec<T> = pieces.iter().map(|piece| largest(piece)).collect();
            let most = largest(&maxima);
            let target = target(row);
            let at = pieces[target / VOCABULARY][target % VOCABULARY];
            let sum: f64 = pieces.iter_mut().map(|piece| exp_and_sum(piece, most)).sum();
            let weight = weight(row);
            let factor = T::from_f64(1.0 / sum) * weight;
            for piece in &mut pieces {
                T::vectorised(
                    #[inline(always)]
                    || piece.iter_mut().for_each(|value| *value *= factor),
                );
            }
            let hit = &mut pieces[target / VOCABULARY][target % VOCABULARY];
            *hit -= weight;
            sum.ln() - (at - most).to_f64()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use lowrank_record::Seed;

    const ALL: Wanted = Wanted { dh: true, dw: true, factors: true };

    fn draws(name: &str, count: usize) -> Vec<f32> {
        Seed(7).at("loss", name).normal(count)
    }

    /// More words than a block, and a vocabulary so large that rows go in several chunks.
    const N: usize = 1200;
    const D: usize = 3;
    const V: usize = 2 * VOCABULARY + 77;
    const RANK: usize = 2;

    struct Case {
        h: Vec<f32>,
        words: Vec<f32>,
        left: Vec<f32>,
        right: Vec<f32>,
        targets: Vec<i32>,
    }

    fn case() -> Case {
        let targets = (0..N).map(|row| if row % 3 == 0 { -100 } else { (row * 31 % V) as i32 });
        Case {
            h: draws("h", N * D),
            words: draws("w", V * D),
            left: draws("left", V * RANK).into_iter().map(|value| 0.3 * value).collect(),
            right: draws("right", RANK * D),
            targets: targets.collect(),
        }
    }

    impl Case {
        fn run(&self) -> Outcome<f32> {
            let weight = SliceRows { values: &self.words, cols: D };
            let low_rank = Some(LowRank { left: &self.left, right: &self.right });
            forward(&self.h, Head { weight: &weight, low_rank }, &self.targets, None, ALL).unwrap()
        }

        /// Row `word` of `W + left·right`.
        fn word(&self, word: usize) -> [f64; D] {
            std::array::from_fn(|i| {
                let path =
                    |k: usize| f64::from(self.left[word * RANK + k]) * f64::from(self.right[k * D + i]);
                f64::from(self.words[word * D + i]) + (0..RANK).map(path).sum::<f64>()
            })
        }
    }

    #[test]
    fn chunks_and_blocks_change_neither_the_loss_nor_its_gradients() {
        let case = case();
        assert!(case.targets.iter().filter(|&&target| target >= 0).count() * V > CHUNK, "several chunks");
        let outcome = case.run();
        let (dh, dw) = (outcome.dh.unwrap(), outcome.dw.unwrap());
        let words: Vec<[f64; D]> = (0..V).map(|word| case.word(word)).collect();
        let mut whole = vec![[0.0; D]; V];
        for (row, h) in case.h.chunks_exact(D).enumerate() {
            let Ok(target) = usize::try_from(case.targets[row]) else {
                assert_eq!(outcome.nll[row], 0.0);
                continue;
            };
            let dot = |word: &[f64; D]| word.iter().zip(h).map(|(w, &h)| w * f64::from(h)).sum::<f64>();
            let logits: Vec<f64> = words.iter().map(dot).collect();
            let total: f64 = logits.iter().map(|logit| logit.exp()).sum();
            assert!((f64::from(outcome.nll[row]) - (total.ln() - logits[target])).abs() < 1e-5);
            let mut expected = [0.0; D];
            for (word, logit) in logits.iter().enumerate() {
                let share = logit.exp() / total - f64::from(u8::from(word == target));
                for i in 0..D {
                    expected[i] += share * words[word][i];
                    whole[word][i] += share * f64::from(h[i]);
                }
            }
            for (found, expected) in dh[row * D..].iter().zip(expected) {
                assert!((f64::from(*found) - expected).abs() < 1e-4, "row {row}");
            }
        }
        // `dleft = dW·rightᵀ` and `dright = leftᵀ·dW`.
        let mut dright = [0.0; RANK * D];
        for (word, gradient) in whole.iter().enumerate() {
            for i in 0..D {
                assert!((f64::from(dw[word * D + i]) - gradient[i]).abs() < 1e-4, "word {word}");
            }
            for k in 0..RANK {
                let left = f64::from(case.left[word * RANK + k]);
                let expected: f64 = (0..D).map(|i| gradient[i] * f64::from(case.right[k * D + i])).sum();
                let found = f64::from(outcome.dleft.as_ref().unwrap()[word * RANK + k]);
                assert!((found - expected).abs() < 3e-4, "left {word}: {found} {expected}");
                (0..D).for_each(|i| dright[k * D + i] += left * gradient[i]);
            }
        }
        for (found, expected) in outcome.dright.unwrap().iter().zip(dright) {
            assert!((f64::from(*found) - expected).abs() < 1e-2, "right: {found} {expected}");
        }
    }

    #[test]
    fn the_same_bits_on_any_number_of_threads() {
        let case = case();
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let outcome = pool.install(|| case.run());
            (outcome.loss, outcome.nll, [outcome.dh, outcome.dw, outcome.dleft, outcome.dright])
        };
        let one = run(1);
        assert!(one == run(2) && one == run(3));
    }

    #[test]
    fn extreme_logits_stay_finite() {
        let weight = SliceRows { values: &[1e4_f32, -1e4, 0.0], cols: 1 };
        let outcome = forward(&[1.0], Head { weight: &weight, low_rank: None }, &[1], None, ALL).unwrap();
        assert!((outcome.loss - 2e4).abs() < 1.0, "{}", outcome.loss);
        assert!(outcome.dh.unwrap()[0].is_finite() && outcome.dleft.is_none());
    }
}
