//! `left = W[:, J]`, `core = W[I, J]` or its pseudo-inverse, `right = W[I, :]`, I rows and J columns of W `[out, in]`, r each: the
//! three blocks of a Nyström approximation; the base gives up `scale·left·core·right`.
//!
//! Needs the weight; leaves the function unchanged (but see `residual = none`).
//!
//! Source: Guo, Chang, Wu, "NLoRA: Nyström-Initiated Low-Rank Adaptation for Large Language Models", 2025, and the authors'
//! code, which takes the first r rows and columns, the block itself and *not* its pseudo-inverse, and subtracts nothing: that is
//! `core = raw, residual = none`, and it changes the function at step 0. Ours: subtracting it, the pseudo-inverse (whose
//! small singular values must be cut: on a flat spectrum the approximation is up to a hundred times larger than W), other
//! rows and columns, and the balanced split.

mod card;

use faer::{Mat, MatRef};
use lowrank_linalg::{
    LowRank, directions, energy, finite, multiply, narrow, pivot_rows, pivoted_qr, pseudo_inverse,
    svd_in_f64, widen,
};
use lowrank_record::{Card, Promise, Report, Seed};

pub use card::{Block, Pick, Residual};

use self::card::CARD;
use crate::diagonal::diagonal;
use crate::{Base, Evidence, InitError, Initialiser, Named, Options, Start};

/// Blocks of the weight.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Nlora {
    /// What stands between the factors.
    pub core: Block,
    /// Singular values of the block up to this part of the largest are not inverted.
    pub rcond: f64,
    /// Which rows make `right`.
    pub rows: Pick,
    /// Which columns make `left`.
    pub columns: Pick,
    /// What happens to the base.
    pub residual: Residual,
    /// Whether the core is split between the factors and becomes the identity.
    pub balanced: bool,
}

/// The blocks of the weight that a start is made of.
struct Blocks {
    left: Mat<f32>,
    core: Mat<f64>,
    right: Mat<f32>,
}

impl Blocks {
    /// How many directions both the columns and the rows span, of the rank.
    fn directions(&self) -> Result<usize, InitError> {
        let span = |block: MatRef<'_, f32>| -> Result<usize, InitError> {
            let found = svd_in_f64(block).map_err(InitError::linalg(CARD.name))?;
            Ok(directions(&found.values))
        };
        Ok(span(self.left.as_ref())?.min(span(self.right.as_ref())?))
    }
}

impl Nlora {
    /// The authors' blocks, subtracted from the base.
    pub const DEFAULT: Nlora = Nlora {
        core: Block::Raw,
        rcond: 0.1,
        rows: Pick::First,
        columns: Pick::First,
        residual: Residual::Subtract,
        balanced: false,
    };

    fn choose(&self, weight: MatRef<'_, f32>, rank: usize, seed: Seed) -> Result<Blocks, InitError> {
        let failed = InitError::linalg(CARD.name);
        let (out, inp) = weight.shape();
        let some = |pick: Pick, name: &str, count: usize| match pick {
            Pick::First => Some((0..rank).collect::<Vec<_>>()),
            Pick::Random => {
                let mut some = seed.at("start", name).permutation(count);
                some.truncate(rank);
                some.sort_unstable();
                Some(some)
            }
            Pick::Pivoted => None,
        };
        let of_rows = |rows: &[usize]| Mat::from_fn(rows.len(), inp, |k, j| weight[(rows[k], j)]);
        let rows = some(self.rows, "rows", out);
        // Of the rows that are already chosen, or of all.
        let columns = match (some(self.columns, "columns", inp), &rows) {
            (Some(columns), _) => columns,
            (None, Some(rows)) => pivoted_qr(of_rows(rows).as_ref(), rank).map_err(&failed)?.columns,
            (None, None) => pivoted_qr(weight, rank).map_err(&failed)?.columns,
        };
        let left = Mat::from_fn(out, rank, |i, k| weight[(i, columns[k])]);
        let rows = match rows {
            Some(rows) => rows,
            None => pivot_rows(left.as_ref()).map_err(&failed)?,
        };
        let core = Mat::from_fn(rank, rank, |k, l| f64::from(weight[(rows[k], columns[l])]));
        Ok(Blocks { left, core, right: of_rows(&rows) })
    }

    /// Factors and core as they are, and how many singular values of the block were inverted.
    fn as_blocks(&self, blocks: Blocks, scale: f64) -> Result<(LowRank, Mat<f32>, usize), InitError> {
        let Blocks { left, core, right } = blocks;
        let (core, kept) = match self.core {
            Block::Raw => (core, right.nrows()),
            Block::Pinv => {
                let found =
                    pseudo_inverse(core.as_ref(), self.rcond).map_err(InitError::linalg(CARD.name))?;
                (Mat::from_fn(core.nrows(), core.ncols(), |i, j| found.matrix[(i, j)] / scale), found.kept)
            }
        };
        Ok((LowRank { left, right }, narrow(core.as_ref()), kept))
    }

    /// `core = Σ wₖ·pₖ·qₖᵀ` split into `left·pₖ·√wₖ` and `√wₖ·qₖᵀ·right`, the identity between. A direction that is left out has `right`
    /// = 0 and a `left` of the size of the last one kept: so it adds nothing and can learn.
    fn split(&self, blocks: &Blocks, scale: f64) -> Result<(LowRank, Mat<f32>, usize), InitError> {
        let svd = svd_in_f64(blocks.core.as_ref()).map_err(InitError::linalg(CARD.name))?;
        let floor = svd.values[0] * if self.core == Block::Pinv { self.rcond } else { 1e-6 };
        let kept = svd.values.iter().filter(|&&value| value > floor).count();
        let rank = svd.rank();
        let (onto_left, onto_right) = match self.core {
            Block::Raw => (svd.left, svd.right),
            Block::Pinv => (svd.right.transpose().to_owned(), svd.left.transpose().to_owned()),
        };
        let root = |k: usize| {
            let value = svd.values[k.min(kept - 1)];
            if self.core == Block::Pinv { 1.0 / (value * scale).sqrt() } else { value.sqrt() }
        };
        let onto_left = Mat::from_fn(rank, rank, |i, k| onto_left[(i, k)] * root(k));
        let onto_right =
            Mat::from_fn(rank, rank, |k, j| if k < kept { onto_right[(k, j)] * root(k) } else { 0.0 });
        let left = multiply(widen(blocks.left.as_ref()).as_ref(), onto_left.as_ref());
        let right = multiply(onto_right.as_ref(), widen(blocks.right.as_ref()).as_ref());
        let delta = LowRank { left: narrow(left.as_ref()), right: narrow(right.as_ref()) };
        Ok((delta, diagonal(&vec![1.0; rank]), kept))
    }
}

impl Initialiser for Nlora {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn aliases(&self) -> &'static [&'static str] {
        &["nystrom", "n-lora"]
    }

    fn promise(&self) -> Promise {
        if self.residual == Residual::None { Promise::None } else { Promise::Exact }
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        vec![
            ("core", self.core.name().to_owned()),
            ("rcond", self.rcond.to_string()),
            ("rows", self.rows.name().to_owned()),
            ("columns", self.columns.name().to_owned()),
            ("residual", self.residual.name().to_owned()),
            ("balanced", self.balanced.name().to_owned()),
        ]
    }

    fn configure(&self, options: &Options) -> Result<Box<dyn Initialiser>, InitError> {
        let nlora = Nlora {
            core: options.named("core")?,
            rcond: options.positive("rcond")?,
            rows: options.named("rows")?,
            columns: options.named("columns")?,
            residual: options.named("residual")?,
            balanced: options.named("balanced")?,
        };
        if nlora.rcond >= 1.0 {
            return Err(options.bad("rcond").into());
        }
        if nlora.core == Block::Pinv && nlora.residual == Residual::None {
            let problem = "core = pinv with residual = none adds an approximation of W to W, which doubles the first outputs; \
                           choose residual = subtract";
            return Err(InitError::Combination { method: CARD.name, problem });
        }
        Ok(Box::new(nlora))
    }

    fn start(&self, seen: &Evidence<'_>, rank: usize, seed: Seed) -> Result<Start, InitError> {
        let site = seen.site();
        self.admits(site, rank)?;
        let weight = seen.weight(CARD.name)?;
        finite(weight).map_err(InitError::linalg(CARD.name))?;
        let size = energy(weight).sqrt();
        if size <= 0.0 {
            return Err(InitError::ZeroWeight { method: CARD.name });
        }
        let blocks = self.choose(weight, rank, seed)?;
        let held = blocks.directions()?;
        if energy(blocks.core.as_ref()) == 0.0 {
            return Err(InitError::ZeroBlock { method: CARD.name, rank });
        }
        let (delta, core, kept) = if self.balanced {
            self.split(&blocks, site.scale)?
        } else {
            self.as_blocks(blocks, site.scale)?
        };
        let mut report = Report::default().with("core", self.core.name());
        if self.core == Block::Pinv {
            report = report.with("singular values of the block inverted", kept);
        }
        // A start beyond f32 is refused below, by its name.
        let product =
            LowRank { left: multiply(delta.left.as_ref(), core.as_ref()), right: delta.right.clone() };
        if let Ok(norm) = product.norm() {
            report = report.with("size of the start, relative to the weight", site.scale * norm / size);
        }
        if held < rank {
            let warning = format!(
                "the {rank} rows and columns that the start is made of span {held} directions: a core between them changes no more \
                 than that; lower the rank, or choose rows = pivoted and columns = pivoted"
            );
            report = report.with("warning", warning);
        }
        let base = if self.residual == Residual::Subtract { Base::Subtract } else { Base::Keep };
        Start::checked_with_core(CARD.name, delta, core, base, report)
    }
}
