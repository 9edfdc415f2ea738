//! LoLDU: does a diagonal between the factors of an elimination do what LoRA does?

use super::arm::{Arm, Part};
use super::claim::{Bound, Criterion, Role, accuracy, last};
use super::experiment::{Experiment, NARROW};

pub(super) static STUDY: Experiment = Experiment {
    name: "loldu",
    title: "LoLDU",
    claim: "LoLDU, which trains only the diagonal of W = P·L·D·U, is comparable to LoRA with thousands of times fewer trained values, \
            wherever the diagonal starts.",
    question: "How much of what LoRA learns does a diagonal of full rank learn, do the factors of the elimination matter, and does it matter \
               where the diagonal starts?",
    equal: "nothing is: a diagonal of full rank trains 208 values, LoRA of rank 8 4736 and LoRA of rank 1, its least, 592. That is the claim's \
            point. The control trains 208 as well. Scale 1, LoRA 2",
    size: NARROW,
    rates: &[1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0],
    arms: &[
        Arm::lora("lora", "kaiming", &[], 8, 2.0).part(Part::Reference),
        Arm::lora("lora, rank 1", "kaiming", &[], 1, 2.0).part(Part::Reference),
        Arm::lora("loldu", "loldu", &[], 128, 1.0).form("diag", &[]),
        Arm::lora("loldu, uniform", "loldu", &[("init", "uniform")], 128, 1.0).form("diag", &[]),
        Arm::lora("loldu, rank 8", "loldu", &[], 8, 1.0).form("diag", &[]),
        Arm::lora("loldu-control", "random-control", &[("of", "loldu")], 128, 1.0)
            .form("diag", &[])
            .part(Part::Control),
    ],
    criteria: &[
        Criterion {
            role: Role::Claim,
            says: "it is no more than two points behind LoRA of rank 8",
            terms: &[accuracy(1.0, "loldu"), accuracy(-1.0, "lora")],
            bound: Bound::Above(-0.02),
        },
        Criterion {
            role: Role::Claim,
            says: "it gains at least half of what LoRA of rank 8 gains over the network before",
            terms: &[accuracy(1.0, "loldu"), accuracy(-0.5, "lora"), accuracy(-0.5, "before")],
            bound: Bound::Above(0.0),
        },
        Criterion {
            role: Role::Claim,
            says: "a diagonal that starts at draws ends at the same training loss as one that starts at the pivots, to 0.01",
            terms: &[last(1.0, "loldu"), last(-1.0, "loldu, uniform")],
            bound: Bound::Within(0.01),
        },
        Criterion {
            role: Role::Control,
            says: "it gives more right answers than factors of the same sizes in random directions",
            terms: &[accuracy(1.0, "loldu"), accuracy(-1.0, "loldu-control")],
            bound: Bound::Above(0.0),
        },
        Criterion {
            role: Role::Aside,
            says: "at rank 8 it gains at most a third of what it gains at full rank",
            terms: &[
                accuracy(1.0 / 3.0, "loldu"),
                accuracy(-1.0, "loldu, rank 8"),
                accuracy(2.0 / 3.0, "before"),
            ],
            bound: Bound::Above(0.0),
        },
        Criterion {
            role: Role::Aside,
            says: "it gives more right answers than LoRA of rank 1, which trains 2.8 times as many values",
            terms: &[accuracy(1.0, "loldu"), accuracy(-1.0, "lora, rank 1")],
            bound: Bound::Above(0.0),
        },
    ],
    real: &[
        Criterion {
            role: Role::Claim,
            says: "its held-out loss is at most 1.02 of LoRA's",
            terms: &[last(1.02, "lora"), last(-1.0, "loldu")],
            bound: Bound::Above(0.0),
        },
        Criterion {
            role: Role::Claim,
            says: "it is no more than two points behind LoRA in right answers",
            terms: &[accuracy(1.0, "loldu"), accuracy(-1.0, "lora")],
            bound: Bound::Above(-0.02),
        },
        Criterion {
            role: Role::Control,
            says: "the held-out loss of factors of the same sizes in random directions is higher",
            terms: &[last(1.0, "loldu-control"), last(-1.0, "loldu")],
            bound: Bound::Above(0.0),
        },
    ],
    not_shown: &[
        "The paper's settings with a trained classifier head: here nothing but the diagonals is trained.",
        "The modes of the released code whose function differs at step 0; this program does not have them.",
        "A diagonal moves a layer along its own factors only, so what can be learnt depends on the shift, of which one kind was tried.",
    ],
};
