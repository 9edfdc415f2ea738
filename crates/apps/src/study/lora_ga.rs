//! LoRA-GA: is it as fast as full fine-tuning, and does it end better than LoRA?

use super::arm::{Arm, Part};
use super::claim::{Bound, Criterion, Measure, Role, accuracy, early, last, tuned};
use super::experiment::{Experiment, RATES, WIDE};

/// 16/√8, the rank-stabilised scale that the authors use.
const SCALE: f64 = 5.656_854_249_492_381;

pub(super) static STUDY: Experiment = Experiment {
    name: "lora-ga",
    title: "LoRA-GA",
    claim: "LoRA-GA converges about as fast as full fine-tuning, much faster than LoRA, and ends comparable or better, because its first \
            step is the best low-rank part of the full one.",
    question: "Is it early ahead of LoRA at a rate of full fine-tuning's size, are the gradient's directions the cause, and is anything \
               left of it at the end where every arm has a rate of its own?",
    equal: "all arms but full fine-tuning train 8832 values (rank 8 on all three layers), at the scale alpha/√r with alpha 16",
    size: WIDE,
    rates: RATES,
    arms: &[
        Arm::FULL,
        Arm::lora("lora", "kaiming", &[], 8, SCALE),
        Arm::lora("pissa", "pissa", &[], 8, SCALE),
        Arm::lora("lora-ga", "lora-ga", &[("svd", "exact")], 8, SCALE),
        Arm::lora("lora-ga, gamma 64", "lora-ga", &[("svd", "exact"), ("gamma", "64")], 8, SCALE),
        Arm::lora("lora-ga-control", "lora-ga-control", &[], 8, SCALE).part(Part::Control),
    ],
    criteria: &[
        Criterion {
            role: Role::Claim,
            says: "at the rate 1e-3, of full fine-tuning's size, its early loss is at most 0.92 of LoRA's",
            terms: &[early(0.92, "lora", 1e-3), early(-1.0, "lora-ga", 1e-3)],
            bound: Bound::Above(0.0),
        },
        Criterion {
            role: Role::Claim,
            says: "at the rate 1e-3 its early loss is at most 1.08 of full fine-tuning's",
            terms: &[early(1.08, "full", 1e-3), early(-1.0, "lora-ga", 1e-3)],
            bound: Bound::Above(0.0),
        },
        Criterion {
            role: Role::Claim,
            says: "each at its own rate, it ends with more right answers than LoRA",
            terms: &[accuracy(1.0, "lora-ga"), accuracy(-1.0, "lora")],
            bound: Bound::Above(0.0),
        },
        Criterion {
            role: Role::Control,
            says: "at the rate 3e-4 the control's early loss is higher",
            terms: &[early(1.0, "lora-ga-control", 3e-4), early(-1.0, "lora-ga", 3e-4)],
            bound: Bound::Above(0.0),
        },
        Criterion {
            role: Role::Control,
            says: "at the rate 1e-3 the control's early loss is higher",
            terms: &[early(1.0, "lora-ga-control", 1e-3), early(-1.0, "lora-ga", 1e-3)],
            bound: Bound::Above(0.0),
        },
        Criterion {
            role: Role::Aside,
            says: "each at its own rate, its last training loss is below LoRA's",
            terms: &[last(1.0, "lora"), last(-1.0, "lora-ga")],
            bound: Bound::Above(0.0),
        },
        Criterion {
            role: Role::Aside,
            says: "each at its own rate, its early training loss is below LoRA's",
            terms: &[tuned(1.0, "lora", Measure::Early), tuned(-1.0, "lora-ga", Measure::Early)],
            bound: Bound::Above(0.0),
        },
        Criterion {
            role: Role::Aside,
            says: "each at its own rate, the smaller start (gamma 64) ends with more right answers than gamma 16",
            terms: &[accuracy(1.0, "lora-ga, gamma 64"), accuracy(-1.0, "lora-ga")],
            bound: Bound::Above(0.0),
        },
    ],
    real: &[
        Criterion {
            role: Role::Claim,
            says: "each at its own rate, its early training loss is below LoRA's",
            terms: &[tuned(1.0, "lora", Measure::Early), tuned(-1.0, "lora-ga", Measure::Early)],
            bound: Bound::Above(0.0),
        },
        Criterion {
            role: Role::Claim,
            says: "each at its own rate, its held-out loss is below LoRA's",
            terms: &[last(1.0, "lora"), last(-1.0, "lora-ga")],
            bound: Bound::Above(0.0),
        },
        Criterion {
            role: Role::Claim,
            says: "each at its own rate, it gives more right answers than LoRA",
            terms: &[accuracy(1.0, "lora-ga"), accuracy(-1.0, "lora")],
            bound: Bound::Above(0.0),
        },
        Criterion {
            role: Role::Control,
            says: "the control's held-out loss is higher",
            terms: &[last(1.0, "lora-ga-control"), last(-1.0, "lora-ga")],
            bound: Bound::Above(0.0),
        },
    ],
    not_shown: &[
        "One kind of network (three layers, GELU) and one kind of shift; the gradient comes from 256 rows of a fixed set.",
        "The paper's numbers are of T5-base on GLUE and Llama-2-7B; see the studies of real models beside this one.",
        "PEFT's `lora_ga`, which is another method under the same name, was not run here.",
    ],
};
