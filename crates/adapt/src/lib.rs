//! Forms of a change of a weight, the slot that holds them, and merging.
//!
//! A [`Form`] says how a change `Δ [out, in]` of a weight is parametrised; its [`Adapter`] says how the change takes part in
//! the layer's product ([`Effect`]), without forming `Δ` where the form allows. A [`Linear`] layer holds an ordered list of
//! adapters. This crate knows no decompositions and no initialisers: factors come in, layers go out.

mod allocator;
mod error;
mod footprint;
mod form;
pub mod forms;
mod linear;
mod part;
mod rank_schedule;

pub use allocator::{Allocator, Trained};
pub use error::AdaptError;
pub use footprint::{Footprint, Reach, trained};
pub use form::{Adapter, Effect, Form, Layer, LowRankPath, OfProduct, Offset, Site, Start, Takes};
pub use linear::{Linear, Mounted, Weight};
pub use part::Part;
pub use rank_schedule::{Budget, RankSchedule, Triplets};

use lowrank_record::Options;

/// Every form with its defaults, in the order in which they are listed.
pub const ALL: &[&dyn Form] = &[
    &forms::Lora::DEFAULT,
    &forms::Core::DEFAULT,
    &forms::Diag::DEFAULT,
    &forms::Dora,
    &forms::Vera::DEFAULT,
    &forms::Ia3::DEFAULT,
    &forms::Loha,
    &forms::Lokr::DEFAULT,
    &forms::Oft::DEFAULT,
    &forms::Boft::DEFAULT,
    &forms::Adalora::DEFAULT,
    &forms::Full::DEFAULT,
];

/// The form of this name with these choices; what is not given has the default of its card. Upper and lower case, and `_`
/// and `-`, are the same in names and in named values.
///
/// # Errors
/// [`AdaptError::UnknownForm`], [`AdaptError::Choice`].
pub fn by_name<K: AsRef<str>, V: AsRef<str>>(
    name: &str,
    options: impl IntoIterator<Item = (K, V)>,
) -> Result<Box<dyn Form>, AdaptError> {
    let wanted = lowrank_record::plain(name);
    let form = ALL.iter().find(|form| form.card().name == wanted).ok_or_else(|| {
        let known = ALL.iter().map(|form| form.card().name);
        AdaptError::UnknownForm { name: name.to_owned(), hint: lowrank_record::nearest(&wanted, known) }
    })?;
    form.configure(&Options::new(form.card(), options)?)
}
