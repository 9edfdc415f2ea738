//! What a form takes on a layer, known from shapes alone: for equal parameters, predictions of memory and time, and how much of
//! a gradient a start can follow.

use crate::{Form, Offset};

/// What a form takes on one layer. The first two are exact; the others are estimates of what dominates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Footprint {
    /// Values that are trained: those of [`crate::Adapter::trainable`].
    pub trained: usize,
    /// Values that are held beside them and not trained: the other parts of [`crate::Adapter::parts`].
    pub frozen: usize,
    /// Whether a step keeps the layer's inputs for its backward pass; the product with a frozen weight does not need them.
    pub keeps_inputs: bool,
    /// Values that a step keeps for its backward pass for each token beside those.
    pub kept: usize,
    /// Values that a step forms whatever the tokens: a change of the size of the weight, rotations of blocks.
    pub formed: usize,
    /// Multiplications for each token of a forward pass; a backward pass takes twice as many.
    pub products: usize,
    /// Multiplications of a forward pass whatever the tokens.
    pub once: usize,
}

impl Footprint {
    /// Of factors of rank r through which every token goes: `r·(out + in)` multiplications, r values kept; the inputs only where the
    /// right factor is trained.
    pub(crate) fn path([out, inp]: [usize; 2], rank: usize) -> Footprint {
        Footprint { kept: rank, products: rank * (out + inp), ..Footprint::default() }
    }

    /// Of a change `[out, in]` that is formed, added to the weight, and has a gradient of its size: a product for each token in
    /// the backward pass alone.
    pub(crate) fn dense([out, inp]: [usize; 2], copies: usize) -> Footprint {
        let (formed, products) = (copies * out * inp, out * inp / 3);
        Footprint { keeps_inputs: true, formed, products, ..Footprint::default() }
    }
}

/// Which changes of the weight `[out, in]` the trained values reach from the start `left·core·right`, to first order: the
/// tangent space in which a first step lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// `A·core·right` for every A `[out, r]`, if left is trained, and `left·core·B` for every B `[r, in]`, if right is.
    Factors {
        /// Whether left is trained.
        left: bool,
        /// Whether right is.
        right: bool,
    },
    /// `left·M·right` for every M `[r, r]`.
    Core,
    /// Both of the above.
    All,
    /// Every change.
    Whole,
    /// Something that is not told here: it depends on more than the factors.
    Other,
}

/// Values that a form trains on layers of these shapes `[out, in]` and ranks.
#[must_use]
pub fn trained(form: &dyn Form, layers: impl IntoIterator<Item = ([usize; 2], usize)>) -> usize {
    layers.into_iter().map(|(shape, rank)| form.footprint(shape, rank, Offset::None).trained).sum()
}
