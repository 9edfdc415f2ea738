//! PiSSA beside a quantised base: `scale·left·right` = the best rank-r approximation of W `[out, in]`, and the base becomes
//! `quantised(W − scale·left·right)`.
//!
//! Needs the weight; the function changes by what quantising the rest loses, which is less than quantising W loses where W has
//! strong leading directions.
//!
//! Source: Meng, Wang, Zhang, "PiSSA: Principal Singular Values and Singular Vectors Adaptation of Large Language Models", 2024 (QPiSSA,
//! one turn): decomposed in full precision first, quantised afterwards. See `pissa` for what differs in the decomposition.

use lowrank_linalg::energy;
use lowrank_record::{Card, Choice, Kind, Need, Promise, Seed, Source};

use super::Pissa;
use crate::{Base, Evidence, InitError, Initialiser, Named, Options, Quantiser, Site, Start};

/// PiSSA beside a quantised base.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Qpissa {
    /// How the base is stored.
    pub quantiser: Quantiser,
    /// How the weight is decomposed.
    pub pissa: Pissa,
}

static CARD: Card = Card {
    name: "qpissa",
    kind: Kind::Initialiser,
    summary: "pissa, and the base becomes its rest quantised",
    source: Source {
        authors: "Meng, Wang, Zhang",
        title: "PiSSA: Principal Singular Values and Singular Vectors Adaptation of Large Language Models",
        year: 2024,
        link: "https://arxiv.org/abs/2404.02948",
    },
    needs: &[Need::Weight],
    promise: Promise::Within(0.34),
    choices: &[
        Choice {
            name: "format",
            default: "nf4",
            values: "nf4 | q4-0 | q8-0",
            meaning: "how the base is stored: NF4, or GGUF's Q4_0 or Q8_0 (which need rows of whole blocks of 32)",
        },
        Choice {
            name: "block",
            default: "64",
            values: "a whole number from 2 to 4096",
            meaning: "of nf4: values that share a scale; fewer lose less and take more room",
        },
        Choice {
            name: "svd",
            default: "auto",
            values: "auto | exact | fast",
            meaning: "exact SVD, randomised SVD, or exact up to 128 on the shorter side and randomised above",
        },
        Choice {
            name: "power",
            default: "4",
            values: "a whole number from 0 to 64",
            meaning: "power iterations of the randomised SVD; more is closer to exact and dearer",
        },
    ],
    notes: &[
        "the new base is the dequantised rest in f32: whoever stores it quantised later must use the same format and block",
        "one turn; the authors also iterate, which is loftq begun from the other end",
        "the promise is what any weight keeps; the report says what this one lost",
    ],
};

impl Qpissa {
    /// NF4 in blocks of 64, as the authors.
    pub const DEFAULT: Qpissa = Qpissa { quantiser: Quantiser::DEFAULT, pissa: Pissa::DEFAULT };
}

impl Initialiser for Qpissa {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn replaces_base(&self) -> bool {
        true
    }

    fn promise(&self) -> Promise {
        Promise::Within(self.quantiser.bound())
    }

    fn admits(&self, site: Site, rank: usize) -> Result<(), InitError> {
        site.check(CARD.name, rank)?;
        self.quantiser.admits(CARD.name, site)
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        vec![
            ("format", self.quantiser.format.name().to_owned()),
            ("block", self.quantiser.block.to_string()),
            ("svd", self.pissa.svd.name().to_owned()),
            ("power", self.pissa.power.to_string()),
        ]
    }

    fn configure(&self, options: &Options) -> Result<Box<dyn Initialiser>, InitError> {
        let pissa = Pissa { svd: options.named("svd")?, power: options.count("power", 64)? };
        Ok(Box::new(Qpissa { quantiser: Quantiser::from_options(options)?, pissa }))
    }

    fn start(&self, seen: &Evidence<'_>, rank: usize, seed: Seed) -> Result<Start, InitError> {
        let site = seen.site();
        self.admits(site, rank)?;
        let (delta, report) = self.pissa.principal(CARD.name, seen, rank, seed)?;
        let weight = seen.weight(CARD.name)?;
        let size = energy(weight).sqrt();
        let plain = self.quantiser.round(CARD.name, weight)?;
        let rest = weight - delta.times(site.scale).reconstruct();
        let quantised = self.quantiser.round(CARD.name, rest.as_ref())?;
        let lost = |a, b| Quantiser::error(a, b, size);
        let report = report
            .with("format", self.quantiser.format.name())
            .with("error of quantising alone, relative to the weight", lost(weight, plain.as_ref()))
            .with("error kept, relative to the weight", lost(rest.as_ref(), quantised.as_ref()));
        Start::checked(CARD.name, delta, Base::Replace(quantised), report)
    }
}
