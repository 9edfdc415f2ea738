//! The training loop: optimisers, schedules, accumulation, clipping, evaluation, early stopping, checkpoints, metrics,
//! exact resume.
//!
//! It knows no forms, initialisers, tensors or models: an [`Objective`] shows trainable matrices in a fixed order, and
//! for each micro-batch a loss with its gradients; [`train`] does the rest. Nothing here is random and nothing reads a
//! clock: whoever needs either gives it in (an [`Objective`] orders its data by seed, step and micro-batch; an [`Observer`]
//! draws progress bars).
//!
//! **Law:** a run interrupted at any step and resumed gives the same bits as one that never was.
//!
//! ```
//! use lowrank_train::{Evaluated, Evaluation, Failure, Group, Objective, Parameter, Run, Settings, Stop, train};
//!
//! /// ½(x − 3)², one "token" a micro-batch.
//! struct Parabola(f32);
//!
//! impl Objective for Parabola {
//!     fn parameters(&self) -> Vec<Parameter> {
//!         let (name, value) = ("x".to_owned(), vec![self.0]);
//!         vec![Parameter { name, shape: [1, 1], group: Group::Dense, decay: false, value }]
//!     }
//!     fn assign(&mut self, _: usize, value: &[f32]) -> Result<(), Failure> {
//!         self.0 = value[0];
//!         Ok(())
//!     }
//!     fn gradients(&mut self, _step: u64, _micro: u32) -> Result<Evaluated, Failure> {
//!         let error = self.0 - 3.0;
//!         let loss_sum = 0.5 * f64::from(error * error);
//!         Ok(Evaluated { loss_sum, weight: 1.0, tokens: 1, gradients: vec![vec![error]] })
//!     }
//!     fn evaluate(&mut self) -> Result<Evaluation, Failure> {
//!         Ok(Evaluation { loss_sum: 0.5 * f64::from(self.0 - 3.0).powi(2), weight: 1.0 })
//!     }
//! }
//!
//! let mut parabola = Parabola(0.0);
//! let settings = Settings { steps: 200, rate: 0.1, ..Settings::default() };
//! let outcome = train(&mut parabola, &settings, &Run::default(), &mut (), &Stop::default())?;
//! assert_eq!(outcome.steps, 200);
//! assert!((parabola.0 - 3.0).abs() < 0.01);
//! # Ok::<(), lowrank_train::TrainError>(())
//! ```

mod accumulate;
mod checkpoint;
mod clip;
mod error;
pub mod metrics;
mod objective;
mod observer;
mod optimiser;
mod persist;
mod schedule;
mod session;
mod settings;
mod trainer;

pub use checkpoint::checkpoints;
pub use clip::{clip_factor, global_norm};
pub use error::TrainError;
pub use objective::{Evaluated, Evaluation, Failure, Group, Objective, Parameter, Row, Stepped};
pub use observer::{Best, Event, Observer, Outcome, Resumed, Skipped, Step, Stop, Stopped};
pub use optimiser::{ALL, AdamW, Buffer, Method, Optimiser, OptimiserCard, Sgd, Update};
pub use schedule::{Schedule, Shape};
pub use settings::{EarlyStop, Settings};
pub use trainer::{Place, Run, train};
