//! What a form decides over all its sites together, between two steps of the optimiser.

use crate::{AdaptError, Part};

/// Decides over all sites together while they are trained: which directions stay, and with what weight the penalties of the
/// adapters ([`Adapter::penalty`](crate::Adapter::penalty)) stand beside the loss. What it remembers is in [`Allocator::parts`], so
/// that a resumed run goes on as it was.
pub trait Allocator: Send {
    /// The factor of the sum of all sites' penalties beside the mean loss.
    fn penalty_weight(&self) -> f64;

    /// Sees step `step` (from 1), after the optimiser has moved the values and with the gradients that moved them, and may
    /// change the values: one entry a site, in the order in which the allocator was made.
    ///
    /// # Errors
    /// [`AdaptError::Budget`] for other sites than those.
    fn step(&mut self, step: usize, sites: &mut [Trained<'_>]) -> Result<(), AdaptError>;

    /// Everything that a resumed run needs beside the choices and the sites, in a fixed order.
    fn parts(&self) -> Vec<Part>;

    /// Takes up what [`Allocator::parts`] gave.
    ///
    /// # Errors
    /// [`AdaptError::Budget`] when a part is missing, strange, or of another size.
    fn resume(&mut self, parts: Vec<Part>) -> Result<(), AdaptError>;
}

/// What is trained at one site, in the order of [`Adapter::trainable`](crate::Adapter::trainable).
#[derive(Debug)]
pub struct Trained<'a> {
    /// The values, row-major.
    pub values: Vec<&'a mut [f32]>,
    /// The gradient of the mean loss by each, as it moved them.
    pub gradients: Vec<Vec<f32>>,
}
