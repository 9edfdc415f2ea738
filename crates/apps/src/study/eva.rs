//! EVA: do the principal components of a layer's inputs make LoRA faster and better?

use super::arm::{Arm, Part};
use super::claim::{Bound, Criterion, Measure, Role, accuracy, early, last, tuned};
use super::experiment::{Experiment, RATES, WIDE};

/// 16/√8.
const SCALE: f64 = 5.656_854_249_492_381;

pub(super) static STUDY: Experiment = Experiment {
    name: "eva",
    title: "EVA",
    claim: "EVA, whose right factors are the leading principal components of each layer's inputs and whose ranks go where they explain most, \
            maximises the expected gradient signal, converges faster than LoRA and ends better.",
    question: "Is it early ahead of LoRA at small rates, are the components the cause and not the norm of their rows, does it end better at \
               a rate of its own, and does moving ranks help?",
    equal: "all arms but the last train 8832 values (rank 8 on all three layers), at the scale 16/√8; with ranks moved the sum of ranks is \
            the same, the number of values is not, since layers differ in size (it is in the table)",
    size: WIDE,
    rates: RATES,
    arms: &[
        Arm::lora("lora", "kaiming", &[], 8, SCALE),
        Arm::lora("eva-control", "eva-control", &[], 8, SCALE).part(Part::Control),
        Arm::lora("eva", "eva", &[("rho", "1")], 8, SCALE),
        Arm::lora("eva, about zero", "eva", &[("rho", "1"), ("center", "false")], 8, SCALE),
        Arm::lora("eva, ranks moved", "eva", &[("rho", "2")], 8, SCALE),
    ],
    criteria: &[
        Criterion {
            role: Role::Claim,
            says: "at the rate 3e-4 its early loss is at most 0.97 of LoRA's",
            terms: &[early(0.97, "lora", 3e-4), early(-1.0, "eva", 3e-4)],
            bound: Bound::Above(0.0),
        },
        Criterion {
            role: Role::Claim,
            says: "at the rate 1e-3 its early loss is at most 0.97 of LoRA's",
            terms: &[early(0.97, "lora", 1e-3), early(-1.0, "eva", 1e-3)],
            bound: Bound::Above(0.0),
        },
        Criterion {
            role: Role::Claim,
            says: "each at its own rate, it ends with more right answers than LoRA",
            terms: &[accuracy(1.0, "eva"), accuracy(-1.0, "lora")],
            bound: Bound::Above(0.0),
        },
        Criterion {
            role: Role::Aside,
            says: "each at its own rate, ranks that go where components explain most end with more right answers than equal ranks",
            terms: &[accuracy(1.0, "eva, ranks moved"), accuracy(-1.0, "eva")],
            bound: Bound::Above(0.0),
        },
        Criterion {
            role: Role::Control,
            says: "at the rate 3e-4 its early loss is at most 0.97 of that of random rows of the same norm",
            terms: &[early(0.97, "eva-control", 3e-4), early(-1.0, "eva", 3e-4)],
            bound: Bound::Above(0.0),
        },
        Criterion {
            role: Role::Control,
            says: "at the rate 1e-3 its early loss is at most 0.97 of that of random rows of the same norm",
            terms: &[early(0.97, "eva-control", 1e-3), early(-1.0, "eva", 1e-3)],
            bound: Bound::Above(0.0),
        },
        Criterion {
            role: Role::Aside,
            says: "its first gradient is at least twice that of random rows of the same norm",
            terms: &[tuned(1.0, "eva", Measure::FirstNorm), tuned(-2.0, "eva-control", Measure::FirstNorm)],
            bound: Bound::Above(0.0),
        },
        Criterion {
            role: Role::Aside,
            says: "each at its own rate, its last training loss is at most 1.02 of LoRA's",
            terms: &[last(1.02, "lora"), last(-1.0, "eva")],
            bound: Bound::Above(0.0),
        },
        Criterion {
            role: Role::Aside,
            says: "each at its own rate, moving ranks costs no more than 2 % of the last training loss",
            terms: &[last(1.02, "eva"), last(-1.0, "eva, ranks moved")],
            bound: Bound::Above(0.0),
        },
        Criterion {
            role: Role::Aside,
            says: "components about zero end with a lower training loss than about the mean",
            terms: &[last(1.0, "eva"), last(-1.0, "eva, about zero")],
            bound: Bound::Above(0.0),
        },
    ],
    real: &[
        Criterion {
            role: Role::Claim,
            says: "each at its own rate, its early training loss is below LoRA's",
            terms: &[tuned(1.0, "lora", Measure::Early), tuned(-1.0, "eva", Measure::Early)],
            bound: Bound::Above(0.0),
        },
        Criterion {
            role: Role::Claim,
            says: "each at its own rate, its held-out loss is below LoRA's",
            terms: &[last(1.0, "lora"), last(-1.0, "eva")],
            bound: Bound::Above(0.0),
        },
        Criterion {
            role: Role::Claim,
            says: "each at its own rate, it gives more right answers than LoRA",
            terms: &[accuracy(1.0, "eva"), accuracy(-1.0, "lora")],
            bound: Bound::Above(0.0),
        },
        Criterion {
            role: Role::Control,
            says: "the held-out loss of random rows of the same norm is higher",
            terms: &[last(1.0, "eva-control"), last(-1.0, "eva")],
            bound: Bound::Above(0.0),
        },
    ],
    not_shown: &[
        "The inputs were drawn with a spectrum of 1/i, which suits principal components; flatter ones were not tried.",
        "Components are of 2048 rows of the very data that is learnt, exact; the incremental decomposition plays no part at these widths.",
        "The paper's numbers are of language models of 2 to 8 billion values, encoders and a vision transformer.",
    ],
};
