//! The bridge between a fused operation and the engine: written once, so that an operation is only its forward and
//! its backward on row-major CPU tensors.
//!
//! The engine's extension macro routes `FusedBackend` to the CPU backend or to its autodiff wrapper; the wrapper
//! records one step whose backward calls [`Fused::backward`]. Gradients of untracked inputs (a frozen weight, a
//! hidden state below the first adapter) are neither asked for nor computed.

use std::fmt::Debug;
use std::sync::Arc;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, NodeGuard, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::tensor::{Tensor, TensorData};

use crate::kernels::Real;

pub use burn::backend::flex::FlexTensor;

/// A fused operation on CPU tensors with a hand-written backward.
///
/// The struct that implements it holds the constants of one call (a frozen weight, a layout); the tensors come as
/// `inputs`, contiguous.
pub trait Fused: Debug + Send + Sync + 'static {
    /// The result, and whatever the backward wants to see again. `keep` is false when nothing is tracked, so that
    /// inference saves nothing.
    fn forward(&self, inputs: &[FlexTensor], keep: bool) -> (FlexTensor, Vec<FlexTensor>);

    /// The gradient of each input for which `wanted` is true, from the gradient of the result.
    fn backward(&self, grad: FlexTensor, saved: Vec<FlexTensor>, wanted: &[bool]) -> Vec<Option<FlexTensor>>;
}

/// A shared fused operation.
pub type Operation = Arc<dyn Fused>;

/// The extension that the engine dispatches: operations of one to three tensors.
#[backend_extension(Flex, Autodiff)]
pub trait FusedBackend: Backend {
    /// Runs a fused operation of one tensor.
    fn fused1(a: FloatTensor<Self>, operation: Operation) -> FloatTensor<Self>;
    /// Runs a fused operation of two tensors.
    fn fused2(a: FloatTensor<Self>, b: FloatTensor<Self>, operation: Operation) -> FloatTensor<Self>;
    /// Runs a fused operation of three tensors.
    fn fused3(
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        c: FloatTensor<Self>,
        operation: Operation,
    ) -> FloatTensor<Self>;
}

impl FusedBackend for Flex {
    fn fused1(a: FlexTensor, operation: Operation) -> FlexTensor {
        operation.forward(&[a.to_contiguous()], false).0
    }
    fn fused2(a: FlexTensor, b: FlexTensor, operation: Operation) -> FlexTensor {
        operation.forward(&[a.to_contiguous(), b.to_contiguous()], false).0
    }
    fn fused3(a: FlexTensor, b: FlexTensor, c: FlexTensor, operation: Operation) -> FlexTensor {
        operation.forward(&[a.to_contiguous(), b.to_contiguous(), c.to_contiguous()], false).0
    }
}

impl<C: CheckpointStrategy> FusedBackend for Autodiff<Flex, C> {
    fn fused1(a: FloatTensor<Self>, operation: Operation) -> FloatTensor<Self> {
        let (a, node) = a.into_parts();
        record::<C, 1>([a], [node], operation)
    }
    fn fused2(a: FloatTensor<Self>, b: FloatTensor<Self>, operation: Operation) -> FloatTensor<Self> {
        let ((a, node_a), (b, node_b)) = (a.into_parts(), b.into_parts());
        record::<C, 2>([a, b], [node_a, node_b], operation)
    }
    fn fused3(
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        c: FloatTensor<Self>,
        operation: Operation,
    ) -> FloatTensor<Self> {
        let ((a, node_a), (b, node_b), (c, node_c)) = (a.into_parts(), b.into_parts(), c.into_parts());
        record::<C, 3>([a, b, c], [node_a, node_b, node_c], operation)
    }
}

/// Runs the forward and, if any input is tracked, records the backward.
fn record<C: CheckpointStrategy, const N: usize>(
    inputs: [FlexTensor; N],
    nodes: [NodeGuard; N],
    operation: Operation,
) -> FloatTensor<Autodiff<Flex, C>> {
    let inputs = inputs.map(|input| input.to_contiguous());
    match Step::<N>.prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prepared) => {
            let (output, saved) = operation.forward(&inputs, true);
            prepared.finish((operation, saved), output)
        }
        OpsKind::UnTracked(prepared) => prepared.finish(operation.forward(&inputs, false).0),
    }
}

#[derive(Debug)]
struct Step<const N: usize>;

impl<const N: usize> Backward<Flex, N> for Step<N> {
    type State = (Operation, Vec<FlexTensor>);

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<Flex>(&ops.node).to_contiguous();
        let wanted = ops.parents.each_ref().map(Option::is_some);
        let (operation, saved) = ops.state;
        let gradients = operation.backward(grad, saved, &wanted);
        assert_eq!(gradients.len(), N, "{operation:?} returned a gradient list of the wrong length");
        for (parent, gradient) in ops.parents.into_iter().zip(gradients) {
            if let (Some(parent), Some(gradient)) = (parent, gradient) {
                grads.register::<Flex>(parent.id, gradient);
            }
        }
    }
}

/// Runs a fused operation of one tensor on the CPU.
pub fn run1<const A: usize, const O: usize>(a: Tensor<A>, operation: impl Fused) -> Tensor<O> {
    Tensor::from_dispatch(<Dispatch as FusedBackend>::fused1(a.into_dispatch(), Arc::new(operation)))
}

/// Runs a fused operation of two tensors on the CPU.
pub fn run2<const A: usize, const B: usize, const O: usize>(
    a: Tensor<A>,
    b: Tensor<B>,
    operation: impl Fused,
) -> Tensor<O> {
    let operation = Arc::new(operation);
    Tensor::from_dispatch(<Dispatch as FusedBackend>::fused2(a.into_dispatch(), b.into_dispatch(), operation))
}

/// Runs a fused operation of three tensors on the CPU.
pub fn run3<const A: usize, const B: usize, const C: usize, const O: usize>(
    a: Tensor<A>,
    b: Tensor<B>,
    c: Tensor<C>,
    operation: impl Fused,
) -> Tensor<O> {
    Tensor::from_dispatch(<Dispatch as FusedBackend>::fused3(
        a.into_dispatch(),
        b.into_dispatch(),
        c.into_dispatch(),
        Arc::new(operation),
    ))
}

/// The values of a contiguous tensor.
///
/// # Panics
/// Panics when the tensor is not contiguous or not of type `T`: the bridge makes inputs contiguous, and an operation
/// asks for the type that it was called with.
#[allow(clippy::panic)]
pub fn values<T: Real>(tensor: &FlexTensor) -> &[T] {
    match tensor.as_slice::<T>() {
        Some(values) => values,
        None => panic!("expected contiguous values, found {tensor:?}"),
    }
}

/// A tensor of `shape` from row-major values, without a copy.
pub fn tensor<T: Real>(values: Vec<T>, shape: &[usize]) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape))
}

/// Multiplies a gradient in place by that of the loss value, which is almost always 1.
pub(crate) fn scaled<T: Real>(mut gradient: FlexTensor, by: T) -> FlexTensor {
    if by != T::ONE {
        for value in gradient.storage_mut::<T>() {
            *value *= by;
        }
    }
    gradient
}

/// Calls a generic body with the float type that the tensor holds: f32, or f64 for derivative tests.
///
/// # Panics
/// Panics on another element type: activations are f32 (or f64) by convention, see `docs/conventions.md`.
#[macro_export]
macro_rules! with_float {
    ($tensor:expr, $T:ident => $body:expr) => {
        match $tensor.dtype() {
            $crate::DType::F32 => {
                type $T = f32;
                $body
            }
            $crate::DType::F64 => {
                type $T = f64;
                $body
            }
            other => unreachable!("activations are f32 or f64, found {other:?}"),
        }
    };
}
