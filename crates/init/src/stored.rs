//! A weight as a quantised format keeps it.

use faer::{Mat, MatRef};
use lowrank_blocks::{Format, narrow, narrow_nf4, widen, widen_nf4};
use lowrank_linalg::{energy, finite, from_rows, to_rows};

use crate::{InitError, Named, Options, Site};

/// The quantised formats that a start can be made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// Four bits of the quantiles of a normal distribution, in blocks of a chosen length.
    Nf4,
    /// GGUF's Q4_0: four bits in blocks of 32.
    Q4,
    /// GGUF's Q8_0: eight bits in blocks of 32.
    Q8,
}

impl Named for Stored {
    const NAMES: &'static [(&'static str, Self)] =
        &[("nf4", Stored::Nf4), ("q4-0", Stored::Q4), ("q8-0", Stored::Q8)];
}

/// A format and the length of its blocks, which only NF4 leaves open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quantiser {
    /// The format.
    pub format: Stored,
    /// Values in a block of NF4, counted along the rows, row after row.
    pub block: usize,
}

impl Quantiser {
    /// NF4 in blocks of 64, as QLoRA.
    pub const DEFAULT: Quantiser = Quantiser { format: Stored::Nf4, block: 64 };

    /// The choices `format` and `block`.
    pub(crate) fn from_options(options: &Options) -> Result<Quantiser, InitError> {
        let block = options.count("block", 4096)?;
        // A block of one holds every value exactly, with more bits for its scale than the value has.
        if block < 2 {
            return Err(options.bad("block").into());
        }
        Ok(Quantiser { format: options.named("format")?, block })
    }

    /// Refuses rows that do not fill whole blocks, where the format needs that.
    pub(crate) fn admits(&self, method: &'static str, site: Site) -> Result<(), InitError> {
        let fits = |format: Format| format.row_bytes(site.inp).map(|_| ());
        match self.format {
            Stored::Nf4 => Ok(()),
            Stored::Q4 => fits(Format::Q4_0),
            Stored::Q8 => fits(Format::Q8_0),
        }
        .map_err(|source| InitError::Blocks { method, source })
    }

    /// The weight `[out, in]` after it was stored and read again.
    ///
    /// # Errors
    /// [`InitError::Linalg`] for an entry that is not finite, [`InitError::Blocks`].
    pub(crate) fn round(&self, method: &'static str, weight: MatRef<'_, f32>) -> Result<Mat<f32>, InitError> {
        finite(weight).map_err(InitError::linalg(method))?;
        let values = to_rows(weight);
        let through = |format: Format| {
            let mut back = vec![0.0; values.len()];
            widen(format, &narrow(format, &values)?, &mut back)?;
            Ok(back)
        };
        let back = match self.format {
            Stored::Nf4 => narrow_nf4(&values, self.block).map(|stored| widen_nf4(&stored)),
            Stored::Q4 => through(Format::Q4_0),
            Stored::Q8 => through(Format::Q8_0),
        };
        let back = back.map_err(|source| InitError::Blocks { method, source })?;
        from_rows(&back, weight.nrows(), weight.ncols()).map_err(InitError::linalg(method))
    }

    /// The largest relative error of any weight (Frobenius), rounded up to hundredths.
    ///
    /// A block of length n whose largest magnitude is 1 holds n − 1 other values. Those half-way between zero and the nearest
    /// code, at g, lose all of themselves, and nothing loses a larger part: `(n − 1)g² / (1 + (n − 1)g²)` of the energy. The wide
    /// gap of NF4 at −0.85 loses 0.152² of 0.848² at most, which is more for short blocks.
    #[must_use]
    pub fn bound(&self) -> f64 {
        // g, n, and the relative rounding of the block's scale to half precision.
        let (gap, block, scale) = match self.format {
            Stored::Nf4 => (0.091_051 / 2.0, self.block, 0.0),
            Stored::Q4 => (1.0 / 16.0, 32, 2.0_f64.powi(-10)),
            Stored::Q8 => (1.0 / 254.0, 32, 2.0_f64.powi(-10)),
        };
        let lost = block.saturating_sub(1) as f64 * gap * gap;
        let near_zero = (lost / (1.0 + lost)).sqrt();
        let wide_gap = if self.format == Stored::Nf4 { 0.18 } else { 0.0 };
        ((near_zero.max(wide_gap) + scale) * 100.0).ceil() / 100.0
    }

    /// `‖a − b‖` relative to the size given.
    pub(crate) fn error(a: MatRef<'_, f32>, b: MatRef<'_, f32>, size: f64) -> f64 {
        energy((a - b).as_ref()).sqrt() / size
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lowrank_record::Seed;

    #[test]
    fn no_weight_loses_more_than_the_bound() {
        // What loses most of itself: one large value a block, all others half-way to the code beside zero; then the wide gap;
        // then random ones.
        let draws = Seed(3).normal(64 * 64);
        let one = |other: f32| move |i: usize, j: usize| if (i * 64 + j) % 32 == 5 { 1.0 } else { other };
        let lone = |other: f32, block: usize| {
            Mat::from_fn(64, 64, move |i, j| if (i * 64 + j) % block == 5 { -1.0 } else { other })
        };
        let weights = [
            lone(-0.0455, 64),
            lone(-0.848, 64),
            lone(-0.138, 64),
            lone(0.0624, 32),
            lone(0.99, 32),
            lone(0.00393, 32),
            Mat::from_fn(64, 64, one(0.5 / 127.0)),
            Mat::from_fn(64, 64, |i, j| draws[i * 64 + j]),
        ];
        for format in [Stored::Nf4, Stored::Q4, Stored::Q8] {
            for block in [8, 64, 256] {
                let quantiser = Quantiser { format, block };
                let mut worst = 0.0_f64;
                for weight in &weights {
                    let back = quantiser.round("test", weight.as_ref()).unwrap();
                    worst = worst.max(Quantiser::error(
                        weight.as_ref(),
                        back.as_ref(),
                        energy(weight.as_ref()).sqrt(),
                    ));
                }
                assert!(worst <= quantiser.bound(), "{quantiser:?}: {worst} above {}", quantiser.bound());
            }
        }
        // The bound is nearly reached, so it says something.
        let back = Quantiser::DEFAULT.round("test", weights[0].as_ref()).unwrap();
        let reached =
            Quantiser::error(weights[0].as_ref(), back.as_ref(), energy(weights[0].as_ref()).sqrt());
        assert!(reached > 0.97 * Quantiser::DEFAULT.bound(), "{reached} {}", Quantiser::DEFAULT.bound());
    }
}
