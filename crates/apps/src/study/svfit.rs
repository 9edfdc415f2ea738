//! SVFit: do the singular values of a weight do what LoRA does?

use super::arm::{Arm, Part};
use super::claim::{Bound, Criterion, Role, accuracy, last};
use super::experiment::{Experiment, NARROW};

pub(super) static STUDY: Experiment = Experiment {
    name: "svfit",
    title: "SVFit",
    claim: "SVFit, which trains only the leading singular values of each weight, is better than LoRA with sixteen times fewer trained values.",
    question: "How much of what LoRA learns do all singular values learn, do the singular vectors matter, and how many values are needed?",
    equal: "nothing is: all singular values are 208, LoRA of rank 8 trains 4736 and LoRA of rank 1, its least, 592. That is the claim's point. \
            LoLDU and the control train 208 as well. Scale 1, LoRA 2",
    size: NARROW,
    rates: &[3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0],
    arms: &[
        Arm::lora("lora", "kaiming", &[], 8, 2.0).part(Part::Reference),
        Arm::lora("lora, rank 1", "kaiming", &[], 1, 2.0).part(Part::Reference),
        Arm::lora("svfit", "svfit", &[("svd", "exact")], 128, 1.0).form("diag", &[]),
        Arm::lora("svfit, rank 64", "svfit", &[("svd", "exact")], 64, 1.0).form("diag", &[]),
        Arm::lora("svfit, rank 8", "svfit", &[("svd", "exact")], 8, 1.0).form("diag", &[]),
        Arm::lora("loldu", "loldu", &[], 128, 1.0).form("diag", &[]),
        Arm::lora("svfit-control", "random-control", &[("of", "svfit"), ("with", "svd = exact")], 128, 1.0)
            .form("diag", &[])
            .part(Part::Control),
    ],
    criteria: &[
        Criterion {
            role: Role::Claim,
            says: "with 4 % of the trained values it gives more right answers than LoRA of rank 8",
            terms: &[accuracy(1.0, "svfit"), accuracy(-1.0, "lora")],
            bound: Bound::Above(0.0),
        },
        Criterion {
            role: Role::Claim,
            says: "it gains at least 55 % of what LoRA of rank 8 gains over the network before",
            terms: &[accuracy(1.0, "svfit"), accuracy(-0.55, "lora"), accuracy(-0.45, "before")],
            bound: Bound::Above(0.0),
        },
        Criterion {
            role: Role::Control,
            says: "it gives more right answers than the same values between random orthonormal vectors",
            terms: &[accuracy(1.0, "svfit"), accuracy(-1.0, "svfit-control")],
            bound: Bound::Above(0.0),
        },
        Criterion {
            role: Role::Aside,
            says: "it gives at least one point more right answers than LoLDU, which trains as many values",
            terms: &[accuracy(1.0, "svfit"), accuracy(-1.0, "loldu")],
            bound: Bound::Above(0.01),
        },
        Criterion {
            role: Role::Aside,
            says: "64 values a layer give more right answers than 8",
            terms: &[accuracy(1.0, "svfit, rank 64"), accuracy(-1.0, "svfit, rank 8")],
            bound: Bound::Above(0.0),
        },
        Criterion {
            role: Role::Aside,
            says: "all values give more right answers than 64 a layer",
            terms: &[accuracy(1.0, "svfit"), accuracy(-1.0, "svfit, rank 64")],
            bound: Bound::Above(0.0),
        },
        Criterion {
            role: Role::Aside,
            says: "it gives more right answers than LoRA of rank 1, which trains 2.8 times as many values",
            terms: &[accuracy(1.0, "svfit"), accuracy(-1.0, "lora, rank 1")],
            bound: Bound::Above(0.0),
        },
    ],
    real: &[
        Criterion {
            role: Role::Claim,
            says: "its held-out loss is below LoRA's",
            terms: &[last(1.0, "lora"), last(-1.0, "svfit")],
            bound: Bound::Above(0.0),
        },
        Criterion {
            role: Role::Claim,
            says: "it gives more right answers than LoRA",
            terms: &[accuracy(1.0, "svfit"), accuracy(-1.0, "lora")],
            bound: Bound::Above(0.0),
        },
        Criterion {
            role: Role::Control,
            says: "the held-out loss of the same values between random orthonormal vectors is higher",
            terms: &[last(1.0, "svfit-control"), last(-1.0, "svfit")],
            bound: Bound::Above(0.0),
        },
    ],
    not_shown: &[
        "The paper's tables could not be read, and the authors published no code: its setting is most likely all singular values.",
        "A diagonal moves a layer along its own singular vectors only, so what can be learnt depends on the shift, of which one kind was tried.",
        "Weights with a flat spectrum and weights of a trained language model may differ; see the studies of real models.",
    ],
};
