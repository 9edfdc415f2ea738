//! A forward pass for the sake of what its layers are fed: evidence of inputs needs no loss and no gradient.

use lowrank_tensor::ops::Layout;

use super::{Block, Decoder};
use crate::ModelError;

impl Decoder {
    /// Runs the blocks as far as a layer shows its inputs ([`lowrank_adapt::Linear::observe_inputs`]), and no further; the
    /// head shows the normed hidden states without making logits of them. Nothing is recorded.
    ///
    /// # Errors
    /// [`ModelError::Token`] or [`ModelError::Context`].
    pub fn show_inputs(&self, tokens: &[u32], layout: &Layout) -> Result<(), ModelError> {
        let head = self.head.as_ref().filter(|head| head.shows_inputs());
        let last = self.blocks.iter().rposition(Block::shows_inputs).map_or(0, |index| index + 1);
        let blocks = if head.is_some() { self.blocks.len() } else { last };
        let (layout, tables) = self.prepare(layout)?;
        let mut h = self.embed(tokens, &layout.positions)?.inner();
        for index in 0..blocks {
            h = self.block(index, h, &layout, &tables);
        }
        if let Some(head) = head {
            head.show_inputs(&self.last_norm(h));
        }
        Ok(())
    }
}

impl Block {
    /// Whether one of its layers shows its inputs.
    fn shows_inputs(&self) -> bool {
        self.linears().iter().any(|linear| linear.shows_inputs())
    }
}
