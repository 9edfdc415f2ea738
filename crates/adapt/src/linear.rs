//! A linear layer with a slot: an ordered list of adapters on a frozen (or trained) weight.

use std::sync::Arc;

use lowrank_tensor::ops::{self, InputObserver, Observer};
use lowrank_tensor::{Device, Matrix, Tensor, Var};

use crate::AdaptError;
use crate::form::{Adapter, Effect, Layer, LowRankPath, OfProduct, as_used};

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
    /// The bias without them.
    bias: Option<Matrix>,
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
    input_observer: Option<Arc<dyn InputObserver>>,
}

impl Linear {
    /// A layer without adapters. `bias: [1, out]`.
    #[must_use]
    pub fn new(weight: Weight, bias: Option<Matrix>) -> Linear {
        Linear { weight, bias, adapters: Vec::new(), merged: None, observer: None, input_observer: None }
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

    /// Whether adapters can be switched: what [`Linear::activate`] would refuse.
    ///
    /// # Errors
    /// [`AdaptError::Merged`].
    pub fn switches(&self) -> Result<(), AdaptError> {
        self.not_merged()
    }

    /// Switches on this adapter and no other; `None` is the layer without any. One that this layer does not hold leaves it
    /// without any, too: an adapter need not change every layer.
    ///
    /// # Errors
    /// [`AdaptError::Merged`] while an adapter is merged: it cannot be switched off.
    pub fn activate(&mut self, name: Option<&str>) -> Result<(), AdaptError> {
        self.switches()?;
        for mounted in &mut self.adapters {
            mounted.enabled = name == Some(mounted.name.as_str());
        }
        Ok(())
    }

    /// Whether what is mounted and switched on can be computed at its present values.
    ///
    /// # Errors
    /// As [`Adapter::check`]; [`AdaptError::Trained`] when the weight is trained itself, and holds adapters.
    pub fn check(&self) -> Result<(), AdaptError> {
        for mounted in self.adapters.iter().filter(|mounted| mounted.enabled) {
            mounted.adapter.check(self.merged.as_ref().map_or(self.frozen()?, |merged| &merged.original))?;
        }
        Ok(())
    }

    /// Shows the layer's inputs and output gradients to an observer in every backward pass; `None` stops it.
    pub fn observe(&mut self, observer: Option<Arc<dyn Observer>>) {
        self.observer = observer;
    }

    /// Shows the layer's inputs to an observer in every forward pass in which nothing is recorded; `None` stops it.
    pub fn observe_inputs(&mut self, observer: Option<Arc<dyn InputObserver>>) {
        self.input_observer = observer;
    }

    /// Whether an observer sees this layer's inputs in forward passes.
    #[must_use]
    pub fn shows_inputs(&self) -> bool {
        self.input_observer.is_some()
    }

    /// Shows inputs `[n, in]` to the observer of inputs without a product: for a layer whose output nobody wants.
    pub fn show_inputs(&self, x: &Tensor<2>) {
        if let Some(observer) = &self.input_observer
            && !x.is_autodiff()
        {
            ops::show_inputs(x, observer);
        }
    }

    /// The layer's output. All low-rank adapters run inside the product with the weight, and so does an adapter of another
    /// kind that is alone; what several add is added up, each measured from the layer without any.
    ///
    /// An input with autodiff enabled (tracked or not) means training. Without it nothing is recorded, also where the
    /// layer holds trainable tensors: a graph that nobody runs backward would keep every activation of the model.
    ///
    /// # Shapes
    /// `x: [n, in] -> [n, out]`.
    #[must_use]
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.show_inputs(&x);
        let mut y = match &self.weight {
            Weight::Frozen(weight) => self.adapted(&x, weight),
            Weight::Trained(var) => self.with_bias(ops::dense(x.clone(), as_used(var.tensor(), &x))),
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

    /// `x Wᵀ + b` with everything that is mounted and switched on.
    fn adapted(&self, x: &Tensor<2>, weight: &Matrix) -> Tensor<2> {
        let enabled: Vec<&dyn Adapter> =
            self.adapters.iter().filter(|mounted| mounted.enabled).map(|mounted| &*mounted.adapter).collect();
        let bias = self.bias.as_ref();
        // Adapters see the layer without those that are merged, so that each adds what it adds alone.
        let layer = match &self.merged {
            Some(merged) => Layer { base: &merged.original, bias: merged.bias.as_ref() },
            None => Layer { base: weight, bias },
        };
        let mut sum = Effects::default();
        for adapter in &enabled {
            sum.add(adapter.effect(layer, x), x);
        }
        let path = sum.path();
        if enabled.len() == 1 && self.merged.is_none() {
            match sum.inputs.pop() {
                Some((input, None)) => return ops::linear(as_used(input, x), weight, bias, None),
                Some((input, Some(scale))) => {
                    let product = ops::linear(as_used(input, x), weight, None, None);
                    return self.with_bias(product * as_used(scale, x));
                }
                None => {}
            }
            if let Some(change) = sum.change.take() {
                let weight = ops::composed::widen(weight, &x.device().without_autodiff());
                return self.with_bias(ops::dense(x.clone(), as_used(change + weight, x)));
            }
        }
        let mut y = if sum.outputs.is_empty() {
            ops::linear(x.clone(), weight, bias, path)
        } else {
            let product = ops::linear(x.clone(), layer.base, layer.bias, None);
            let y = match (&self.merged, path) {
                (Some(_), path) => ops::linear(x.clone(), weight, bias, path),
                (None, None) => product.clone(),
                (None, Some((left, right))) => {
                    product.clone() + ops::dense(ops::dense(x.clone(), right), left)
                }
            };
            sum.outputs.into_iter().fold(y, |y, adds| y + as_used(adds(&product), x))
        };
        for (input, scale) in sum.inputs {
            let input = as_used(input, x);
            y = match scale {
                None => y + ops::linear(input - x.clone(), layer.base, None, None),
                Some(scale) => {
                    let product = ops::linear(input, layer.base, None, None) * as_used(scale, x);
                    y + product - ops::linear(x.clone(), layer.base, None, None)
                }
            };
        }
        if let Some(change) = sum.change {
            y = y + ops::dense(x.clone(), as_used(change, x));
        }
        sum.added.into_iter().fold(y, |y, added| y + as_used(added, x))
    }

    fn with_bias(&self, y: Tensor<2>) -> Tensor<2> {
        match &self.bias {
            Some(bias) => {
                let bias = ops::composed::widen(bias, &y.device().without_autodiff());
                y + bias
            }
            None => y,
        }
    }

    /// Adds an adapter's change to the weight and the bias, which become f32, behind those merged before; the adapter is switched off
    /// until [`Linear::unmerge`].
    ///
    /// # Errors
    /// [`AdaptError::Unknown`], [`AdaptError::Trained`], or [`AdaptError::Merged`] when it is merged already.
    pub fn merge(&mut self, name: &str) -> Result<(), AdaptError> {
        self.not_in_the_weight(name)?;
        let index = self.position(name)?;
        let weight = self.frozen()?.clone();
        let enabled = std::mem::replace(&mut self.adapters[index].enabled, false);
        let bias = self.bias.clone();
        let merged =
            self.merged.get_or_insert_with(|| Merged { original: weight, bias, adapters: Vec::new() });
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

    /// Makes weight and bias from the originals and the adapters that are merged, or the originals again if none is.
    fn make_weight(&mut self) {
        let Some(merged) = self.merged.take() else { return };
        if merged.adapters.is_empty() {
            self.weight = Weight::Frozen(merged.original);
            self.bias = merged.bias;
            return;
        }
        // Always from the original: taking a change out by subtraction would leave its rounding behind.
        let mut values = merged.original.to_f32();
        let mut bias: Option<Vec<f32>> = None;
        for (name, _) in &merged.adapters {
            let Some(mounted) = self.adapters.iter().find(|mounted| mounted.name == *name) else {
                unreachable!("a merged adapter cannot be unmounted: {name}")
            };
            add(&mut values, &mounted.adapter.delta(&merged.original));
            if let Some(original) = &merged.bias
                && let Some(change) = mounted.adapter.bias_delta(original)
            {
                add(bias.get_or_insert_with(|| original.to_f32()), &change);
            }
        }
        let sum = |values, of: &Matrix| match Matrix::from_f32(values, of.shape()) {
            Ok(sum) => sum,
            Err(error) => unreachable!("a sum of matrices of one shape has that shape: {error}"),
        };
        self.weight = Weight::Frozen(sum(values, &merged.original));
        self.bias = match (bias, &merged.bias) {
            (Some(bias), Some(original)) => Some(sum(bias, original)),
            (_, original) => original.clone(),
        };
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

fn add(to: &mut [f32], change: &[f32]) {
    assert_eq!(to.len(), change.len(), "a change has the shape of what it changes");
    to.iter_mut().zip(change).for_each(|(value, change)| *value += change);
}

/// What the adapters of a layer do to one product, by kind.
#[derive(Default)]
struct Effects<'a> {
    lefts: Vec<Tensor<2>>,
    rights: Vec<Tensor<2>>,
    inputs: Vec<(Tensor<2>, Option<Tensor<2>>)>,
    change: Option<Tensor<2>>,
    added: Vec<Tensor<2>>,
    outputs: Vec<OfProduct<'a>>,
}

impl<'a> Effects<'a> {
    fn add(&mut self, effect: Effect<'a>, x: &Tensor<2>) {
        match effect {
            Effect::LowRank(LowRankPath { left, right }) => {
                self.lefts.push(as_used(left, x));
                self.rights.push(as_used(right, x));
            }
            Effect::Input { input, scale } => self.inputs.push((input, scale)),
            Effect::Added(added) => self.added.push(added),
            Effect::Dense(change) => {
                self.change = Some(match self.change.take() {
                    Some(sum) => sum + change,
                    None => change,
                });
            }
            Effect::Output(adds) => self.outputs.push(adds),
        }
    }

    /// One low-rank path for all that are one, side by side.
    fn path(&mut self) -> Option<(Tensor<2>, Tensor<2>)> {
        let (mut lefts, mut rights) = (std::mem::take(&mut self.lefts), std::mem::take(&mut self.rights));
        match lefts.len() {
            0 => None,
            1 => lefts.pop().zip(rights.pop()),
            _ => Some((Tensor::cat(lefts, 1), Tensor::cat(rights, 0))),
        }
    }
}
