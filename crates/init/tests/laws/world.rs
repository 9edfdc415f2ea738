//! The rows of the laws, and what their methods are shown.

use faer::Mat;
use lowrank_init::{Evidence, Gradient, GradientMap, Initialiser, Inputs, Site, Start, by_name};
use lowrank_linalg::{Moments, multiply, svd_in_f64};
use lowrank_record::{Need, Seed, scale};

/// A method with its choices, and how closely base + start gives W back (relative, Frobenius).
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) choices: &'static [(&'static str, &'static str)],
    pub(crate) tolerance: f64,
}

pub(crate) const fn row(
    name: &'static str,
    choices: &'static [(&'static str, &'static str)],
    tolerance: f64,
) -> Row {
    Row { name, choices, tolerance }
}

/// What a start costs: one rounding of the difference, another of the sum.
pub(crate) const ROUNDING: f64 = 3e-7;

pub(crate) const ROWS: &[Row] = &[
    row("kaiming", &[], 0.0),
    row("gaussian", &[], 0.0),
    row("gaussian", &[("deviation", "width")], 0.0),
    row("orthogonal", &[], 1e-6),
    row("orthogonal", &[("width", "fan")], 1e-6),
    // The product of the rounding of large factors, which is small beside them and not beside the weight.
    row("orthogonal", &[("width", "3")], 1e-3),
    row("pissa", &[], ROUNDING),
    row("pissa", &[("svd", "exact")], ROUNDING),
    row("pissa", &[("svd", "fast"), ("power", "1")], ROUNDING),
    // The start is larger than the weight here, and the sum cancels: the error is relative to the start.
    row("lora-ga", &[], 1e-6),
    row("lora-ga", &[("direction", "a2rbr"), ("svd", "exact")], 1e-6),
    row("lora-ga", &[("direction", "random"), ("scale", "gd")], 1e-6),
    row("lora-ga", &[("direction", "ArBr"), ("scale", "unit")], 1e-6),
    row("lora-ga", &[("scale", "weight-svd")], ROUNDING),
    row("lora-ga", &[("norm-clip", "true")], ROUNDING),
    row("lora-ga", &[("variant", "peft-compat")], 1e-5),
    row("lora-ga", &[("variant", "peft-compat"), ("scale", "weight_svd"), ("direction", "random")], 1e-6),
    row("lora-ga-control", &[], 1e-6),
    row("lora-ga-control", &[("scale", "weight-svd")], ROUNDING),
    row("olora", &[], ROUNDING),
    row("olora", &[("pivot", "columns")], ROUNDING),
    row("milora", &[], ROUNDING),
    row("mica", &[], 0.0),
    // Ten deviations, relative to the product of the factors' norms: what the method itself promises.
    row("lora-xs", &[], 1e-4),
    row("lora-xs", &[("bases", "random")], 1e-4),
    row("lora-xs", &[("svd", "fast"), ("deviation", "0")], 0.0),
    row("slora", &[], 0.0),
    row("nlora", &[], ROUNDING),
    row("nlora", &[("rows", "pivoted"), ("columns", "pivoted")], ROUNDING),
    row("nlora", &[("rows", "random"), ("columns", "pivoted"), ("balanced", "true")], 1e-6),
    // The product of three matrices with large entries, which cancel.
    row("nlora", &[("core", "pinv")], 1e-5),
    row("nlora", &[("core", "pinv"), ("rows", "random"), ("columns", "random"), ("rcond", "0.3")], 1e-5),
    row("nlora", &[("core", "pinv"), ("rows", "pivoted"), ("balanced", "true")], 1e-5),
    // The change itself, which nothing takes back: at most the product of the three norms.
    row("nlora", &[("residual", "none")], f64::INFINITY),
    row("loldu", &[], 1e-6),
    row("loldu", &[("pivot", "rook"), ("init", "normal")], 1e-6),
    row("loldu", &[("normalise", "true"), ("init", "uniform")], 1e-6),
    row("loldu", &[("init", "constant")], 1e-6),
    row("loldu", &[("init", "lu"), ("pivot", "rook"), ("normalise", "true")], 1e-6),
    row("svfit", &[], ROUNDING),
    row("svfit", &[("svd", "fast")], ROUNDING),
    row("svfit", &[("rank", "full")], ROUNDING),
    row("svfit", &[("rank", "energy"), ("share", "0.5")], ROUNDING),
    row("loftq", &[], 0.34),
    row("loftq", &[("block", "16"), ("iterations", "2"), ("svd", "fast")], 0.18),
    row("qpissa", &[], 0.34),
    row("random-control", &[], ROUNDING),
    row("random-control", &[("of", "lora-ga"), ("with", "scale = unit, svd = exact")], 1e-6),
    row("random-control", &[("of", "orthogonal")], 1e-6),
    row("random-control", &[("of", "mica")], 0.0),
    row("random-control", &[("of", "nlora"), ("with", "core=pinv")], 1e-5),
    row("random-control", &[("of", "lora-xs")], 1e-4),
    row("random-control", &[("of", "eva")], 0.0),
    row("random-control", &[("of", "svfit"), ("with", "rank = full")], ROUNDING),
    row("eva", &[], 0.0),
    row("eva", &[("center", "false"), ("whiten", "true"), ("stop", "cosine")], 0.0),
    row("eva", &[("rho", "1e9"), ("normalise", "sum")], 0.0),
    row("eva", &[("rho", "1"), ("normalise", "raw"), ("tau", "1")], 0.0),
    row("eva", &[("normalise", "max"), ("stop", "captured")], 0.0),
    row("eva-control", &[], 0.0),
    row("corda", &[], 1e-6),
    row("corda", &[("svd", "fast"), ("damp", "1")], 1e-6),
    row("corda", &[("mode", "kpm")], 1e-6),
    row("corda", &[("mode", "kpm"), ("damp", "0.1"), ("svd", "exact")], 1e-6),
    // The start is the change: nothing is taken back.
    row("lora-sb", &[], 1.0 + 1e-6),
    row("lora-sb", &[("target", "gradient"), ("rate", "0.5"), ("svd", "fast")], 1.0 + 1e-6),
    row("lora-sb", &[("target", "adam-first-step"), ("epsilon", "0.1")], 1.0 + 1e-6),
    row("lora-sb", &[("core", "zero")], 0.0),
    row("lora-sb-control", &[], 1.0 + 1e-6),
    row("lora-sb-control", &[("core", "zero")], 0.0),
];

pub(crate) const RANK: usize = 6;
pub(crate) const SHAPES: [(usize, usize); 3] = [(72, 40), (40, 72), (300, 260)];

pub(crate) fn random(seed: u64, m: usize, n: usize) -> Mat<f32> {
    let draws = Seed(seed).normal(m * n);
    Mat::from_fn(m, n, |i, j| draws[i * n + j])
}

pub(crate) fn site((out, inp): (usize, usize)) -> Site {
    Site { out, inp, scale: scale(16.0, RANK, true) }
}

/// Moments of more inputs than they are wide, around a mean that is not zero.
pub(crate) fn inputs(width: usize) -> Moments {
    let draws = random(7, width + 40, width);
    let rows = Mat::from_fn(width + 40, width, |i, j| 0.3 + draws[(i, j)] / (j as f32 + 1.0).sqrt());
    let mut moments = Moments::new(width);
    moments.absorb(rows.as_ref()).unwrap();
    moments
}

pub(crate) struct World {
    pub(crate) site: Site,
    pub(crate) weight: Mat<f32>,
    pub(crate) gradient: Mat<f32>,
    pub(crate) moments: Moments,
    /// What of the gradient the method decomposes.
    pub(crate) of: GradientMap,
    /// How many triplets of the gradient are shown, instead of all of it.
    pub(crate) triplets: Option<usize>,
}

impl World {
    pub(crate) fn new(shape: (usize, usize)) -> World {
        let spread = 1.0 / (shape.1 as f32).sqrt();
        World {
            site: site(shape),
            weight: faer::Scale(spread) * random(1, shape.0, shape.1),
            gradient: random(2, shape.0, shape.1),
            moments: inputs(shape.1),
            of: GradientMap::Itself,
            triplets: None,
        }
    }

    pub(crate) fn show(&self, needs: &[Need]) -> Evidence<'_> {
        let mut seen = Evidence::of(self.site).with_rate(0.01);
        for need in needs {
            seen = match need {
                Need::Weight => seen.with_weight(self.weight.as_ref()),
                Need::Gradient => seen.with_gradient(self.shown_gradient()),
                Need::Inputs => seen.with_inputs(Inputs::Moments(&self.moments)),
                other => panic!("no evidence of {other} in this test yet"),
            };
        }
        seen
    }
}

impl World {
    pub(crate) fn shown_gradient(&self) -> Gradient<'_> {
        match self.triplets {
            None => Gradient::Exact(self.gradient.as_ref()),
            Some(count) => Gradient::Factors {
                leading: svd_in_f64(self.of.apply(self.gradient.as_ref()).as_ref()).unwrap().head(count),
                energy: None,
                of: self.of,
            },
        }
    }
}

pub(crate) fn method(row: &Row) -> Box<dyn Initialiser> {
    by_name(row.name, row.choices.iter().copied()).unwrap()
}

/// The change at scale 1, `left · right` or `left · core · right`, formed by hand.
pub(crate) fn change(start: &Start) -> Mat<f32> {
    let left = match &start.core {
        Some(core) => multiply(start.delta.left.as_ref(), core.as_ref()),
        None => start.delta.left.clone(),
    };
    multiply(left.as_ref(), start.delta.right.as_ref())
}

/// base + scale·change.
pub(crate) fn sum(start: &Start, world: &World) -> Mat<f32> {
    let change = change(start);
    start.base_weight(world.weight.as_ref(), world.site.scale) + faer::Scale(world.site.scale as f32) * change
}
