//! `left = 0`, `right` = the leading components of the layer's inputs: the rows of V in `X − μ = U·S·Vᵀ`, X `[n, in]` the inputs of n
//! tokens; and, for ρ above 1, ranks given out anew, where components explain most.
//!
//! With `left = 0` the first gradient is `∂L/∂left = δᵀX·rightᵀ`. Where δ is independent of the inputs its expected square is
//! `E‖δ‖²·tr(right·Σ·rightᵀ)`, Σ the second moment of the inputs: the largest that orthonormal rows can have, for the leading
//! eigenvectors of Σ. (Centred components, the default as in both codes, leave the direction of the mean out of this.)
//!
//! Needs statistics of the inputs; leaves the function unchanged to the bit.
//!
//! Source: Paischer et al., "Parameter Efficient Fine-tuning via Explained Variance Adaptation", 2025, and PEFT's `eva` (compared with 0.21.2 in
//! `tests/eva.rs`). Where we differ: components of layers up to 1024 wide come from exact moments; above, as many more again are
//! kept on the way; batches with few tokens are not skipped; inputs that span fewer directions than the rank are refused; whitened rows
//! are a copy (PEFT divides rows that layers share once for each of them).

mod card;

use faer::Mat;
use lowrank_linalg::{Components, LowRank, directions};
use lowrank_record::{Card, Report, Seed};

pub use card::Normalise;

use self::card::CARD;
use crate::inputs::{EXACT_UP_TO, MOST_BATCHES, settled};
use crate::{
    Base, Evidence, InitError, Initialiser, Inputs, InputsWanted, Named, Options, Start, Statistic, Stop,
};

/// Components of the inputs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Eva {
    /// How many times its planned rank a site may get.
    pub rho: f64,
    /// At what part or cosine enough was seen.
    pub tau: f64,
    /// Whether components are about the mean of the inputs.
    pub center: bool,
    /// Whether row j is divided by `√S_j`.
    pub whiten: bool,
    /// What ranks are given out by.
    pub normalise: Normalise,
    /// When enough was seen.
    pub stop: Stop,
}

impl Eva {
    /// PEFT's, but for the stopping rule.
    pub const DEFAULT: Eva = Eva {
        rho: 2.0,
        tau: 0.99,
        center: true,
        whiten: false,
        normalise: Normalise::Ratio,
        stop: Stop::Captured,
    };

    /// At most `count` leading components that are more than rounding.
    fn components(&self, seen: &Evidence<'_>, count: usize, seed: Seed) -> Result<Components, InitError> {
        let found = match seen.inputs(CARD.name)? {
            Inputs::Moments(moments) if moments.rows() > 0 => {
                let count = count.clamp(1, moments.width());
                let found = moments.principal(count, self.center, seed.at("start", "inputs"));
                found.map_err(InitError::linalg(CARD.name))?
            }
            // Of no inputs there are no components.
            Inputs::Moments(_) => {
                return Err(InitError::FewDirections { method: CARD.name, rank: count, have: 0, rows: 0 });
            }
            Inputs::Components(found) if found.centred == self.center => found.head(count),
            Inputs::Components(found) => {
                let name =
                    |centred| if centred { "components about the mean" } else { "components about zero" };
                let (want, have) = (name(self.center), name(found.centred));
                return Err(InitError::Statistic { method: CARD.name, want, have });
            }
        };
        // n rows about their mean span n − 1 directions at most, whatever rounding makes of the rest.
        let most = found.rows.saturating_sub(u64::from(self.center));
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        if found.count() < count.min(most).min(found.width()) {
            let (want, have) = ("as many components as it asked for", "fewer components");
            return Err(InitError::Statistic { method: CARD.name, want, have });
        }
        let have = directions(&found.values).min(most);
        Ok(found.head(have))
    }
}

impl Initialiser for Eva {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn inputs(&self, most: usize) -> InputsWanted {
        let count = most;
        InputsWanted {
            statistic: Statistic::Components,
            centred: self.center,
            count,
            // Twice as many are kept as are wanted: what a cut throws away early is missing later.
            oversampling: count,
            exact_up_to: EXACT_UP_TO,
            stop: self.stop,
            tau: self.tau,
            least_batches: 2,
            most_batches: MOST_BATCHES,
        }
    }

    fn redistributes(&self) -> Option<f64> {
        Some(self.rho)
    }

    fn ratios(&self, seen: &Evidence<'_>, most: usize, seed: Seed) -> Result<Vec<f64>, InitError> {
        let found = self.components(seen, most, seed)?;
        Ok(self.normalise.of(&found))
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        vec![
            ("rho", self.rho.to_string()),
            ("tau", self.tau.to_string()),
            ("center", self.center.name().to_owned()),
            ("whiten", self.whiten.name().to_owned()),
            ("normalise", self.normalise.name().to_owned()),
            ("stop", self.stop.name().to_owned()),
        ]
    }

    fn configure(&self, options: &Options) -> Result<Box<dyn Initialiser>, InitError> {
        let (rho, tau) = (options.positive("rho")?, options.positive("tau")?);
        if rho < 1.0 {
            return Err(options.bad("rho").into());
        }
        if tau > 1.0 {
            return Err(options.bad("tau").into());
        }
        Ok(Box::new(Eva {
            rho,
            tau,
            center: options.named("center")?,
            whiten: options.named("whiten")?,
            normalise: options.named("normalise")?,
            stop: options.named("stop")?,
        }))
    }

    fn start(&self, seen: &Evidence<'_>, rank: usize, seed: Seed) -> Result<Start, InitError> {
        let site = seen.site();
        self.admits(site, rank)?;
        let found = self.components(seen, rank, seed)?;
        let (have, rows) = (found.count(), found.rows);
        if have < rank {
            return Err(InitError::FewDirections { method: CARD.name, rank, have, rows });
        }
        let size = |i: usize| if self.whiten { found.values[i].sqrt().recip() } else { 1.0 };
        let right = Mat::from_fn(rank, site.inp, |i, j| (f64::from(found.right[(i, j)]) * size(i)) as f32);
        let (cosines, carried) = (found.cosines.as_deref(), found.carried.as_deref());
        let state = match found.exact {
            true if found.converged => "exact for the tokens seen",
            true => "of all tokens seen, not the best: their spectrum is too flat to have leading components",
            false if settled(self.stop, self.tau, rank, cosines, carried) => "settled",
            false => "not settled: show it more tokens, or lower tau",
        };
        let report = Report::default()
            .with("tokens seen", usize::try_from(rows).unwrap_or(usize::MAX))
            .with("components", state)
            .with("part of the inputs' variance captured", found.captured())
            .with("part of it in the last component", found.ratios()[rank - 1]);
        let delta = LowRank { left: Mat::zeros(site.out, rank), right };
        Start::checked(CARD.name, delta, Base::Keep, report)
    }
}
