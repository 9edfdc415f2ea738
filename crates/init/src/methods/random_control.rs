//! The start of another method with its directions taken away: `left = Q_l·R_l`, `right = R_rᵀ·Q_rᵀ`, where `left = Q·R_l` and `rightᵀ =
//! Q·R_r` are the other's factors and Q_l `[out, r]`, Q_r `[in, r]` are random orthonormal.
//!
//! Both Gram matrices, `leftᵀ·left` and `right·rightᵀ`, and the core stay, hence so do norms and singular values of either factor and
//! of their product; what is lost is where they point. A control for studies: what the other method gains over this one
//! is due to its directions, what both gain over LoRA is due to size. Needs what the other needs; keeps the other's
//! promise.
//!
//! Source: ours. Other studies (arXiv 2507.06558) attribute most of what spectral starts gain to the size of the update,
//! which only a control of the same size can tell.

use faer::{Mat, MatRef};
use lowrank_linalg::{LowRank, multiply, narrow, orthonormal_basis, qr, widen};
use lowrank_record::{Card, Choice, Kind, Need, Promise, Seed, Source};

use super::Pissa;
use crate::{Evidence, InitError, Initialiser, InputsWanted, Leading, Options, Site, Start, by_name};

/// Another method without its directions.
pub struct RandomControl {
    of: Of,
    /// The choices of the other method, as they were given.
    with: Vec<(String, String)>,
}

/// The other method.
enum Of {
    Default(&'static dyn Initialiser),
    Chosen(Box<dyn Initialiser>),
}

static CARD: Card = Card {
    name: "random-control",
    kind: Kind::Initialiser,
    summary: "another method's start with random directions: the same norms, singular values, core and base, so what the other gains \
              over this is due to its directions",
    source: Source { authors: "this project", title: "control of the same size", year: 2026, link: "" },
    needs: &[Need::Weight],
    promise: Promise::Exact,
    choices: &[
        Choice {
            name: "of",
            default: "pissa",
            values: "the name of another initialiser",
            meaning: "the method whose start is robbed of its directions; what must be shown and the promise are that method's",
        },
        Choice {
            name: "with",
            default: "none",
            values: "none, or name = value, name = value",
            meaning: "how the other method is set; for one choice: svd = exact",
        },
    ],
    notes: &[
        "not a method to train with: it says how much of another start is direction and how much is size",
        "needs and promise are those of the method it is the control of; here those of pissa are listed",
        "ranks are those of the other method, also where it moves or chooses them (eva, svfit): what is lost is the directions alone",
        "methods that put a quantised weight in the base's place have no such control and are refused",
        "lora-ga-control is the older control of lora-ga, which needs no gradient; this one measures sizes on the real start",
    ],
};

impl RandomControl {
    /// The control of PiSSA.
    pub const DEFAULT: RandomControl = RandomControl { of: Of::Default(&Pissa::DEFAULT), with: Vec::new() };

    fn of(&self) -> &dyn Initialiser {
        match &self.of {
            Of::Default(method) => *method,
            Of::Chosen(method) => &**method,
        }
    }
}

/// `name = value, name = value`; `none` for nothing.
fn choices(text: &str) -> Option<Vec<(String, String)>> {
    if text.eq_ignore_ascii_case("none") {
        return Some(Vec::new());
    }
    let pair = |part: &str| {
        let (name, value) = part.split_once('=')?;
        Some((name.trim().to_owned(), value.trim().to_owned()))
    };
    text.split(',').map(pair).collect()
}

impl Initialiser for RandomControl {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn needs(&self) -> Vec<Need> {
        self.of().needs()
    }

    fn promise(&self) -> Promise {
        self.of().promise()
    }

    fn admits(&self, site: Site, rank: usize) -> Result<(), InitError> {
        site.check(CARD.name, rank)?;
        self.of().admits(site, rank)
    }

    fn leading(&self, rank: usize) -> Leading {
        self.of().leading(rank)
    }

    fn inputs(&self, most: usize) -> InputsWanted {
        self.of().inputs(most)
    }

    fn redistributes(&self) -> Option<f64> {
        self.of().redistributes()
    }

    fn ratios(&self, seen: &Evidence<'_>, most: usize, seed: Seed) -> Result<Vec<f64>, InitError> {
        self.of().ratios(seen, most, seed)
    }

    fn chooses_rank(&self) -> bool {
        self.of().chooses_rank()
    }

    fn chosen_rank(&self, seen: &Evidence<'_>, planned: usize) -> Result<usize, InitError> {
        self.of().chosen_rank(seen, planned)
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        let pairs: Vec<String> = self.with.iter().map(|(name, value)| format!("{name} = {value}")).collect();
        let with = if pairs.is_empty() { "none".to_owned() } else { pairs.join(", ") };
        vec![("of", self.of().card().name.to_owned()), ("with", with)]
    }

    fn configure(&self, options: &Options) -> Result<Box<dyn Initialiser>, InitError> {
        let with = choices(options.text("with")).ok_or_else(|| InitError::from(options.bad("with")))?;
        // An unknown name is a bad value here; what is wrong with a choice of the other method is said as that method says it.
        let of = by_name(options.text("of"), with.iter().map(|(name, value)| (name, value)));
        let of = match of {
            Err(InitError::UnknownMethod { .. }) => return Err(options.bad("of").into()),
            of => of?,
        };
        if of.card().name == CARD.name {
            return Err(options.bad("of").into());
        }
        if of.replaces_base() {
            return Err(InitError::NoControl { method: CARD.name, of: of.card().name });
        }
        Ok(Box::new(RandomControl { of: Of::Chosen(of), with }))
    }

    fn start(&self, seen: &Evidence<'_>, rank: usize, seed: Seed) -> Result<Start, InitError> {
        self.admits(seen.site(), rank)?;
        let start = self.of().start(seen, rank, seed).map_err(|error| match error {
            InitError::Missing { need, .. } => InitError::Missing { method: CARD.name, need },
            error => error,
        })?;
        let turned = |matrix: MatRef<'_, f32>, name: &str| turned(matrix, seed.at("control", name));
        let left = turned(start.delta.left.as_ref(), "left")?;
        let right = turned(start.delta.right.transpose(), "right")?.transpose().to_owned();
        let (delta, report) = (LowRank { left, right }, start.report.with("directions", "random"));
        match start.core {
            Some(core) => Start::checked_with_core(CARD.name, delta, core, start.base, report),
            None => Start::checked(CARD.name, delta, start.base, report),
        }
    }
}

/// The same Gram matrix in a random subspace: R of `factor = Q·R`, `[d, r]` with r ≤ d, behind another Q, uniformly distributed (the
/// basis of a Gaussian matrix).
fn turned(factor: MatRef<'_, f32>, seed: Seed) -> Result<Mat<f32>, InitError> {
    let failed = InitError::linalg(CARD.name);
    let (d, rank) = factor.shape();
    let draws = seed.normal(d * rank);
    let gaussian = Mat::from_fn(d, rank, |i, j| f64::from(draws[i * rank + j]));
    let basis = orthonormal_basis(gaussian.as_ref()).map_err(&failed)?;
    let above = widen(qr(factor).map_err(&failed)?.r.as_ref());
    Ok(narrow(multiply(basis.as_ref(), above.as_ref()).as_ref()))
}
