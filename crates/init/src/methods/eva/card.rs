//! What EVA is and the choices it takes.

use lowrank_linalg::Components;
use lowrank_record::{Card, Choice, Kind, Need, Promise, Source};

use crate::Named;

/// What ranks are given out by, from the singular values S of a site's n inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Normalise {
    /// `S²` over the energy of all inputs seen, also of what no component holds.
    Ratio,
    /// `S²` over that of the components found.
    Sum,
    /// `S²/(n − 1)`: not normalised, so that layers with larger inputs get more.
    Raw,
    /// `S²` over that of the first component.
    Max,
}

impl Named for Normalise {
    const NAMES: &'static [(&'static str, Self)] = &[
        ("ratio", Normalise::Ratio),
        ("sum", Normalise::Sum),
        ("raw", Normalise::Raw),
        ("max", Normalise::Max),
    ];
}

impl Normalise {
    /// What each component counts, descending.
    #[must_use]
    pub fn of(self, found: &Components) -> Vec<f64> {
        let squares = found.values.iter().map(|value| value * value);
        let by = match self {
            Normalise::Ratio => found.energy,
            Normalise::Sum => squares.clone().sum(),
            Normalise::Raw => found.rows.saturating_sub(1).max(1) as f64,
            Normalise::Max => found.values.first().map_or(0.0, |first| first * first),
        };
        squares.map(|square| if by > 0.0 { square / by } else { 0.0 }).collect()
    }
}

pub(super) static CARD: Card = Card {
    name: "eva",
    kind: Kind::Initialiser,
    summary: "left = 0, right = the leading principal components of the layer's inputs; ranks go where components explain most",
    source: Source {
        authors: "Paischer et al.",
        title: "Parameter Efficient Fine-tuning via Explained Variance Adaptation",
        year: 2025,
        link: "https://arxiv.org/abs/2410.07170",
    },
    needs: &[Need::Inputs],
    promise: Promise::Zero,
    choices: &[
        Choice {
            name: "rho",
            default: "2",
            values: "a number from 1",
            meaning: "how many times its planned rank a layer may get when the sum of ranks is given out anew; 1 keeps all ranks",
        },
        Choice {
            name: "tau",
            default: "0.99",
            values: "a number above 0, to 1",
            meaning: "at what part (or cosine) the components have settled; larger looks at more batches",
        },
        Choice {
            name: "center",
            default: "true",
            values: "true | false",
            meaning: "components about the mean of the inputs, as in both codes, or about zero, which the theory speaks of",
        },
        Choice {
            name: "whiten",
            default: "false",
            values: "true | false",
            meaning: "divide row j by the root of its singular value, as both codes do",
        },
        Choice {
            name: "normalise",
            default: "ratio",
            values: "ratio | sum | raw | max",
            meaning: "what ranks are given out by: variance over all variance seen, over that of the components, as it is, or over \
                      the first component's",
        },
        Choice {
            name: "stop",
            default: "captured",
            values: "captured | cosine",
            meaning: "enough was seen when the components of one update before would have held the part tau of what they hold \
                      now, or when each has the cosine tau with itself then, as in the paper",
        },
    ],
    notes: &[
        "in the paper's own sweep (Llama-2-7B, GSM8K) rho = 1 did best: giving ranks out anew did not help there",
        "rows have norm 1, those of kaiming 0.58, so the gradient of left is about three times that of a LoRA for the size alone: \
         compare with eva-control",
        "holds at least as much of the inputs' variance as PEFT's on the same batches (`tests/interop/starts.py`): that cuts its \
         incremental SVD at the rank and stops at single cosines",
        "equal ratios go by component and then by the model's order, where PEFT's sort leaves them to chance",
        "the alpha of a layer whose rank changed keeps its scale, also with rank-stabilised scaling, where PEFT's does not",
        "layers up to 1024 wide (and those of which as many components are wanted as they are wide) take moments of all batches; \
         wider ones stop when they have settled, or are cut at 256 batches if all were seen by then, and say so",
        "rho asks for no more than the shorter side of a layer, nor than the sum of all ranks",
        "settled by cosine is not the same as equal to all data's components: with equal variances single components never \
         settle, hence stop = captured by default",
    ],
};
