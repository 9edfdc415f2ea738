//! Why a change cannot be put on a layer. The site's name is added by the layer above.

use lowrank_record::OptionError;

/// Why a change cannot be put on a layer.
#[derive(Debug, thiserror::Error)]
pub enum AdaptError {
    /// The factors do not multiply to the shape of the weight.
    #[error(
        "factors with {left} and {right} values at rank {rank} do not make a change of a weight [{out}, {inp}]: \
         expected {out}×{rank} and {rank}×{inp}"
    )]
    Shape {
        /// Values in the left factor.
        left: usize,
        /// Values in the right factor.
        right: usize,
        /// The rank that was asked for.
        rank: usize,
        /// Rows of the weight.
        out: usize,
        /// Columns of the weight.
        inp: usize,
    },
    /// A core of another size than the rank.
    #[error("a core with {core} values at rank {rank}: expected {rank}×{rank}")]
    CoreShape {
        /// Values in the core.
        core: usize,
        /// The rank of the factors.
        rank: usize,
    },
    /// A change of rank 0.
    #[error("a change of rank 0 is no change; give a rank of at least 1, or exclude this site")]
    Rank,
    /// A form of two factors without a start.
    #[error("{form} begins with the factors of an initialiser, and there are none; choose an initialiser")]
    NeedsStart {
        /// The form.
        form: &'static str,
    },
    /// A form that makes its own start, and factors for it.
    #[error(
        "{form} makes its own start and takes no factors; leave the initialiser out, or choose a form of two factors (lora)"
    )]
    TakesNothing {
        /// The form.
        form: &'static str,
    },
    /// A core where the form has no place for one.
    #[error(
        "{form} has no place for the core of this start, left·core·right; choose the form core (or diag, if it is diagonal)"
    )]
    Core {
        /// The form.
        form: &'static str,
    },
    /// A core that is not diagonal where the form needs one that is.
    #[error("{form} takes a diagonal core, and this start has one that is not; choose the form core")]
    NotDiagonal {
        /// The form.
        form: &'static str,
    },
    /// A start from which no gradient reaches what is trained.
    #[error("{form} never learns from this start: {why}")]
    NeverLearns {
        /// The form.
        form: &'static str,
        /// What is wrong, and what to do.
        why: &'static str,
    },
    /// A row without a length where a form divides by it.
    #[error(
        "{form}: row {row} of the weight with its change has norm {norm:.1e}, no more than a thousandth of √(‖w‖² + ‖s·l·R‖²) \
         = {parts:.1e}, so it has no direction; exclude this site, or lower the rate"
    )]
    NoDirection {
        /// The form.
        form: &'static str,
        /// The row.
        row: usize,
        /// Its norm with the change.
        norm: f64,
        /// The norm of the weight's row and the change's beside each other.
        parts: f64,
    },
    /// A choice that does not fit the shape of the weight.
    #[error("{form}: {choice} = {value} does not fit a weight [{out}, {inp}]: {hint}")]
    Fit {
        /// The form.
        form: &'static str,
        /// The choice.
        choice: &'static str,
        /// Its value.
        value: usize,
        /// Rows of the weight.
        out: usize,
        /// Columns of the weight.
        inp: usize,
        /// What would fit.
        hint: String,
    },
    /// A stored part is missing.
    #[error("{form}: the stored adapter has no {part}; tensors are missing")]
    MissingPart {
        /// The form.
        form: &'static str,
        /// The part.
        part: &'static str,
    },
    /// A stored part that the form does not know.
    #[error(
        "{form}: the stored adapter holds {part}, which this form does not have; was it made by another form?"
    )]
    UnknownPart {
        /// The form.
        form: &'static str,
        /// The part.
        part: String,
    },
    /// A stored part of another shape than the weight and the choices ask for.
    #[error("{form}: the stored {part} has shape {found:?} and {values} values, expected {wanted}")]
    PartShape {
        /// The form.
        form: &'static str,
        /// The part.
        part: &'static str,
        /// Its shape.
        found: Vec<usize>,
        /// How many values it has.
        values: usize,
        /// The shape that it should have.
        wanted: String,
    },
    /// Numbers that make no schedule of ranks, or a stored state that is not one's own.
    #[error("adalora's ranks: {why}")]
    Budget {
        /// What is wrong, and what to do.
        why: String,
    },
    /// No form of this name.
    #[error("no form is called {name}; {hint}")]
    UnknownForm {
        /// The name given.
        name: String,
        /// The nearest name, or all of them.
        hint: String,
    },
    /// A choice of a form cannot be taken.
    #[error(transparent)]
    Choice(#[from] OptionError),
    /// The weight is being trained itself.
    #[error("the weight of this layer is trained itself; a change on top of it is not supported")]
    Trained,
    /// The layer holds adapters.
    #[error("this layer holds adapters; take them off before its weight is trained")]
    Adapted,
    /// A layer holds no adapter of this name.
    #[error("no adapter named {0} here")]
    Unknown(String),
    /// A layer holds an adapter of this name already.
    #[error("an adapter named {0} is mounted here already; give the new one another name")]
    Taken(String),
    /// The layer is merged.
    #[error("adapter {0} is merged into the weight; unmerge it first")]
    Merged(String),
}
