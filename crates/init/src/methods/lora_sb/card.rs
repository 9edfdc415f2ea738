//! What LoRA-SB is and the choices it takes.

use lowrank_record::{Card, Choice, Kind, Need, Promise, Source};

use crate::Named;

/// What of the gradient the update is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Its sign: the paper's.
    SignUpdate,
    /// The gradient itself.
    Gradient,
    /// `g/(|g| + ε)`.
    AdamFirstStep,
}

/// What the core starts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CoreStart {
    /// The update's singular values.
    Update,
    /// Zero: the function is unchanged.
    Zero,
}

/// The rate of the update.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rate {
    /// That of the first optimiser step, which must be shown.
    FirstStep,
    /// This number.
    Fixed(f64),
}

impl Named for Target {
    const NAMES: &'static [(&'static str, Self)] = &[
        ("sign-update", Target::SignUpdate),
        ("gradient", Target::Gradient),
        ("adam-first-step", Target::AdamFirstStep),
    ];
}

impl Named for CoreStart {
    const NAMES: &'static [(&'static str, Self)] =
        &[("update", CoreStart::Update), ("zero", CoreStart::Zero)];
}

/// Of the method and of its control.
pub(in crate::methods) static CHOICES: [Choice; 5] = [
    Choice {
        name: "target",
        default: "sign-update",
        values: "sign-update | gradient | adam-first-step",
        meaning: "what is approximated: the gradient's sign (the paper), the gradient, or the first step of Adam with its epsilon",
    },
    Choice {
        name: "core",
        default: "update",
        values: "update | zero",
        meaning: "the core starts as the first update, so that the function at step 0 has made it, or at zero, which leaves the \
                  function unchanged",
    },
    Choice {
        name: "rate",
        default: "first-step",
        values: "first-step | a positive number",
        meaning: "learning rate of the update that the core starts as: that of the first optimiser step, or this one",
    },
    Choice {
        name: "epsilon",
        default: "0.00000001",
        values: "a positive number",
        meaning: "of target = adam-first-step, in units of the gradient of the mean token loss; larger is closer to the gradient",
    },
    Choice {
        name: "svd",
        default: "auto",
        values: "auto | exact | fast",
        meaning: "how the target is decomposed: auto is exact up to 128 on the shorter side; fast takes 2r + 16 columns and 4 power \
                  iterations, and gives away directions where the spectrum is flat",
    },
];

pub(super) static CARD: Card = Card {
    name: "lora-sb",
    kind: Kind::Initialiser,
    summary: "orthonormal bases and core = the best rank-r approximation of the first full fine-tuning step; only the core trains",
    source: Source {
        authors: "Ponkshe, Singhal, Gorbunov, Tumanov, Horvath, Vepakomma",
        title: "Initialization using Update Approximation is a Silver Bullet for Extremely Efficient Low-Rank Fine-Tuning",
        year: 2024,
        link: "https://arxiv.org/abs/2411.19557",
    },
    needs: &[Need::Gradient],
    promise: Promise::None,
    choices: &CHOICES,
    notes: &[
        "the function at step 0 is not the base's: it has made the first step, at rank r; core = zero leaves it unchanged",
        "bases of the sign hold much less of the gradient than the gradient's own (the report says how much; compared in \
         `tests/lora_sb.rs`); target = gradient and target = adam-first-step are ours",
        "rate = first-step is the rate of the run's first step, warm-up included; the authors divide by the steps of their \
         estimation's loader",
        "targets other than gradient need each layer's whole gradient for a moment, so one calibration batch",
        "ranks are 3 to 4 times a LoRA's for the same quality, of r^2 trained values; the bases are stored too",
    ],
};
