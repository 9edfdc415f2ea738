//! A trainable matrix in a shared cell.

use std::sync::{Arc, PoisonError, RwLock};

use burn::tensor::{Device, Gradients, Tensor, TensorData};

use crate::to_rows;

/// A trainable matrix `[rows, cols]`: forms read its tensor, the optimiser assigns new values. Clones share the cell.
///
/// A vector (a norm's gain, a magnitude) is held as `[1, width]`.
#[derive(Debug, Clone)]
pub struct Var(Arc<RwLock<Tensor<2>>>);

impl Var {
    /// A trainable matrix from row-major values.
    #[must_use]
    pub fn new(values: Vec<f32>, shape: [usize; 2], device: &Device) -> Var {
        Var::from_data(TensorData::new(values, shape), device)
    }

    /// A trainable matrix of whatever float type `data` holds (f64 in derivative tests).
    #[must_use]
    pub fn from_data(data: TensorData, device: &Device) -> Var {
        let dtype = data.dtype();
        let tensor = Tensor::from_data(data, (&device.clone().autodiff(), dtype)).require_grad();
        Var(Arc::new(RwLock::new(tensor)))
    }

    /// The tensor to compute with; gradients reach it.
    #[must_use]
    pub fn tensor(&self) -> Tensor<2> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// `[rows, cols]`.
    #[must_use]
    pub fn shape(&self) -> [usize; 2] {
        self.tensor().dims()
    }

    /// The current values, row-major.
    #[must_use]
    pub fn values(&self) -> Vec<f32> {
        to_rows(self.tensor())
    }

    /// Puts new values in; the shape stays.
    ///
    /// # Panics
    /// Panics when the number of values is not `rows · cols`.
    pub fn assign(&self, values: Vec<f32>) {
        let mut cell = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let (shape, device, dtype) = (cell.dims(), cell.device(), cell.dtype());
        assert_eq!(values.len(), shape[0] * shape[1], "values for a matrix of shape {shape:?}");
        *cell = Tensor::from_data(TensorData::new(values, shape).convert_dtype(dtype), (&device, dtype))
            .require_grad();
    }

    /// Takes the gradient that a backward pass left for this matrix, row-major; `None` when none reached it.
    #[must_use]
    pub fn take_gradient(&self, gradients: &mut Gradients) -> Option<Tensor<2>> {
        self.tensor().grad_remove(gradients)
    }
}
