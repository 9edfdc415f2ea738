//! The one door to the tensor engine (burn), and the fused operations with hand-written backward that a training
//! step on a frozen base is made of.
//!
//! * [`Tensor`], [`Device`]: the engine's own types; no other crate names the engine.
//! * [`Matrix`]: a frozen weight as it is stored (f32, bf16, f16 or GGUF blocks), widened while it is used.
//! * [`Var`]: a trainable matrix in a shared cell: the optimiser writes it, the forms read it.
//! * [`ops`]: the fused operations. On the CPU each runs a kernel of [`kernels`]; on any other device the same
//!   formula is composed from the engine's operations ([`ops::composed`]), which is also what the tests compare with.
//!
//! Activations are matrices `[tokens, width]`: the batch and time axes are flattened, and the operations that need
//! them (attention, rotary) are told the layout.

pub mod fused;
pub mod kernels;
mod matrix;
pub mod ops;
mod var;

pub use kernels::memory::keep_memory;

pub use burn::tensor::{DType, Device, Gradients, Int, Tensor, TensorData};
pub use matrix::{Matrix, MatrixError};
pub use var::Var;

/// The CPU device.
#[must_use]
pub fn cpu() -> Device {
    Device::flex()
}

/// Whether the fused CPU kernels serve this device.
#[must_use]
pub fn is_cpu(device: &Device) -> bool {
    matches!(device.clone().without_autodiff().as_dispatch(), burn::backend::DispatchDevice::Flex(_))
}

/// A matrix `[rows, cols]` on `device` from row-major values.
#[must_use]
pub fn from_rows(values: Vec<f32>, [rows, cols]: [usize; 2], device: &Device) -> Tensor<2> {
    Tensor::from_data(TensorData::new(values, [rows, cols]), device)
}

/// The row-major values of a tensor as f32, without its autodiff history.
#[must_use]
pub fn to_rows<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    let data = tensor.inner().into_data().convert::<f32>();
    data.try_into_vec::<f32>().unwrap_or_default()
}
