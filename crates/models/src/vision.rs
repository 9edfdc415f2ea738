//! ViT, DeiT and DINOv2: patches as tokens, bidirectional attention, pre-norm blocks, and a classifier.
//!
//! The patches of an image, each multiplied with one matrix, behind one or two learned tokens, and the positions added; layer
//! by layer `h ← h + output(attention(norm h))`, then `h ← h + outer(gelu(inner(norm h)))`, in DINOv2 each branch times a
//! vector; a last norm; the head sees the first token (DINOv2: and the mean of the patches). Hidden states are `[n, hidden]`
//! with `n = batch · (tokens + patches)`. Sources: [`Family`].

pub mod config;
mod images;
mod load;
pub mod names;
mod positions;

use lowrank_adapt::Linear;
use lowrank_record::Seed;
use lowrank_tensor::ops::{self, FullAttention};
use lowrank_tensor::{Device, Gradients, Matrix, Tensor, from_rows};

pub use config::{Config, Family};
pub use images::{Batch, Images};
pub use load::Purpose;
use names::Naming;

use crate::checkpoint::Checkpoint;
use crate::network::{self, Network};
use crate::norm::LayerNorm;
use crate::{ModelError, Passed, Recompute};

/// A vision transformer whose linear layers hold slots.
pub struct Vision {
    /// Shape and constants.
    pub config: Config,
    device: Device,
    /// What stands before the names of the layers: `vit.`, `deit.` or `dinov2.`, or nothing where the network is a base alone.
    prefix: String,
    /// `[hidden, channels · rows · columns]`: the kernels of the patch convolution. Its bias is `[1, hidden]`.
    projection: Matrix,
    projection_bias: Matrix,
    /// The tokens in front of the patches, `[tokens, hidden]`.
    first: Vec<f32>,
    /// `[tokens + patches, hidden]`.
    positions: Vec<f32>,
    /// The blocks, first to last.
    pub blocks: Vec<Block>,
    norm: LayerNorm,
    head: Head,
    /// Whether no file held the head.
    drawn: bool,
}

/// One layer of the network.
pub struct Block {
    before: LayerNorm,
    /// `[hidden, hidden]`.
    pub query: Linear,
    /// `[hidden, hidden]`.
    pub key: Linear,
    /// `[hidden, hidden]`.
    pub value: Linear,
    /// `[hidden, hidden]`.
    pub output: Linear,
    /// `[1, hidden]`.
    attention_scale: Option<Tensor<2>>,
    after: LayerNorm,
    /// `[intermediate, hidden]`.
    pub inner: Linear,
    /// `[hidden, intermediate]`.
    pub outer: Linear,
    /// `[1, hidden]`.
    mlp_scale: Option<Tensor<2>>,
}

/// What a network answers, its layers with their names.
enum Head {
    Features,
    Classify((String, Linear)),
    /// The mean of what is made of the class token and of what is made of the distillation token; the loss is that of the
    /// mean (the authors train the second against a teacher, which is not here).
    Distilled {
        class: (String, Linear),
        distillation: (String, Linear),
    },
}

/// Width of what the head sees.
fn features(config: &Config) -> usize {
    if config.family == Family::Dinov2 { 2 * config.hidden } else { config.hidden }
}

impl Block {
    /// The linear layers in the order of [`names::LINEARS`].
    #[must_use]
    pub fn linears(&self) -> [&Linear; 6] {
        [&self.query, &self.key, &self.value, &self.output, &self.inner, &self.outer]
    }

    /// The linear layers in the order of [`names::LINEARS`], to mount adapters on.
    pub fn linears_mut(&mut self) -> [&mut Linear; 6] {
        [&mut self.query, &mut self.key, &mut self.value, &mut self.output, &mut self.inner, &mut self.outer]
    }
}

impl Head {
    fn linears(&self) -> Vec<&(String, Linear)> {
        match self {
            Head::Features => vec![],
            Head::Classify(layer) => vec![layer],
            Head::Distilled { class, distillation } => vec![class, distillation],
        }
    }

    fn linears_mut(&mut self) -> Vec<&mut (String, Linear)> {
        match self {
            Head::Features => vec![],
            Head::Classify(layer) => vec![layer],
            Head::Distilled { class, distillation } => vec![class, distillation],
        }
    }
}

impl Vision {
    /// The layers that know the task alone, and are trained whole beside adapters: the classifiers. PEFT's `modules_to_save`.
    #[must_use]
    pub fn task_layers(&self) -> Vec<String> {
        self.head.linears().into_iter().map(|(name, _)| name.clone()).collect()
    }

    /// Classes of the head; none without one.
    #[must_use]
    pub fn classes(&self) -> Option<usize> {
        self.head.linears().first().map(|(_, layer)| layer.shape()[0])
    }

    /// Draws a head that no file held anew, as [`Purpose::Fresh`] does with this seed; one that a file held stays.
    ///
    /// # Errors
    /// [`ModelError::Head`] for a layer that cannot be replaced: an adapter is merged into it, or it is trained.
    pub fn draw_head(&mut self, seed: Seed) -> Result<(), ModelError> {
        if !self.drawn {
            return Ok(());
        }
        let mut layers = self.head.linears_mut().into_iter();
        layers.try_for_each(|(name, linear)| Checkpoint::draw_again(name, linear, seed))
    }

    /// What the head answers: logits `[batch, labels]`, or features: the class token `[batch, hidden]`, for DINOv2 with the
    /// mean of the patches behind it `[batch, 2 · hidden]`. Inference, nothing is recorded.
    ///
    /// # Errors
    /// [`ModelError`] for images that do not fit the model.
    pub fn outputs(&self, images: &Images) -> Result<Tensor<2>, ModelError> {
        let h = self.embed(images)?.inner();
        Ok(self.answer(self.run(h, images.batch), images.batch))
    }

    /// The summed loss of a batch and the weight of the images that carry it; inference, nothing is recorded.
    ///
    /// # Errors
    /// [`ModelError`] for a batch that does not fit the model.
    pub fn evaluate(&self, batch: &Batch) -> Result<Passed, ModelError> {
        let h = self.run(self.embed(&batch.images)?.inner(), batch.images.batch);
        let (loss, weight) = self.loss(h, batch)?;
        Ok(network::end(&loss, weight, &mut |_| {}))
    }

    /// Pixels to the first hidden state `[batch · (tokens + patches), hidden]`.
    fn embed(&self, images: &Images) -> Result<Tensor<2>, ModelError> {
        let grid = images.grid(&self.config)?;
        let (hidden, batch, tokens) = (self.config.hidden, images.batch, self.config.family.tokens());
        let patches = grid[0] * grid[1];
        let rows = images.patches(&self.config, grid);
        let rows = from_rows(rows, [batch * patches, self.config.patch_values()], &self.device);
        let seen = ops::linear(rows, &self.projection, Some(&self.projection_bias), None);
        let seen: Tensor<3> = seen.reshape([batch, patches, hidden]);
        let first: Tensor<3> =
            from_rows(self.first.clone(), [tokens, hidden], &self.device).reshape([1, tokens, hidden]);
        let mut positions = self.positions.clone();
        if grid != self.config.grid() {
            let of_patches = positions.split_off(tokens * hidden);
            positions.extend(positions::interpolate(&of_patches, hidden, self.config.grid(), grid));
        }
        let positions: Tensor<3> = from_rows(positions, [tokens + patches, hidden], &self.device).reshape([
            1,
            tokens + patches,
            hidden,
        ]);
        let h = Tensor::cat(vec![first.repeat_dim(0, batch), seen], 1) + positions;
        Ok(h.reshape([batch * (tokens + patches), hidden]))
    }

    /// All blocks and the last norm: `[n, hidden] -> [n, hidden]`.
    fn run(&self, h: Tensor<2>, batch: usize) -> Tensor<2> {
        let attention = self.attention(batch, h.dims()[0]);
        let h = self.blocks.iter().fold(h, |h, block| self.block(block, h, &attention));
        self.norm.apply(h)
    }

    /// Every token of an image sees every other: `n` rows of `batch` images.
    fn attention(&self, batch: usize, n: usize) -> FullAttention {
        let heads = self.config.heads;
        FullAttention::dense(batch, n / batch, heads, self.config.hidden / heads)
    }

    fn block(&self, block: &Block, h: Tensor<2>, attention: &FullAttention) -> Tensor<2> {
        let scaled = |branch: Tensor<2>, scale: &Option<Tensor<2>>| match scale {
            None => branch,
            Some(scale) => branch * scale.clone(),
        };
        let x = block.before.apply(h.clone());
        let (q, k) = (block.query.forward(x.clone()), block.key.forward(x.clone()));
        let v = block.value.forward(x);
        let attended = block.output.forward(ops::attention_full(q, k, v, attention));
        let h = h + scaled(attended, &block.attention_scale);
        let inner = self.config.activation.apply(block.inner.forward(block.after.apply(h.clone())));
        h + scaled(block.outer.forward(inner), &block.mlp_scale)
    }

    /// What the head makes of the last hidden states: `[n, hidden] -> [batch, labels]` or the features.
    fn answer(&self, h: Tensor<2>, batch: usize) -> Tensor<2> {
        let (hidden, time) = (self.config.hidden, h.dims()[0] / batch);
        let h: Tensor<3> = h.reshape([batch, time, hidden]);
        let token = |index: usize| -> Tensor<2> { h.clone().narrow(1, index, 1).reshape([batch, hidden]) };
        let mut seen = token(0);
        if self.config.family == Family::Dinov2 {
            let patches = h.clone().narrow(1, 1, time - 1).mean_dim(1).reshape([batch, hidden]);
            seen = Tensor::cat(vec![seen, patches], 1);
        }
        match &self.head {
            Head::Features => seen,
            Head::Classify((_, layer)) => layer.forward(seen),
            Head::Distilled { class, distillation } => {
                (class.1.forward(seen) + distillation.1.forward(token(1))) * 0.5
            }
        }
    }

    fn loss(&self, h: Tensor<2>, batch: &Batch) -> Result<(Tensor<1>, f64), ModelError> {
        let count = batch.images.batch;
        let Some((_, layer)) = self.head.linears().into_iter().next() else {
            return Err(ModelError::Labels { asked: "classes", given: "features" });
        };
        network::classes_fit(&batch.targets, count, layer.shape()[0])?;
        let loss = ops::cross_entropy_of_logits(self.answer(h, count), &batch.targets)?;
        Ok((loss, network::weight_of(&batch.targets)))
    }
}

impl Network for Vision {
    type Batch = Batch;

    fn sites(&self) -> Vec<(String, &Linear)> {
        let mut sites: Vec<(String, &Linear)> = Vec::new();
        for (layer, block) in self.blocks.iter().enumerate() {
            let at = format!("{}{}", self.prefix, Naming::Modules.block(self.config.family, layer));
            let named = names::LINEARS.into_iter().zip(block.linears());
            sites.extend(named.map(|(name, linear)| (format!("{at}{name}"), linear)));
        }
        sites.extend(self.head.linears().into_iter().map(|(name, linear)| (name.clone(), linear)));
        sites
    }

    fn sites_mut(&mut self) -> Vec<(String, &mut Linear)> {
        let mut sites: Vec<(String, &mut Linear)> = Vec::new();
        for (layer, block) in self.blocks.iter_mut().enumerate() {
            let at = format!("{}{}", self.prefix, Naming::Modules.block(self.config.family, layer));
            let named = names::LINEARS.into_iter().zip(block.linears_mut());
            sites.extend(named.map(|(name, linear)| (format!("{at}{name}"), linear)));
        }
        sites.extend(self.head.linears_mut().into_iter().map(|(name, linear)| (name.clone(), linear)));
        sites
    }

    fn device(&self) -> &Device {
        &self.device
    }

    fn bytes(&self) -> usize {
        let layers = self.sites().iter().map(|(_, site)| site.weight().bytes()).sum::<usize>();
        self.projection.bytes() + size_of::<f32>() * (self.first.len() + self.positions.len()) + layers
    }

    fn gradients(
        &self,
        batch: &Batch,
        recompute: Recompute,
        track_all: bool,
        collect: &mut dyn FnMut(&mut Gradients),
    ) -> Result<Passed, ModelError> {
        let h = network::begin(self.embed(&batch.images)?, recompute, track_all, "a vision transformer")?;
        let (loss, weight) = self.loss(self.run(h, batch.images.batch), batch)?;
        Ok(network::end(&loss, weight, collect))
    }

    fn weight(&self, batch: &Batch) -> f64 {
        network::weight_of(&batch.targets)
    }

    fn show_inputs(&self, batch: &Batch) -> Result<(), ModelError> {
        let h = self.embed(&batch.images)?.inner();
        if self.head.linears().iter().any(|(_, linear)| linear.shows_inputs()) {
            self.answer(self.run(h, batch.images.batch), batch.images.batch);
            return Ok(());
        }
        let shows = |block: &Block| block.linears().iter().any(|linear| linear.shows_inputs());
        let blocks = self.blocks.iter().rposition(shows).map_or(0, |index| index + 1);
        let attention = self.attention(batch.images.batch, h.dims()[0]);
        self.blocks[..blocks].iter().fold(h, |h, block| self.block(block, h, &attention));
        Ok(())
    }

    /// The head is fed a row for each image, the blocks one for each token and patch.
    fn stream(&self, site: &str) -> usize {
        usize::from(self.head.linears().iter().any(|(name, _)| name == site))
    }
}
