//! First-order descent on the factors: gradient descent and the sub-gradient method, symmetric and asymmetric, in one loop.
//!
//! With `D = Σ_i w_i·A_i`, the (sub-)gradient with respect to the matrix ([`Loss::weight`]):
//! * symmetric, `X = U·Uᵀ`: `U ← U − η·½(D + Dᵀ)·U` (Ma and Fattahi, 2023, whose η absorbs the factor 2 of the gradient);
//! * asymmetric, `X = L·Rᵀ`: `L ← L − η·D·R` and `R ← R − η·Dᵀ·L` at once (Xiong, Ding and Du, 2024).
//!
//! Preconditioned, each product is multiplied by the inverse of the other factor's Gram matrix, `(RᵀR + λI)⁻¹` and `(LᵀL + λI)⁻¹`,
//! which takes the condition number out of the rate (Tong, Ma and Chi, "Accelerating Ill-Conditioned Low-Rank Matrix Estimation via
//! Scaled Gradient Descent", 2021); the papers above do not do that.

#[cfg(test)]
mod laws;

use faer::{Mat, Scale};
use lowrank_linalg::multiply;

use super::factors::eigenvalues;
use super::rebalance::{Rebalance, When};
use super::solver::{Limits, Moment, Problem, Quality, Recorded, Solution, Solver, Stop, Watch};
use super::steps::Stepper;
use super::{Factors, Loss, Pull, RecoveryError, Steps};

/// A loss beyond so many times that of the zero matrix (or of the start, where that is larger) has diverged.
const DIVERGED: f64 = 1e6;

/// How X is made of the factors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// `U·Uᵀ`.
    Symmetric,
    /// `L·Rᵀ`.
    Asymmetric,
}

/// Gradient descent ([`Loss::Squared`]) or the sub-gradient method ([`Loss::Absolute`]) on the factors.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Descent {
    form: Form,
    /// How residuals count.
    pub loss: Loss,
    /// How far steps go.
    pub steps: Steps,
    /// When to stop.
    pub limits: Limits,
    /// The one-step modification, of the asymmetric form.
    pub rebalance: Option<Rebalance>,
    /// λ of the preconditioner, as a part of the Gram matrix's mean diagonal; `None` for plain descent.
    pub precondition: Option<f64>,
}

impl Descent {
    /// On `U·Uᵀ`.
    #[must_use]
    pub fn symmetric(loss: Loss, steps: Steps, limits: Limits) -> Descent {
        Descent { form: Form::Symmetric, loss, steps, limits, rebalance: None, precondition: None }
    }

    /// On `L·Rᵀ`.
    #[must_use]
    pub fn asymmetric(loss: Loss, steps: Steps, limits: Limits) -> Descent {
        Descent { form: Form::Asymmetric, loss, steps, limits, rebalance: None, precondition: None }
    }

    /// With the one-step modification.
    #[must_use]
    pub fn rebalanced(self, beta: f64, when: When) -> Descent {
        Descent { rebalance: Some(Rebalance { beta, when }), ..self }
    }

    /// Preconditioned, with λ as a part of the Gram matrix's mean diagonal.
    #[must_use]
    pub fn preconditioned(self, damping: f64) -> Descent {
        Descent { precondition: Some(damping), ..self }
    }

    fn check(&self, problem: &Problem<'_>, start: &Factors) -> Result<(), RecoveryError> {
        self.steps.check()?;
        self.limits.check()?;
        if let Some(damping) = self.precondition {
            super::error::positive("the preconditioner's damping", damping)?;
        }
        let (rows, cols) = problem.measurement.shape();
        let rank = start.rank();
        if self.form == Form::Symmetric {
            if rows != cols {
                return Err(RecoveryError::NotSquare { rows, cols });
            }
            if self.rebalance.is_some() {
                let (what, allowed) = ("a change of balance of X·Xᵀ", "only the asymmetric form has one");
                return Err(RecoveryError::Setting { what, value: 1.0, allowed });
            }
        }
        if rank == 0 || rank > rows.min(cols) {
            return Err(RecoveryError::Rank { rank, rows, cols });
        }
        for (what, want_rows, factor) in
            [("the left factor", rows, &start.left), ("the right factor", cols, &start.right)]
        {
            if factor.shape() != (want_rows, rank) {
                let (rows, cols) = factor.shape();
                return Err(RecoveryError::Shape { what, want_rows, want_cols: rank, rows, cols });
            }
        }
        Ok(())
    }

    /// The directions of the step, and `⟨∂f, direction⟩` in units of the step, which Polyak's rules divide by.
    fn directions(
        &self,
        left: Mat<f64>,
        right: Mat<f64>,
        factors: &Factors,
    ) -> Result<Directions, RecoveryError> {
        match self.form {
            Form::Symmetric => {
                let gradient = Scale(0.5) * (left + right);
                let to_left = self.scaled(&gradient, &factors.left)?;
                // ∂f of U·Uᵀ is 2·D·U, and a step of η moves U by η·D·U.
                let along = 2.0 * inner(&gradient, &to_left);
                Ok(Directions { to_left, to_right: None, along })
            }
            Form::Asymmetric => {
                let (to_left, to_right) =
                    (self.scaled(&left, &factors.right)?, self.scaled(&right, &factors.left)?);
                let along = inner(&left, &to_left) + inner(&right, &to_right);
                Ok(Directions { to_left, to_right: Some(to_right), along })
            }
        }
    }

    /// A gradient, preconditioned by the other factor where that is asked for.
    fn scaled(&self, gradient: &Mat<f64>, other: &Mat<f64>) -> Result<Mat<f64>, RecoveryError> {
        match self.precondition {
            None => Ok(gradient.clone()),
            Some(damping) => Ok(multiply(gradient.as_ref(), inverse_gram(other, damping)?.as_ref())),
        }
    }

    fn stepped(&self, factors: &Factors, step: f64, directions: &Directions) -> Factors {
        let left = &factors.left - Scale(step) * &directions.to_left;
        match &directions.to_right {
            Some(to_right) => Factors { left, right: &factors.right - Scale(step) * to_right },
            None => Factors::symmetric(left),
        }
    }
}

/// Where a step goes.
struct Directions {
    to_left: Mat<f64>,
    to_right: Option<Mat<f64>>,
    along: f64,
}

/// `⟨a, b⟩`, summed in the order of the columns.
fn inner(a: &Mat<f64>, b: &Mat<f64>) -> f64 {
    let column = |j: usize| a.col_as_slice(j).iter().zip(b.col_as_slice(j)).map(|(a, b)| a * b).sum::<f64>();
    (0..a.ncols()).map(column).sum()
}

/// `(FᵀF + λI)⁻¹`, λ a part of the mean of its diagonal.
fn inverse_gram(factor: &Mat<f64>, damping: f64) -> Result<Mat<f64>, RecoveryError> {
    let gram = multiply(factor.transpose(), factor.as_ref());
    let k = gram.nrows();
    let lambda = damping * (0..k).map(|j| gram[(j, j)]).sum::<f64>() / k as f64 + f64::MIN_POSITIVE;
    let (values, vectors) = eigenvalues(gram.as_ref())?;
    let scaled = Mat::from_fn(k, k, |i, j| vectors[(i, j)] / (values[j].max(0.0) + lambda));
    Ok(multiply(scaled.as_ref(), vectors.transpose()))
}

/// When a run ends, and when its factors are changed.
struct Judge {
    limits: Limits,
    loss: Loss,
    /// The loss of the zero matrix.
    zero: f64,
    /// The loss from which it has diverged.
    most: f64,
    best: f64,
    best_iteration: usize,
    /// The best loss that counted as progress, and when.
    mark: (f64, usize),
    /// The loss before.
    before: f64,
}

impl Judge {
    fn new(limits: Limits, loss: Loss, zero: f64) -> Judge {
        let (best, mark) = (f64::INFINITY, (f64::INFINITY, 0));
        Judge { limits, loss, zero, most: f64::INFINITY, best, best_iteration: 0, mark, before: f64::NAN }
    }

    fn stop(&mut self, iteration: usize, loss: f64) -> Option<Stop> {
        if iteration == 0 {
            self.most = DIVERGED * self.zero.max(loss).max(f64::MIN_POSITIVE);
        }
        if !loss.is_finite() || loss > self.most {
            return Some(Stop::Diverged);
        }
        if loss < self.best {
            (self.best, self.best_iteration) = (loss, iteration);
        }
        if loss < self.mark.0 * (1.0 - 1e-4) {
            self.mark = (loss, iteration);
        }
        let tolerance = self.limits.tolerance;
        if tolerance > 0.0 && self.loss.size(loss) <= tolerance * self.loss.size(self.zero) {
            return Some(Stop::Converged);
        }
        if iteration >= self.limits.iterations {
            return Some(Stop::Budget);
        }
        let waited = iteration - self.mark.1;
        (self.limits.patience.is_some_and(|patience| waited >= patience)).then_some(Stop::Stagnated)
    }

    /// Whether the moment of a change of balance has come.
    fn due(&mut self, when: When, iteration: usize, loss: f64) -> bool {
        let before = std::mem::replace(&mut self.before, loss);
        match when {
            When::Step(step) => iteration >= step,
            When::Settled => {
                loss < 1e-2 * self.zero || (loss < 0.5 * self.zero && before - loss < 1e-2 * before)
            }
        }
    }
}

impl Solver for Descent {
    fn solve(
        &self,
        problem: &Problem<'_>,
        start: &Factors,
        watch: &mut Watch<'_>,
    ) -> Result<Solution, RecoveryError> {
        self.check(problem, start)?;
        let (unit, count) = (problem.measurement.unit(), problem.measurement.count());
        let weigh = |i: usize, value: f64| self.loss.weight(value - problem.values[i], unit, count);
        let zero = problem.loss_of_zero(self.loss);
        let mut judge = Judge::new(self.limits, self.loss, zero);
        let mut stepper = Stepper::new(self.steps);
        let mut change = self.rebalance;
        let mut factors = match self.form {
            Form::Symmetric => Factors::symmetric(start.left.clone()),
            Form::Asymmetric => start.clone(),
        };
        let mut before: Option<(Factors, Vec<f64>, f64)> = None;
        let mut trace = Vec::new();
        let mut iteration = 0;
        let (stop, values, loss) = loop {
            let look = |factors: &Factors| {
                problem.measurement.pull(factors.left.as_ref(), factors.right.as_ref(), &weigh)
            };
            let mut pull = look(&factors);
            let loss = problem.loss_of(self.loss, &pull.values);
            let mut stop = judge.stop(iteration, loss);
            if stop == Some(Stop::Diverged) {
                // What was last finite is worth more than infinities.
                let (last, values, last_loss) = before.unwrap_or((factors, pull.values, loss));
                trace.push(Recorded { iteration, loss, seen: None, step: 0.0 });
                factors = last;
                break (Stop::Diverged, values, last_loss);
            }
            if iteration % self.limits.every == 0 || stop.is_some() {
                let (seen, go_on) = watch(&Moment { iteration, loss, factors: &factors });
                trace.push(Recorded { iteration, loss, seen, step: 0.0 });
                if !go_on {
                    stop = stop.or(Some(Stop::Asked));
                }
            }
            if let Some(stop) = stop {
                break (stop, pull.values, loss);
            }
            if let Some(Rebalance { beta, .. }) =
                change.filter(|change| judge.due(change.when, iteration, loss))
            {
                change = None;
                factors = factors.rebalance(beta)?;
                // The product is the same, what D is multiplied with is not.
                pull = look(&factors);
            }
            let Pull { values, left, right } = pull;
            let directions = self.directions(left, right, &factors)?;
            let Some(step) = stepper.next(loss, directions.along) else {
                break (Stop::StepVanished, values, loss);
            };
            if let Some(last) = trace.last_mut().filter(|last: &&mut Recorded| last.iteration == iteration) {
                last.step = step;
            }
            let next = self.stepped(&factors, step, &directions);
            before = Some((std::mem::replace(&mut factors, next), values, loss));
            iteration += 1;
        };
        let residual: Vec<f64> = values.iter().zip(problem.values).map(|(value, y)| value - y).collect();
        let spectrum = if loss.is_finite() { factors.spectrum()? } else { Vec::new() };
        let quality = Quality {
            loss,
            best_loss: judge.best,
            best_iteration: judge.best_iteration,
            relative_residual: if zero > 0.0 { self.loss.size(loss) / self.loss.size(zero) } else { 0.0 },
            spectrum,
        };
        Ok(Solution { factors, residual, iterations: iteration, trace, quality, stop })
    }
}
