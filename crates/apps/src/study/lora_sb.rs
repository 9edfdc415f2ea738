//! LoRA-SB: does a core of r² values in the bases of the first update do what LoRA does with many times as many?

use super::arm::{Arm, Part};
use super::claim::{Bound, Criterion, Role, accuracy, last};
use super::experiment::{Experiment, WIDE};

/// 16/√8.
const SCALE: f64 = 5.656_854_249_492_381;

pub(super) static STUDY: Experiment = Experiment {
    name: "lora-sb",
    title: "LoRA-SB",
    claim: "LoRA-SB, a trained r × r core between frozen bases of the first full fine-tuning update, is better than LoRA-XS and at least as \
            good as LoRA with 27 to 90 times fewer trained values.",
    question: "Is it ahead of LoRA-XS at the same number of trained values, are the update's directions the cause, and how far is it from \
               LoRA with a rank that trains six times as many?",
    equal: "the four core arms train 1408 values (core rank 24, 16 on the last layer; scale 1). LoRA of rank 8 trains 8832, which is the \
            claim's point; LoRA of rank 1 (1104) is the nearest to the core arms. A rate for each arm, since LoRA-XS carries singular values in its \
            right factor and so moves further at the same rate",
    size: WIDE,
    rates: &[1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0],
    arms: &[
        Arm::lora("lora", "kaiming", &[], 8, SCALE).part(Part::Reference),
        Arm::lora("lora, rank 1", "kaiming", &[], 1, 16.0).part(Part::Reference),
        Arm::lora("lora-xs", "lora-xs", &[("svd", "exact")], 24, 1.0).form("core", &[]),
        Arm::lora("lora-sb", "lora-sb", &[("svd", "exact")], 24, 1.0).form("core", &[]),
        Arm::lora(
            "lora-sb, gradient",
            "lora-sb",
            &[("target", "gradient"), ("core", "zero"), ("svd", "exact")],
            24,
            1.0,
        )
        .form("core", &[]),
        Arm::lora("lora-sb-control", "lora-sb-control", &[("core", "zero")], 24, 1.0)
            .form("core", &[])
            .part(Part::Control),
    ],
    criteria: &[
        Criterion {
            role: Role::Claim,
            says: "its last training loss is below LoRA-XS's",
            terms: &[last(1.0, "lora-xs"), last(-1.0, "lora-sb")],
            bound: Bound::Above(0.0),
        },
        Criterion {
            role: Role::Claim,
            says: "it gives at least one point more right answers than LoRA-XS",
            terms: &[accuracy(1.0, "lora-sb"), accuracy(-1.0, "lora-xs")],
            bound: Bound::Above(0.01),
        },
        Criterion {
            role: Role::Claim,
            says: "with a sixth of the trained values it is no more than one point behind LoRA of rank 8",
            terms: &[accuracy(1.0, "lora-sb"), accuracy(-1.0, "lora")],
            bound: Bound::Above(-0.01),
        },
        Criterion {
            role: Role::Control,
            says: "the last training loss of a core in random bases is higher",
            terms: &[last(1.0, "lora-sb-control"), last(-1.0, "lora-sb")],
            bound: Bound::Above(0.0),
        },
        Criterion {
            role: Role::Control,
            says: "a core in random bases gives fewer right answers",
            terms: &[accuracy(1.0, "lora-sb"), accuracy(-1.0, "lora-sb-control")],
            bound: Bound::Above(0.0),
        },
        Criterion {
            role: Role::Aside,
            says: "it is no more than ten points behind LoRA of rank 8",
            terms: &[accuracy(1.0, "lora-sb"), accuracy(-1.0, "lora")],
            bound: Bound::Above(-0.1),
        },
        Criterion {
            role: Role::Aside,
            says: "it gives more right answers than LoRA of rank 1, which trains about as many values",
            terms: &[accuracy(1.0, "lora-sb"), accuracy(-1.0, "lora, rank 1")],
            bound: Bound::Above(0.0),
        },
        Criterion {
            role: Role::Aside,
            says: "bases of the gradient and a core of zero (ours) end with a lower training loss than the paper's sign update",
            terms: &[last(1.0, "lora-sb"), last(-1.0, "lora-sb, gradient")],
            bound: Bound::Above(0.0),
        },
    ],
    real: &[
        Criterion {
            role: Role::Claim,
            says: "its held-out loss is below LoRA-XS's",
            terms: &[last(1.0, "lora-xs"), last(-1.0, "lora-sb")],
            bound: Bound::Above(0.0),
        },
        Criterion {
            role: Role::Claim,
            says: "its held-out loss is at most 1.005 of LoRA's",
            terms: &[last(1.005, "lora"), last(-1.0, "lora-sb")],
            bound: Bound::Above(0.0),
        },
        Criterion {
            role: Role::Claim,
            says: "it gives more right answers than LoRA-XS",
            terms: &[accuracy(1.0, "lora-sb"), accuracy(-1.0, "lora-xs")],
            bound: Bound::Above(0.0),
        },
        Criterion {
            role: Role::Control,
            says: "the held-out loss of the control is higher",
            terms: &[last(1.0, "lora-sb-control"), last(-1.0, "lora-sb")],
            bound: Bound::Above(0.0),
        },
    ],
    not_shown: &[
        "One kind of network and of shift; the bases come from the gradient of 256 rows.",
        "Ranks of 24 at widths of 64 and 256 are large parts of a layer; the paper's are small parts of wide ones.",
        "The factor of 27 to 90 fewer values: here LoRA of rank 8 trains six times as many.",
    ],
};
