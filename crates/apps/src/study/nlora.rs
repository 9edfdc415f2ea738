//! NLoRA, SLoRA and IntTune: does a middle matrix, started from a Nyström approximation, help?

use super::arm::{Arm, Part};
use super::claim::{Bound, Criterion, Role, accuracy, accuracy_at, last};
use super::experiment::{Experiment, NARROW};

pub(super) static STUDY: Experiment = Experiment {
    name: "nlora",
    title: "NLoRA",
    claim: "A middle matrix between LoRA's factors (SLoRA) is better than LoRA, its Nyström start (NLoRA) converges faster and is better still, \
            ahead of PiSSA too, and training the middle matrix alone (IntTune) does most of it with few values.",
    question: "Is any of the three ahead of LoRA where each has a rate of its own, is the pseudo-inverse start faster at small rates, and what \
               does the released code lose by not subtracting its start?",
    equal: "LoRA and PiSSA train 4736 values at rank 8, SLoRA and NLoRA 4928 (4 % more: the middle matrices). IntTune trains 2304 at rank 32, which \
            is its point. Scale 2 for LoRA and PiSSA, 1 for the others",
    size: NARROW,
    rates: &[3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1],
    arms: &[
        Arm::lora("lora", "kaiming", &[], 8, 2.0),
        Arm::lora("pissa", "pissa", &[("svd", "exact")], 8, 2.0),
        Arm::lora("slora", "slora", &[], 8, 1.0).form("core", &[("trains", "all")]),
        Arm::lora("nlora", "nlora", &[], 8, 1.0).form("core", &[("trains", "all")]),
        Arm::lora("nlora, pinv", "nlora", &[("core", "pinv")], 8, 1.0).form("core", &[("trains", "all")]),
        Arm::lora("nlora, released", "nlora", &[("residual", "none")], 8, 1.0)
            .form("core", &[("trains", "all")]),
        Arm::lora("nlora-control", "random-control", &[("of", "nlora"), ("with", "core = pinv")], 8, 1.0)
            .form("core", &[("trains", "all")])
            .part(Part::Control),
        Arm::lora("inttune", "nlora", &[], 32, 1.0).form("core", &[]),
        Arm::lora("inttune, released", "nlora", &[("residual", "none")], 32, 1.0).form("core", &[]),
    ],
    criteria: &[
        Criterion {
            role: Role::Claim,
            says: "SLoRA gives more right answers than LoRA",
            terms: &[accuracy(1.0, "slora"), accuracy(-1.0, "lora")],
            bound: Bound::Above(0.0),
        },
        Criterion {
            role: Role::Claim,
            says: "NLoRA gives more right answers than LoRA",
            terms: &[accuracy(1.0, "nlora"), accuracy(-1.0, "lora")],
            bound: Bound::Above(0.0),
        },
        Criterion {
            role: Role::Claim,
            says: "NLoRA gives more right answers than PiSSA",
            terms: &[accuracy(1.0, "nlora"), accuracy(-1.0, "pissa")],
            bound: Bound::Above(0.0),
        },
        Criterion {
            role: Role::Claim,
            says: "at the rate 3e-4 NLoRA with the pseudo-inverse is at least five points ahead of LoRA",
            terms: &[accuracy_at(1.0, "nlora, pinv", 3e-4), accuracy_at(-1.0, "lora", 3e-4)],
            bound: Bound::Above(0.05),
        },
        Criterion {
            role: Role::Claim,
            says: "at the rate 1e-3 NLoRA with the pseudo-inverse is at least five points ahead of LoRA",
            terms: &[accuracy_at(1.0, "nlora, pinv", 1e-3), accuracy_at(-1.0, "lora", 1e-3)],
            bound: Bound::Above(0.05),
        },
        Criterion {
            role: Role::Claim,
            says: "IntTune, with half of the trained values, gains at least 75 % of what LoRA gains over the network before",
            terms: &[accuracy(1.0, "inttune"), accuracy(-0.75, "lora"), accuracy(-0.25, "before")],
            bound: Bound::Above(0.0),
        },
        Criterion {
            role: Role::Control,
            says: "at the rate 1e-3 the pseudo-inverse start gives more right answers than one of the same sizes in random directions",
            terms: &[accuracy_at(1.0, "nlora, pinv", 1e-3), accuracy_at(-1.0, "nlora-control", 1e-3)],
            bound: Bound::Above(0.0),
        },
        Criterion {
            role: Role::Control,
            says: "each at its own rate, the pseudo-inverse start ends with a lower training loss than the control",
            terms: &[last(1.0, "nlora-control"), last(-1.0, "nlora, pinv")],
            bound: Bound::Above(0.0),
        },
        Criterion {
            role: Role::Aside,
            says: "IntTune that subtracts its start is at least two points ahead of the released code, which does not",
            terms: &[accuracy(1.0, "inttune"), accuracy(-1.0, "inttune, released")],
            bound: Bound::Above(0.02),
        },
        Criterion {
            role: Role::Aside,
            says: "NLoRA and LoRA are within three points of each other",
            terms: &[accuracy(1.0, "nlora"), accuracy(-1.0, "lora")],
            bound: Bound::Within(0.03),
        },
    ],
    real: &[
        Criterion {
            role: Role::Claim,
            says: "SLoRA's held-out loss is below LoRA's",
            terms: &[last(1.0, "lora"), last(-1.0, "slora")],
            bound: Bound::Above(0.0),
        },
        Criterion {
            role: Role::Claim,
            says: "NLoRA's held-out loss is below LoRA's",
            terms: &[last(1.0, "lora"), last(-1.0, "nlora")],
            bound: Bound::Above(0.0),
        },
        Criterion {
            role: Role::Claim,
            says: "NLoRA gives more right answers than LoRA",
            terms: &[accuracy(1.0, "nlora"), accuracy(-1.0, "lora")],
            bound: Bound::Above(0.0),
        },
        Criterion {
            role: Role::Claim,
            says: "NLoRA's held-out loss is below PiSSA's",
            terms: &[last(1.0, "pissa"), last(-1.0, "nlora")],
            bound: Bound::Above(0.0),
        },
        Criterion {
            role: Role::Claim,
            says: "IntTune's held-out loss is at most 1.02 of LoRA's",
            terms: &[last(1.02, "lora"), last(-1.0, "inttune")],
            bound: Bound::Above(0.0),
        },
        Criterion {
            role: Role::Control,
            says: "the held-out loss of a start of NLoRA's sizes in random directions is higher",
            terms: &[last(1.0, "nlora-control"), last(-1.0, "nlora")],
            bound: Bound::Above(0.0),
        },
    ],
    not_shown: &[
        "The paper's gain of 14 points on GSM8K is of LLaMA-2-7B at one rate for all methods; here every arm has its own.",
        "Rows and columns are the first r, as published; random and pivoted ones were not compared here.",
        "IntTune was run at one rank: the paper's is 128 on layers that are 4096 wide.",
    ],
};
