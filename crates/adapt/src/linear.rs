//! A linear layer with a slot: an ordered list of adapters on a frozen (or trained) weight.

use std::sync::Arc;

use lowrank_tensor::ops::{self, Observer};
use lowrank_tensor::{Device, Matrix, Tensor, Var};

use crate::form::{AdaptError, Adapter, LowRankPath};

/// The weight of a layer.
#[derive(Debug, Clone)]
pub enum Weight {
    /// As stored in the model; no gradient for it is ever computed.
    Frozen(Matrix),
    /// Trained itself: pretraining and fully tuned sites.
    Trained(Var),
}

impl Weight {
    /// Bytes as it is held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Weight::Frozen(matrix) => matrix.bytes(),
            Weight::Trained(var) => size_of::<f32>() * var.shape().iter().product::<usize>(),
        }
    }
}

/// An adapter in a slot.
pub struct Mounted {
    /// The name by which it is switched, merged and removed.
    pub name: String,
    /// Whether it takes part in the forward.
    pub enabled: bool,
    /// The change.
    pub adapter: Box<dyn Adapter>,
}

/// What [`Linear::merge`] changed: there is at least one adapter in the weight.
struct Merged {
    /// The weight without them.
    original: Matrix,
    /// The adapters in the weight in the order in which they were merged, and whether each was switched on.
    adapters: Vec<(String, bool)>,
}

/// `y = x Wᵀ + b + Σ adapters`, W `[out, in]`.
pub struct Linear {
    weight: Weight,
    bias: Option<Matrix>,
    adapters: Vec<Mounted>,
    merged: Option<Merged>,
    observer: Option<Arc<dyn Observer>>,
}

impl Linear {
    /// A layer without adapters. `bias: [1, out]`.
    #[must_use]
    pub fn new(weight: Weight, bias: Option<Matrix>) -> Linear {
        Linear { weight, bias, adapters: Vec::new(), merged: None, observer: None }
    }

    /// `[out, in]`.
    #[must_use]
    pub fn shape(&self) -> [usize; 2] {
        match &self.weight {
            Weight::Frozen(matrix) => matrix.shape(),
            Weight::Trained(var) => var.shape(),
        }
    }

    /// The weight as it is now.
    #[must_use]
    pub fn weight(&self) -> &Weight {
        &self.weight
    }

    /// The frozen weight.
    ///
    /// # Errors
    /// [`AdaptError::Trained`] when the weight is trained itself.
    pub fn frozen(&self) -> Result<&Matrix, AdaptError> {
        match &self.weight {
            Weight::Frozen(matrix) => Ok(matrix),
            Weight::Trained(_) => Err(AdaptError::Trained),
        }
    }

    /// The bias `[1, out]`, if the layer has one.
    #[must_use]
    pub fn bias(&self) -> Option<&Matrix> {
        self.bias.as_ref()
    }

    /// The adapters in the order in which they were mounted.
    #[must_use]
    pub fn adapters(&self) -> &[Mounted] {
        &self.adapters
    }

    /// Whether an adapter of this name could be mounted, and, where it brings a base of its own, whether that could take
    /// the weight's place: what [`Linear::mount`] and [`Linear::replace_weight`] would refuse, known before either is called.
    ///
    /// # Errors
    /// As these two.
    pub fn admits(&self, name: &str, replaces_weight: bool) -> Result<(), AdaptError> {
        self.frozen()?;
        if self.position(name).is_ok() {
            return Err(AdaptError::Taken(name.to_owned()));
        }
        if replaces_weight { self.not_merged() } else { Ok(()) }
    }

    /// Puts another frozen weight of the same shape in (a base with the start taken out, a quantised copy).
    ///
    /// # Errors
    /// [`AdaptError::Trained`], or [`AdaptError::Merged`]: unmerging would undo it.
    ///
    /// # Panics
    /// Panics when the shapes differ.
    pub fn replace_weight(&mut self, weight: Matrix) -> Result<(), AdaptError> {
        assert_eq!(weight.shape(), self.shape(), "a replaced weight keeps its shape");
        self.frozen()?;
        self.not_merged()?;
        self.weight = Weight::Frozen(weight);
        Ok(())
    }

    /// Whether an observer sees this layer's inputs and output gradients.
    #[must_use]
    pub fn is_observed(&self) -> bool {
        self.observer.is_some()
    }

    /// Mounts an adapter behind those already there.
    ///
    /// # Errors
    /// [`AdaptError::Taken`] when the name is in use, [`AdaptError::Trained`] when the weight is trained itself.
    pub fn mount(&mut self, name: &str, adapter: Box<dyn Adapter>) -> Result<(), AdaptError> {
        self.admits(name, false)?;
        self.adapters.push(Mounted { name: name.to_owned(), enabled: true, adapter });
        Ok(())
    }

    /// Takes an adapter out of the slot.
    ///
    /// # Errors
    /// [`AdaptError::Unknown`] when there is none of this name, [`AdaptError::Merged`] while it is merged.
    pub fn unmount(&mut self, name: &str) -> Result<Mounted, AdaptError> {
        self.not_in_the_weight(name)?;
        let index = self.position(name)?;
        Ok(self.adapters.remove(index))
    }

    /// Switches an adapter on or off.
    ///
    /// # Errors
    /// [`AdaptError::Unknown`] when there is none of this name, [`AdaptError::Merged`] while it is merged.
    pub fn enable(&mut self, name: &str, enabled: bool) -> Result<(), AdaptError> {
        self.not_in_the_weight(name)?;
        let index = self.position(name)?;
        self.adapters[index].enabled = enabled;
        Ok(())
    }

    /// Shows the layer's inputs and output gradients to an observer in every backward pass; `None` stops it.
    pub fn observe(&mut self, observer: Option<Arc<dyn Observer>>) {
        self.observer = observer;
    }

    /// The layer's output. All low-rank adapters run inside the product with the weight.
    ///
    /// An input with autodiff enabled (tracked or not) means training. Without it nothing is recorded, also where the
    /// layer holds trainable tensors: a graph that nobody runs backward would keep every activation of the model.
    ///
    /// # Shapes
    /// `x: [n, in] -> [n, out]`.
    #[must_use]
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let training = x.is_autodiff();
        let as_used = |tensor: Tensor<2>| if training { tensor } else { tensor.inner() };
        let mut y = match &self.weight {
            Weight::Frozen(weight) => {
                let (path, others) = self.paths();
                let path = path.map(|(left, right)| (as_used(left), as_used(right)));
                let mut y = ops::linear(x.clone(), weight, self.bias.as_ref(), path);
                for adapter in others {
                    y = y + as_used(adapter.apply(weight, &x));
                }
                y
            }
            Weight::Trained(var) => {
                let y = ops::dense(x.clone(), as_used(var.tensor()));
                match &self.bias {
                    Some(bias) => {
                        let bias = ops::composed::widen(bias, &y.device().without_autodiff());
                        y + bias
                    }
                    None => y,
                }
            }
        };
        // A layer below the first adapter is not tracked and has no gradient to show, unless the model was asked to
        // track its hidden states (evidence collection does).
        if let Some(observer) = &self.observer
            && y.is_tracked()
        {
            y = ops::tap(x, y, Arc::clone(observer));
        }
        y
    }

    /// Adds an adapter's change to the weight, which becomes f32, behind those merged before; the adapter is switched off
    /// until [`Linear::unmerge`].
    ///
    /// # Errors
    /// [`AdaptError::Unknown`], [`AdaptError::Trained`], or [`AdaptError::Merged`] when it is merged already.
    pub fn merge(&mut self, name: &str) -> Result<(), AdaptError> {
        self.not_in_the_weight(name)?;
        let index = self.position(name)?;
        let weight = self.frozen()?.clone();
        let enabled = std::mem::replace(&mut self.adapters[index].enabled, false);
        let merged = self.merged.get_or_insert_with(|| Merged { original: weight, adapters: Vec::new() });
        merged.adapters.push((name.to_owned(), enabled));
        self.make_weight();
        Ok(())
    }

    /// Takes a merged adapter out again, in any order, and switches it on or off as it was. The weight is then what merging
    /// the others alone would have made; with the last one out it is the original, bit for bit.
    ///
    /// # Errors
    /// [`AdaptError::Unknown`] when this adapter is not merged.
    pub fn unmerge(&mut self, name: &str) -> Result<(), AdaptError> {
        let unknown = || AdaptError::Unknown(name.to_owned());
        let merged = self.merged.as_mut().ok_or_else(unknown)?;
        let place = merged.adapters.iter().position(|(held, _)| held == name).ok_or_else(unknown)?;
        let (_, enabled) = merged.adapters.remove(place);
        self.make_weight();
        self.enable(name, enabled)
    }

    /// Makes the weight from the original and the adapters that are merged, or the original again if none is.
    fn make_weight(&mut self) {
        let Some(merged) = self.merged.take() else { return };
        if merged.adapters.is_empty() {
            self.weight = Weight::Frozen(merged.original);
            return;
        }
        // Always from the original: taking a change out by subtraction would leave its rounding behind.
        let mut values = merged.original.to_f32();
        for (name, _) in &merged.adapters {
            let Some(mounted) = self.adapters.iter().find(|mounted| mounted.name == *name) else {
                unreachable!("a merged adapter cannot be unmounted: {name}")
            };
            for (value, change) in values.iter_mut().zip(mounted.adapter.delta(&merged.original)) {
                *value += change;
            }
        }
        let Ok(sum) = Matrix::from_f32(values, merged.original.shape()) else {
            unreachable!("a sum of matrices of one shape has that shape")
        };
        self.weight = Weight::Frozen(sum);
        self.merged = Some(merged);
    }

    /// Makes the weight trainable, widened to f32, for pretraining; returns its variable.
    ///
    /// # Errors
    /// [`AdaptError::Adapted`] while the layer holds adapters.
    pub fn train_weight(&mut self, device: &Device) -> Result<Var, AdaptError> {
        if !self.adapters.is_empty() {
            return Err(AdaptError::Adapted);
        }
        let var = match &self.weight {
            Weight::Trained(var) => var.clone(),
            Weight::Frozen(matrix) => Var::new(matrix.to_f32(), matrix.shape(), device),
        };
        self.weight = Weight::Trained(var.clone());
        Ok(var)
    }

    /// One low-rank path for all enabled adapters that are one, side by side, and the other enabled adapters.
    fn paths(&self) -> (Option<(Tensor<2>, Tensor<2>)>, Vec<&dyn Adapter>) {
        let (mut lefts, mut rights, mut others) = (Vec::new(), Vec::new(), Vec::new());
        for mounted in self.adapters.iter().filter(|mounted| mounted.enabled) {
            match mounted.adapter.low_rank() {
                Some(LowRankPath { left, right }) => {
                    lefts.push(left);
                    rights.push(right);
                }
                None => others.push(&*mounted.adapter),
            }
        }
        let path = match lefts.len() {
            0 => None,
            1 => lefts.pop().zip(rights.pop()),
            _ => Some((Tensor::cat(lefts, 1), Tensor::cat(rights, 0))),
        };
        (path, others)
    }

    fn not_merged(&self) -> Result<(), AdaptError> {
        match self.merged.as_ref().and_then(|merged| merged.adapters.first()) {
            Some((name, _)) => Err(AdaptError::Merged(name.clone())),
            None => Ok(()),
        }
    }

    fn not_in_the_weight(&self, name: &str) -> Result<(), AdaptError> {
        let merged = self.merged.iter().flat_map(|merged| &merged.adapters);
        if merged.into_iter().any(|(held, _)| held == name) {
            return Err(AdaptError::Merged(name.to_owned()));
        }
        Ok(())
    }

    fn position(&self, name: &str) -> Result<usize, AdaptError> {
        self.adapters
            .iter()
            .position(|mounted| mounted.name == name)
            .ok_or_else(|| AdaptError::Unknown(name.to_owned()))
    }
}
