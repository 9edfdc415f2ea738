//! How large the two factors of a start are when both are orthonormal up to one number c:
//! `left = c·U_J`, `right = c·V_Iᵀ`, so the change has r equal singular values `scale·c²`.

use lowrank_linalg::Sketch;
use lowrank_record::{Need, Seed};

use crate::{Evidence, Exactness, GradientMap, InitError, Leading, Named};

/// The rule for c.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Magnitude {
    /// `c = out^¼ / √γ`: with the scale α/√r the adapter's output has rms α/γ for unit inputs, whatever the rank and width.
    Stable,
    /// `c = 1/scale`: the first SGD step of the change is the best rank-2r part of the full step, with the same rate.
    Gd,
    /// `c = 1`.
    Unit,
    /// `c = mean over i ≤ r of √(σᵢ(W)/scale)`: as large as the leading part of the weight.
    WeightSvd,
}

impl Named for Magnitude {
    const NAMES: &'static [(&'static str, Self)] = &[
        ("stable", Magnitude::Stable),
        ("gd", Magnitude::Gd),
        ("unit", Magnitude::Unit),
        ("weight-svd", Magnitude::WeightSvd),
        // The names in PEFT and in the authors' code.
        ("gd-scale", Magnitude::Gd),
        ("weights", Magnitude::WeightSvd),
    ];
}

impl Magnitude {
    /// What else must be seen.
    #[must_use]
    pub fn needs(self) -> &'static [Need] {
        if self == Magnitude::WeightSvd { &[Need::Weight] } else { &[] }
    }

    /// The number c of [`Magnitude::Stable`].
    #[must_use]
    pub fn stable(out: usize, gamma: f64) -> f64 {
        (out as f64).powf(0.25) / gamma.sqrt()
    }

    /// The number c.
    ///
    /// # Errors
    /// [`InitError::Missing`] without the weight where it is needed, [`InitError::ZeroWeight`], [`InitError::Linalg`].
    pub fn factor(
        self,
        method: &'static str,
        seen: &Evidence<'_>,
        rank: usize,
        gamma: f64,
        seed: Seed,
    ) -> Result<f64, InitError> {
        let site = seen.site();
        Ok(match self {
            Magnitude::Stable => Magnitude::stable(site.out, gamma),
            Magnitude::Gd => site.unscaled(1.0),
            Magnitude::Unit => 1.0,
            Magnitude::WeightSvd => {
                let values = weight_values(method, seen, rank, seed)?;
                if values[0] <= 0.0 {
                    return Err(InitError::ZeroWeight { method });
                }
                values.iter().map(|&value| site.unscaled(value).sqrt()).sum::<f64>() / rank as f64
            }
        })
    }
}

/// The leading singular values of the weight.
pub(crate) fn weight_values(
    method: &'static str,
    seen: &Evidence<'_>,
    count: usize,
    seed: Seed,
) -> Result<Vec<f64>, InitError> {
    // Only a few values to a few digits are wanted here.
    let sketch = Sketch { oversampling: count.max(8), power: 4 };
    let leading = Leading { count, exactness: Exactness::Auto, sketch, of: GradientMap::Itself };
    let found = leading.of(seen.weight(method)?, seed.at("start", "weight"));
    Ok(found.map_err(InitError::linalg(method))?.svd.values)
}
