//! What is compared: starts of one size and several ranks, the same under two other sizes, and starts with structure.

use faer::{Mat, MatRef};
use lowrank_record::Seed;
use serde::Serialize;

use crate::regimes::RegimeError;
use crate::regimes::connectivity::{
    Aligned, Connectivity, Dale, Motif, Norm, Soules, Split, Truncated, start,
};

/// How a start is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The control cut to a rank.
    Truncated(usize),
    /// The leading triplets of what the control learned on the same task.
    Aligned(usize),
    /// Excitatory, of the spectrum 1/i.
    Soules,
    /// Columns of one sign, balanced.
    DaleBalanced,
    /// Columns of one sign, excitation ahead.
    DaleAhead,
    /// More chains and reciprocal pairs than chance has.
    Motif,
}

/// Starts with structure. They are compared at the spectral radius of the control: at its Frobenius norm those with an outlier have radii of 3 to 8, and a
/// rectified network dies of them in its first batches.
pub(super) const STRUCTURED: [Kind; 4] = [Kind::Soules, Kind::DaleBalanced, Kind::DaleAhead, Kind::Motif];

/// A start and the size it shares with the control.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Arm {
    /// How it is made.
    pub kind: Kind,
    /// Which size it shares.
    pub norm: Norm,
}

impl Arm {
    /// The control cut to a rank, at the control's Frobenius norm.
    pub(super) const fn rank(rank: usize) -> Arm {
        Arm { kind: Kind::Truncated(rank), norm: Norm::Frobenius }
    }

    /// As tables show it.
    #[must_use]
    pub fn name(&self) -> String {
        let kind = match self.kind {
            Kind::Truncated(rank) => format!("rank {rank}"),
            Kind::Aligned(rank) => format!("aligned, rank {rank}"),
            Kind::Soules => "Soules, 1/i".to_owned(),
            Kind::DaleBalanced => "Dale, balanced".to_owned(),
            Kind::DaleAhead => "Dale, excitation ahead".to_owned(),
            Kind::Motif => "chains and pairs".to_owned(),
        };
        match self.norm {
            Norm::Frobenius => kind,
            norm => format!("{kind}, equal {}", norm.words()),
        }
    }

    /// Its recurrent weights; `learned` is what the control learned, of an aligned start.
    pub(super) fn weights(
        &self,
        control: MatRef<'_, f64>,
        learned: Option<&Mat<f64>>,
        seed: Seed,
    ) -> Result<Mat<f64>, RegimeError> {
        let connectivity: Box<dyn Connectivity> = match self.kind {
            Kind::Truncated(rank) => Box::new(Truncated { rank }),
            Kind::Aligned(rank) => {
                let none = || Mat::zeros(control.nrows(), control.ncols());
                Box::new(Aligned { direction: learned.cloned().unwrap_or_else(none), rank })
            }
            Kind::Soules => Box::new(Soules { decay: 1.0, split: Split::Balanced }),
            Kind::DaleBalanced => Box::new(Dale { excitatory: 0.8, balanced: true }),
            Kind::DaleAhead => Box::new(Dale { excitatory: 0.8, balanced: false }),
            Kind::Motif => Box::new(Motif { chain: 0.5, strength: 0.3, reciprocal: 0.3 }),
        };
        start(connectivity.as_ref(), control, self.norm, seed)
    }
}

/// Size of the experiment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Size {
    /// Units H.
    pub units: usize,
    /// Ranks of the start; the last one is H.
    pub ranks: Vec<usize>,
    /// Batches of each training.
    pub iterations: usize,
    /// Trials of a batch.
    pub trials: usize,
    /// Learning rate.
    pub rate: f64,
    /// Gain g of the control.
    pub gain: f64,
    /// Independent problems: their control, other weights, batches and probes.
    pub seeds: u64,
    /// The first seed.
    pub first_seed: u64,
    /// Whether it is too short to decide anything.
    pub quick: bool,
}

impl Size {
    /// The replication of the specification: 64 units, 4000 batches of 32.
    #[must_use]
    pub fn full() -> Size {
        Size {
            units: 64,
            ranks: vec![1, 4, 16, 64],
            iterations: 4000,
            trials: 32,
            rate: 0.01,
            gain: 1.25,
            seeds: 10,
            first_seed: 0,
            quick: false,
        }
    }

    /// Seconds: to see that everything works.
    #[must_use]
    pub fn quick() -> Size {
        Size { units: 24, ranks: vec![1, 4, 24], iterations: 200, seeds: 2, quick: true, ..Size::full() }
    }

    /// All arms; the whole control first.
    pub(super) fn arms(&self) -> Vec<Arm> {
        let cut: Vec<usize> = self.ranks.iter().copied().filter(|&rank| rank < self.units).collect();
        let mut arms = vec![Arm::rank(self.units)];
        arms.extend(cut.iter().map(|&rank| Arm::rank(rank)));
        for norm in [Norm::TopSingularValue, Norm::SpectralRadius] {
            arms.extend(cut.iter().map(|&rank| Arm { kind: Kind::Truncated(rank), norm }));
        }
        arms.extend([1, 4].map(|rank| Arm { kind: Kind::Aligned(rank), norm: Norm::Frobenius }));
        arms.extend(STRUCTURED.map(|kind| Arm { kind, norm: Norm::SpectralRadius }));
        arms
    }
}
