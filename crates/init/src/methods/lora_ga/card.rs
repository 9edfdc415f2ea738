//! What LoRA-GA is and the choices it takes.

use lowrank_record::{Card, Choice, Kind, Need, Promise, Source};

use crate::Named;

/// Whose formulas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// The paper's and the authors' code.
    Paper,
    /// PEFT.
    PeftCompat,
}

/// Which of the leading 2r directions go to which factor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// right 0..r, left r..2r.
    ArB2r,
    /// right r..2r, left 0..r.
    A2rBr,
    /// right 1, 3, …, left 0, 2, ….
    ArBr,
    /// A random half each; PEFT takes the same half twice.
    Random,
}

impl Named for Variant {
    const NAMES: &'static [(&'static str, Self)] =
        &[("paper", Variant::Paper), ("peft-compat", Variant::PeftCompat), ("peft", Variant::PeftCompat)];
}

impl Named for Direction {
    const NAMES: &'static [(&'static str, Self)] = &[
        ("arb2r", Direction::ArB2r),
        ("a2rbr", Direction::A2rBr),
        ("arbr", Direction::ArBr),
        ("random", Direction::Random),
    ];
}

pub(super) static CARD: Card = Card {
    name: "lora-ga",
    kind: Kind::Initialiser,
    summary: "left and right = different leading singular directions of the loss gradient, so that the first step of the \
              change is the best rank-2r part of a full fine-tuning step; the base gives up the start",
    source: Source {
        authors: "Wang, Yu, Li",
        title: "LoRA-GA: Low-Rank Adaptation with Gradient Approximation",
        year: 2024,
        link: "https://arxiv.org/abs/2407.05000",
    },
    needs: &[Need::Gradient],
    promise: Promise::Exact,
    choices: &[
        Choice {
            name: "variant",
            default: "paper",
            values: "paper | peft-compat",
            meaning: "the paper's formulas, or those of PEFT, which differ (left times its singular values)",
        },
        Choice {
            name: "direction",
            default: "arb2r",
            values: "arb2r | a2rbr | arbr | random",
            meaning: "which of the leading 2r directions go to right and which to left; the first step is the same for all",
        },
        Choice {
            name: "scale",
            default: "stable",
            values: "stable | gd | unit | weight-svd",
            meaning: "size of the factors: out^(1/4)/sqrt(gamma), 1/scale, 1, or the weight's (which needs the weight)",
        },
        Choice {
            name: "gamma",
            default: "16",
            values: "a positive number",
            meaning: "of the stable scale: the adapter's output has rms alpha/gamma with alpha/sqrt(r); larger is smaller",
        },
        Choice {
            name: "norm-clip",
            default: "false",
            values: "true | false",
            meaning: "shrink the start so that no entry of it exceeds the weight's largest entry (needs the weight)",
        },
        Choice {
            name: "svd",
            default: "fast",
            values: "auto | exact | fast",
            meaning: "how each layer's gradient is decomposed: fast takes 4r columns and 2 power iterations (4 for peft-compat); exact \
                      needs one calibration batch; auto is exact up to 128 on the shorter side with one batch, and fast \
                      everywhere with several, which never show a gradient whole",
        },
    ],
    notes: &[
        "use it with rank-stabilised scaling (alpha/sqrt(r)), weight decay 0, dropout 0, and a full fine-tuning rate",
        "variant = peft-compat has the formulas of PEFT, which is another method under the same name",
        "over several calibration batches every token weighs the same; the authors and PEFT average the means of batches, which \
         is another gradient where batches have unequal numbers of tokens with loss",
        "advantage over a LoRA with a tuned rate is not established; see the note of its study",
    ],
};
