//! `Σ wᵢ·(log Σⱼ e^(hᵢ·vⱼ) − hᵢ·v_target)` over chunks of rows, with its gradients in the same pass.
//!
//! A chunk's logits `[chunk, V]` are formed block of vocabulary by block, turned into `w·(softmax − onehot)` in place and
//! multiplied by the head at once: 4·n·d·V flops for loss and gradient together, chunk × V values in memory.

use rayon::prelude::*;

use super::memory::zeros;
use super::real::{exp_and_sum, largest};
use super::{Real, RowSource, product};

/// Logits of one chunk of rows take at most this many values.
/// 24 MiB in f32: below what glibc would give back to the kernel after each chunk.
const CHUNK: usize = 6 << 20;
/// Rows of the vocabulary that are widened and multiplied at a time.
const VOCABULARY: usize = 4096;

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

/// Which gradients are wanted.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// Of the hidden states.
    pub dh: bool,
    /// Of the head.
    pub dw: bool,
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
/// `h: [n, d]`, `head: [V, d]`, `targets: [n]`, `weights: [n]`.
///
/// # Errors
/// [`TargetError`].
pub fn forward<T: Real>(
    h: &[T],
    head: &dyn RowSource<T>,
    targets: &[i32],
    weights: Option<&[T]>,
    wanted: Wanted,
) -> Result<Outcome<T>, TargetError> {
    let (v, d) = (head.rows(), head.cols());
    check(targets, v)?;
    let mut outcome = Outcome {
        loss: 0.0,
        nll: vec![0.0; targets.len()],
        dh: wanted.dh.then(|| zeros(targets.len() * d)),
        dw: wanted.dw.then(|| zeros(v * d)),
    };
    // Rows without a target are dropped before anything is multiplied.
    let kept: Vec<usize> = (0..targets.len()).filter(|&row| targets[row] >= 0).collect();
    let weight = |row: usize| weights.map_or(T::ONE, |weights| weights[row]);
    let mut scratch = Vec::new();
    for rows in kept.chunks((CHUNK / v.max(1)).clamp(16, 1024)) {
        let n = rows.len();
        let hidden: Vec<T> = rows.iter().flat_map(|&row| &h[row * d..(row + 1) * d]).copied().collect();
        // One block after another, each [n, block]: rows of a block are contiguous for the products.
        let mut logits = zeros(n * v);
        for (block, logits) in logits.chunks_mut(n * VOCABULARY).enumerate() {
            let m = logits.len() / n;
            let words = head.read(block * VOCABULARY..block * VOCABULARY + m, &mut scratch);
            product::nt(logits, &hidden, words, [n, d, m], false);
        }
        let losses =
            softmax(&mut logits, n, v, |index| targets[rows[index]] as usize, |index| weight(rows[index]));
        for (&row, nll) in rows.iter().zip(losses) {
            outcome.nll[row] = nll as f32;
            outcome.loss += nll * weight(row).to_f64();
        }
        if !(wanted.dh || wanted.dw) {
            continue;
        }
        let mut dh = zeros(n * d);
        for (block, logits) in logits.chunks(n * VOCABULARY).enumerate() {
            let m = logits.len() / n;
            let range = block * VOCABULARY..block * VOCABULARY + m;
            if let Some(dw) = &mut outcome.dw {
                product::tn(&mut dw[range.start * d..range.end * d], logits, &hidden, [n, m, d], true);
            }
            product::nn(&mut dh, logits, head.read(range, &mut scratch), [n, m, d], true);
        }
        if let Some(all) = &mut outcome.dh {
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
    use super::super::SliceRows;
    use super::*;
    use lowrank_record::Seed;

    #[test]
    fn chunks_and_blocks_do_not_change_the_loss() {
        // More words than a block, and a vocabulary so large that rows go in several chunks.
        let (n, d, v) = (600, 3, 2 * VOCABULARY + 77);
        let draws = |name: &str, count: usize| Seed(7).at("loss", name).normal(count);
        let (h, words) = (draws("h", n * d), draws("w", v * d));
        let targets: Vec<i32> =
            (0..n).map(|row| if row % 3 == 0 { -100 } else { (row * 31 % v) as i32 }).collect();
        let head = SliceRows { values: &words, cols: d };
        let outcome = forward(&h, &head, &targets, None, Wanted { dh: true, dw: true }).unwrap();
        let (dh, dw) = (outcome.dh.unwrap(), outcome.dw.unwrap());
        // Words of each block, some of them targets.
        let watched = [0, 31, VOCABULARY - 1, VOCABULARY, VOCABULARY + 5, 2 * VOCABULARY + 3, v - 1];
        let mut expected = vec![0.0; watched.len() * d];
        for row in 0..n {
            let Ok(target) = usize::try_from(targets[row]) else {
                assert_eq!(outcome.nll[row], 0.0);
                continue;
            };
            let h = &h[row * d..(row + 1) * d];
            let dot =
                |word: usize| (0..d).map(|i| f64::from(h[i]) * f64::from(words[word * d + i])).sum::<f64>();
            let total: f64 = (0..v).map(|word| dot(word).exp()).sum();
            assert!((f64::from(outcome.nll[row]) - (total.ln() - dot(target))).abs() < 1e-5);
            for i in 0..d {
                let at = |word: usize| f64::from(words[word * d + i]);
                let mean: f64 = (0..v).map(|word| dot(word).exp() / total * at(word)).sum();
                assert!((f64::from(dh[row * d + i]) - (mean - at(target))).abs() < 1e-4);
            }
            for (&word, sum) in watched.iter().zip(expected.chunks_exact_mut(d)) {
                let share = dot(word).exp() / total - f64::from(u8::from(word == target));
                sum.iter_mut().zip(h).for_each(|(sum, &h)| *sum += share * f64::from(h));
            }
        }
        for (&word, sum) in watched.iter().zip(expected.chunks_exact(d)) {
            for (i, expected) in sum.iter().enumerate() {
                let found = f64::from(dw[word * d + i]);
                assert!((found - expected).abs() < 1e-4, "word {word}: {found} {expected}");
            }
        }
    }

    #[test]
    fn extreme_logits_stay_finite() {
        let head = SliceRows { values: &[1e4_f32, -1e4, 0.0], cols: 1 };
        let outcome = forward(&[1.0], &head, &[1], None, Wanted { dh: true, dw: false }).unwrap();
        assert!((outcome.loss - 2e4).abs() < 1.0, "{}", outcome.loss);
        assert!(outcome.dh.unwrap()[0].is_finite());
    }
}
