//! Initialisers: pure functions from evidence, rank and seed to low-rank factors.
//!
//! A [`Start`] is `left [out, r]` and `right [r, in]`, the trainable factors themselves, *before* the scale: the change
//! of the weight is `scale · left · right`, and the scale is applied by whoever applies the change. Some papers choose
//! factors by what the change should be (PiSSA's `scale · left · right` is the best approximation of W), so the scale is
//! part of the problem, [`Site::scale`].
//!
//! A new method is its file in `methods` and its line in [`ALL`].
//!
//! ```
//! use faer::Mat;
//! use lowrank_init::{Evidence, Site, by_name};
//! use lowrank_record::{Seed, scale};
//!
//! let weight = Mat::<f32>::from_fn(6, 5, |i, j| (i as f32 - j as f32).sin());
//! let site = Site { out: 6, inp: 5, scale: scale(16.0, 2, true) };
//! let seen = Evidence::of(site).with_weight(weight.as_ref());
//! let start = by_name("pissa", [("svd", "exact")])?.start(&seen, 2, Seed(7))?;
//! assert_eq!(start.delta.shape(), (6, 5));
//! # Ok::<(), lowrank_init::InitError>(())
//! ```

mod diagonal;
mod error;
mod evidence;
mod gradient_map;
mod initialiser;
mod inputs;
mod leading;
mod magnitude;
pub mod methods;
mod redistribute;
mod stored;

pub use error::InitError;
pub use evidence::{Evidence, Gradient, Site};
pub use gradient_map::GradientMap;
pub use initialiser::{Base, Initialiser, Start};
pub use inputs::{CollectedInputs, Inputs, InputsCollector, InputsWanted, Statistic, Stop};
pub use leading::{Exactness, Leading};
pub use lowrank_record::{Named, Options};
pub use magnitude::Magnitude;
pub use redistribute::{Place, alpha_after, most_rank, redistribute};
pub use stored::{Quantiser, Stored};

/// Every initialiser with its defaults, in the order in which they are listed.
pub const ALL: &[&dyn Initialiser] = &[
    &methods::Kaiming,
    &methods::Gaussian::DEFAULT,
    &methods::Orthogonal::DEFAULT,
    &methods::Pissa::DEFAULT,
    &methods::LoraGa::DEFAULT,
    &methods::LoraGaControl::DEFAULT,
    &methods::Olora::DEFAULT,
    &methods::Milora,
    &methods::Mica,
    &methods::LoraXs::DEFAULT,
    &methods::Slora,
    &methods::Nlora::DEFAULT,
    &methods::Loldu::DEFAULT,
    &methods::Svfit::DEFAULT,
    &methods::Loftq::DEFAULT,
    &methods::Qpissa::DEFAULT,
    &methods::RandomControl::DEFAULT,
    &methods::Eva::DEFAULT,
    &methods::EvaControl,
    &methods::Corda::DEFAULT,
    &methods::LoraSb::DEFAULT,
    &methods::LoraSbControl::DEFAULT,
];

/// The initialiser of this name (or alias) with these choices; what is not given has the default of its card.
/// Upper and lower case, and `_` and `-`, are the same in names and in named values.
///
/// # Errors
/// [`InitError::UnknownMethod`], [`InitError::UnknownOption`], [`InitError::RepeatedOption`], [`InitError::BadValue`].
pub fn by_name<K: AsRef<str>, V: AsRef<str>>(
    name: &str,
    options: impl IntoIterator<Item = (K, V)>,
) -> Result<Box<dyn Initialiser>, InitError> {
    let wanted = lowrank_record::plain(name);
    let known = || ALL.iter().flat_map(|method| method.aliases().iter().copied().chain([method.card().name]));
    let method = ALL
        .iter()
        .find(|method| method.card().name == wanted || method.aliases().contains(&&*wanted))
        .ok_or_else(|| InitError::UnknownMethod {
            name: name.to_owned(),
            hint: lowrank_record::nearest(&wanted, known()),
        })?;
    method.configure(&Options::new(method.card(), options)?)
}
