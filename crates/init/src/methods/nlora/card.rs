//! What NLoRA is and the choices it takes.

use lowrank_record::{Card, Choice, Kind, Need, Promise, Source};

use crate::Named;

/// What stands between the factors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Block {
    /// The block of the weight itself.
    Raw,
    /// Its pseudo-inverse, over the scale.
    Pinv,
}

/// Which rows or columns of the weight are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pick {
    /// The first r.
    First,
    /// A random r of them, in their order.
    Random,
    /// Those that elimination (rows) or column-pivoted QR (columns) finds most independent.
    Pivoted,
}

/// What happens to the base.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Residual {
    /// It gives up the start.
    Subtract,
    /// Nothing: the function changes.
    None,
}

impl Named for Block {
    const NAMES: &'static [(&'static str, Self)] = &[("raw", Block::Raw), ("pinv", Block::Pinv)];
}

impl Named for Pick {
    const NAMES: &'static [(&'static str, Self)] =
        &[("first", Pick::First), ("random", Pick::Random), ("pivoted", Pick::Pivoted)];
}

impl Named for Residual {
    const NAMES: &'static [(&'static str, Self)] =
        &[("subtract", Residual::Subtract), ("none", Residual::None)];
}

pub(super) static CARD: Card = Card {
    name: "nlora",
    kind: Kind::Initialiser,
    summary: "left = r columns of W, right = r rows of W, core = the block where they cross or its pseudo-inverse (Nystrom); the \
              base gives up scale * left * core * right",
    source: Source {
        authors: "Guo, Chang, Wu",
        title: "NLoRA: Nystrom-Initiated Low-Rank Adaptation for Large Language Models",
        year: 2025,
        link: "https://arxiv.org/abs/2502.14482",
    },
    needs: &[Need::Weight],
    promise: Promise::Exact,
    choices: &[
        Choice {
            name: "core",
            default: "raw",
            values: "raw | pinv",
            meaning: "the block as the authors' code has it, or its pseudo-inverse over the scale, as an approximation of W has it",
        },
        Choice {
            name: "rcond",
            default: "0.1",
            values: "a number above 0 and below 1",
            meaning: "of pinv: singular values up to this part of the largest are not inverted; smaller is nearer to exact on the \
                      rows and columns taken, and much larger elsewhere (below 0.01 is not advised)",
        },
        Choice {
            name: "rows",
            default: "first",
            values: "first | random | pivoted",
            meaning: "rows of W in right: the first r, random ones, or pivot rows of elimination over the columns taken",
        },
        Choice {
            name: "columns",
            default: "first",
            values: "first | random | pivoted",
            meaning: "columns of W in left: the first r, random ones, or pivot columns of QR (over the rows taken, unless those \
                      are pivoted too)",
        },
        Choice {
            name: "residual",
            default: "subtract",
            values: "subtract | none",
            meaning: "whether the base gives up the start; none is the authors' code, and changes the function at step 0",
        },
        Choice {
            name: "balanced",
            default: "false",
            values: "true | false",
            meaning: "split the core's singular values between the factors and leave the identity between them",
        },
    ],
    notes: &[
        "the authors' released code is core = raw, residual = none: it takes no pseudo-inverse and subtracts nothing, so the \
         function changes at step 0, the more the larger the rank and the weight",
        "raw is not divided by the scale, as in the authors' code; pinv is, so that the start approximates W at any scale",
        "the first rows and columns mean nothing: of a query projection they are the first head",
        "with a form that trains the core alone (IntTune), the start taken back, no weight decay and unbalanced factors, raw and pinv \
         give the same run",
    ],
};
