//! The linear network against its closed forms.

use faer::Mat;
use lowrank_linalg::svd_in_f64;
use lowrank_record::Seed;
use rayon::iter::{IntoParallelIterator, ParallelIterator};
use serde::Serialize;

use super::statement::{Bound, Role, Statement};
use crate::regimes::RegimeError;
use crate::regimes::linear::{
    LinearNetwork, aligned_without_readout, expected_alignment, flat_start, gaussian_start,
};

/// Inputs d.
pub(super) const INPUTS: usize = 20;

/// Hidden units h.
pub(super) const HIDDEN: usize = 30;

/// Scale of a start that counts as vanishing.
const VANISHING: f64 = 1e-3;

/// A case of the linear network.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Case {
    /// Which start.
    pub start: String,
    /// Kernel alignment, the mean over the tasks.
    pub measured: f64,
    /// What the closed form says; nothing where there is none.
    pub formula: Option<f64>,
}

impl Case {
    /// The relative distance from the closed form.
    #[must_use]
    pub fn deviation(&self) -> Option<f64> {
        self.formula.map(|formula| (self.measured / formula - 1.0).abs())
    }
}

/// All cases, and what became of the two statements about them.
pub(super) fn theory(seed: Seed) -> Result<(Vec<Case>, Vec<Statement>), RegimeError> {
    let seed = seed.at("study", "linear");
    let ranks = [1, 2, 5, 10, 20].map(|rank| rank_case(rank, seed));
    let ranks: Vec<Case> = ranks.into_iter().collect::<Result<_, _>>()?;
    let aligned = aligned(seed)?;
    let scales: Vec<Case> = [1e-2, 0.1, 1.0, 3.0]
        .into_iter()
        .map(|scale| {
            let hidden = gaussian_start(HIDDEN, INPUTS, scale, seed);
            let measured = mean_over_tasks(&hidden)?;
            Ok(Case { start: format!("Gaussian, scale {scale}"), measured, formula: None })
        })
        .collect::<Result<_, RegimeError>>()?;
    let deviations = |cases: &[Case]| cases.iter().filter_map(Case::deviation).collect::<Vec<f64>>();
    let statements = vec![
        Statement::judge(
            Role::Claim,
            "linear network: from a vanishing start the mean kernel alignment is (1 + 1/d)·√PR/√(d + 3), to 0.5 %".to_owned(),
            Bound::AtMost(0.005),
            &deviations(&ranks),
        ),
        Statement::judge(
            Role::Claim,
            "linear network: a rank-one start along the task keeps its kernel when balanced, and has 2/√(d + 3) without a readout, to 1 %".to_owned(),
            Bound::AtMost(0.01),
            &deviations(&aligned),
        ),
    ];
    Ok((ranks.into_iter().chain(aligned).chain(scales).collect(), statements))
}

fn rank_case(rank: usize, seed: Seed) -> Result<Case, RegimeError> {
    let hidden = flat_start(HIDDEN, INPUTS, rank, VANISHING, seed)?;
    let values = svd_in_f64(hidden.as_ref())?.values;
    Ok(Case {
        start: format!("rank {rank}, vanishing"),
        measured: mean_over_tasks(&hidden)?,
        formula: Some(expected_alignment(&values, INPUTS)),
    })
}

/// The mean over an orthonormal set of targets, whose mean of any quadratic form is that over all directions.
fn mean_over_tasks(hidden: &Mat<f64>) -> Result<f64, RegimeError> {
    let measured: Vec<f64> = (0..INPUTS)
        .into_par_iter()
        .map(|task| {
            let target: Vec<f64> = (0..INPUTS).map(|j| if j == task { 1.0 } else { 0.0 }).collect();
            let mut network = LinearNetwork { hidden: hidden.clone(), readout: vec![0.0; HIDDEN] };
            Ok(network.learn(&target)?.kernel_alignment)
        })
        .collect::<Result<_, RegimeError>>()?;
    Ok(measured.iter().sum::<f64>() / INPUTS as f64)
}

fn aligned(seed: Seed) -> Result<Vec<Case>, RegimeError> {
    let svd = svd_in_f64(flat_start(HIDDEN, INPUTS, 1, 1.0, seed)?.as_ref())?.head(1);
    let target: Vec<f64> = svd.right.row(0).iter().copied().collect();
    let case = |start: &str, scale: f64, readout: f64, formula: f64| {
        let hidden = Mat::from_fn(HIDDEN, INPUTS, |i, j| scale * svd.left[(i, 0)] * target[j]);
        let readout = (0..HIDDEN).map(|i| readout * svd.left[(i, 0)]).collect();
        let measured = LinearNetwork { hidden, readout }.learn(&target)?.kernel_alignment;
        Ok(Case { start: start.to_owned(), measured, formula: Some(formula) })
    };
    [
        case("rank 1 along the task, balanced", 0.1, 0.1, 1.0),
        case("rank 1 along the task, no readout", VANISHING, 0.0, aligned_without_readout(INPUTS)),
    ]
    .into_iter()
    .collect()
}
