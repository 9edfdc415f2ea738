//! The card of a method: the constants that feed `lowrank list`, `lowrank explain`, the reference pages, the laws
//! and the benchmarks, so that no list of methods is ever written by hand a second time.

use std::fmt;

/// What a method is: one constant per method, found by walking the catalogue of its crate.
#[derive(Debug, Clone, PartialEq)]
pub struct Card {
    /// The name typed by the user: lower case, words joined by hyphens (`lora-ga`).
    pub name: &'static str,
    /// Which catalogue it belongs to.
    pub kind: Kind,
    /// The method in one sentence, formula first where there is one.
    pub summary: &'static str,
    /// Where the method was published.
    pub source: Source,
    /// What it must be shown; missing evidence is an error, never a fallback.
    pub needs: &'static [Need],
    /// What it promises about the model's function at step 0.
    pub promise: Promise,
    /// The named choices it takes, with their defaults.
    pub choices: &'static [Choice],
    /// Where we differ from the source or its code, and why; what the method does not do.
    pub notes: &'static [&'static str],
}

/// The catalogue a card belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Chooses where an adapter starts.
    Initialiser,
    /// Says how a change is parametrised and applied.
    Form,
    /// A family of pretrained networks.
    Model,
    /// Data with a loss and a metric.
    Task,
    /// Puts the changes of several adapters together.
    Combination,
}

/// The publication that a method comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source {
    /// Authors, as a reader would cite them.
    pub authors: &'static str,
    /// Title of the publication.
    pub title: &'static str,
    /// Year of publication.
    pub year: u16,
    /// Link, usually an arXiv address; empty where there is none.
    pub link: &'static str,
}

/// Evidence that a start may need to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// The weight matrix itself, `[out, in]`.
    Weight,
    /// Statistics of the layer's inputs.
    Inputs,
    /// The loss gradient of the weight, or the leading factors of it.
    Gradient,
    /// Squared gradients (empirical Fisher information).
    Fisher,
}

/// What a start promises about base + change at step 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Promise {
    /// The change is exactly zero.
    Zero,
    /// The change is not zero, but the base gives up exactly as much (in exact arithmetic).
    Exact,
    /// Base + change differs from W by at most this part of the larger of `‖W‖` and `scale·‖left‖·‖right‖` (Frobenius).
    Within(f64),
    /// No promise: the change is added to the base.
    None,
}

/// A named choice of a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// Name as typed by the user.
    pub name: &'static str,
    /// The default, as typed by the user.
    pub default: &'static str,
    /// The values it takes.
    pub values: &'static str,
    /// Meaning, and what a larger value does.
    pub meaning: &'static str,
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Need::Weight => "weight",
            Need::Inputs => "inputs",
            Need::Gradient => "gradient",
            Need::Fisher => "fisher",
        })
    }
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Promise::Zero => f.write_str("the change starts at exactly zero"),
            Promise::Exact => f.write_str("base + change = the original weight"),
            Promise::Within(bound) => {
                write!(
                    f,
                    "base + change = the original weight within {bound:e} of the larger of the weight's norm and the product \
                     of the factors' norms"
                )
            }
            Promise::None => f.write_str("the function changes at step 0"),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, \"{}\", {}", self.authors, self.title, self.year)?;
        if !self.link.is_empty() {
            write!(f, ", {}", self.link)?;
        }
        Ok(())
    }
}
