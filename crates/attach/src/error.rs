//! What can be wrong with a plan, its evidence or a stored adapter.

/// Why adapters cannot be attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// No layer holds an adapter of this name.
    #[error("no adapter is called {name:?}; {hint}")]
    UnknownAdapter {
        /// What was asked for.
        name: String,
        /// The nearest name, or all of them.
        hint: String,
    },
    /// A target names nothing.
    #[error("target \"{target}\" matches no linear layer; the model has {known}{hint}")]
    NoMatch {
        /// What was asked for.
        target: String,
        /// The names that could be meant.
        known: String,
        /// The nearest name, if one is near.
        hint: String,
    },
    /// A target of which nothing is left.
    #[error(
        "target \"{target}\" is left without a layer by --exclude and --layers; drop the target, or leave it a layer"
    )]
    Narrowed {
        /// What was asked for.
        target: String,
    },
    /// Every target was excluded.
    #[error("no layer is left to adapt: the targets, --exclude and --layers together leave none")]
    NothingLeft,
    /// A range of blocks is not one, or lies outside.
    #[error("layers \"{text}\": {problem}")]
    Layers {
        /// As typed.
        text: String,
        /// What is wrong.
        problem: String,
    },
    /// A pattern without use.
    #[error("pattern \"{pattern}\": {problem}")]
    Pattern {
        /// As typed.
        pattern: String,
        /// What is wrong.
        problem: String,
    },
    /// A pattern is not a regular expression that can be used.
    #[error(transparent)]
    Regex(#[from] lowrank_store::peft::PeftError),
    /// A rank that a layer cannot have.
    #[error(
        "rank {rank} at {site}: the weight is [{out}, {inp}], so the rank goes from 1 to {max}; lower --rank, or exclude the layer"
    )]
    Rank {
        /// The layer.
        site: String,
        /// The rank.
        rank: usize,
        /// Rows.
        out: usize,
        /// Columns.
        inp: usize,
        /// The largest rank.
        max: usize,
    },
    /// No text to calibrate with.
    #[error("the start needs gradients, but there is no calibration text")]
    NoCalibration,
    /// No text to show the layers.
    #[error("the start needs to see what the layers are fed, but there is no calibration text")]
    NoInputs,
    /// Every token of the calibration text is left out.
    #[error(
        "no token of the calibration text is shown to the start: all are padding, or all are prompt where only what is learned          is shown; check the data's completions, --loss-on or --shown"
    )]
    NothingShown,
    /// The inputs of a layer could not be summed up.
    #[error("inputs of {site}: {source}")]
    Inputs {
        /// The layer.
        site: String,
        /// What is wrong.
        source: lowrank_linalg::LinalgError,
    },
    /// Ranks were given out, and none was left for any layer.
    #[error(
        "{init} leaves every layer without a rank: what was seen of the inputs explains nothing; show it more text"
    )]
    NoRanks {
        /// The initialiser.
        init: &'static str,
    },
    /// No token of the calibration text carries loss.
    #[error("no token of the calibration text carries loss; check the data's completions or --loss-on")]
    NoLoss,
    /// The backward pass never came to a layer.
    #[error("the backward pass did not reach {site}; this is a defect of lowrank")]
    NotReached {
        /// The layer.
        site: String,
    },
    /// The backward pass came to a layer more than once.
    #[error(
        "the model uses {site} more than once, and one calibration batch shows each use by itself; show it several batches: \
         --calibration-batch below --calibration"
    )]
    SeenTwice {
        /// The layer.
        site: String,
    },
    /// The gradient of a layer could not be factored.
    #[error("gradient of {site}: {source}")]
    Evidence {
        /// The layer.
        site: String,
        /// What is wrong.
        source: lowrank_linalg::LinalgError,
    },
    /// A start failed.
    #[error("{site}: {source}")]
    Init {
        /// The layer.
        site: String,
        /// What is wrong.
        source: lowrank_init::InitError,
    },
    /// A form refused the start.
    #[error("{site}: {source}")]
    Adapt {
        /// The layer.
        site: String,
        /// What is wrong.
        source: lowrank_adapt::AdaptError,
    },
    /// The factors kept of a start are damaged.
    #[error("the stored start of {site}: {source}")]
    Stored {
        /// The layer.
        site: String,
        /// What is wrong.
        source: lowrank_linalg::LinalgError,
    },
    /// A stored adapter names a layer that the model does not have.
    #[error("the adapter changes \"{0}\", which this model does not have; {why}", why = why_unknown(.0))]
    UnknownSite(String),
    /// A stored adapter does not fit a layer.
    #[error(
        "the adapter's {site} is [{out}, {inp}], the model's is [{model_out}, {model_inp}]; was it made for another model?"
    )]
    SiteShape {
        /// The layer.
        site: String,
        /// Rows of the change.
        out: usize,
        /// Columns of the change.
        inp: usize,
        /// Rows of the weight.
        model_out: usize,
        /// Columns of the weight.
        model_inp: usize,
    },
    /// Another number of starts than layers.
    #[error("{have} stored starts for {want} layers; were they kept from another run?")]
    Starts {
        /// Starts given.
        have: usize,
        /// Layers of the plan.
        want: usize,
    },
    /// A start that is not zero, and nothing that takes it back.
    #[error(
        "{site}: {init} starts at a change that is not zero; without an offset the model would begin as another function. \
         Take the start back beside the weight (offset = shadow) or inside it (offset = base)"
    )]
    NotTakenBack {
        /// The layer.
        site: String,
        /// The initialiser.
        init: &'static str,
    },
    /// An initialiser beside a form that makes its own start.
    #[error(
        "the form {form} makes its own start, so {init} has no place in it; leave --init out, or choose a form of two factors"
    )]
    TakesNoStart {
        /// The form.
        form: &'static str,
        /// The initialiser.
        init: &'static str,
    },
    /// A form of two factors without an initialiser.
    #[error("the form {form} needs a start; choose one by --init (see `lowrank list`)")]
    NeedsStart {
        /// The form.
        form: &'static str,
    },
    /// A stored start lacks the weight that it belongs on.
    #[error("the stored start of {site} does not hold the weight that it belongs on; start the run anew")]
    StoredBase {
        /// The layer.
        site: String,
    },
    /// An adapter with more than two factors.
    #[error(
        "the adapter's {site} has a bias beside its factors, or sits on an embedding; this version applies factors of linear \
         layers only"
    )]
    Beside {
        /// The layer.
        site: String,
    },
    /// An exact decomposition of a gradient that is never whole.
    #[error(
        "svd = exact needs the whole gradient of a layer at once, and {batches} calibration passes each see a part of it; \
         take svd = fast, or one pass: --calibration at most --calibration-batch"
    )]
    ExactInPasses {
        /// Calibration batches.
        batches: usize,
    },
    /// The model failed.
    #[error(transparent)]
    Model(#[from] lowrank_models::ModelError),
}

impl AttachError {
    /// For `map_err`: statistics of the inputs of this layer that could not be had.
    pub(crate) fn inputs(site: &str) -> impl Fn(lowrank_linalg::LinalgError) -> AttachError + '_ {
        move |source| AttachError::Inputs { site: site.to_owned(), source }
    }

    /// For `map_err`: a failed decomposition of the gradient of this layer.
    pub(crate) fn evidence(site: &str) -> impl Fn(lowrank_linalg::LinalgError) -> AttachError + '_ {
        move |source| AttachError::Evidence { site: site.to_owned(), source }
    }
}

/// A model lists its head as a layer unless the embedding serves as one.
fn why_unknown(site: &str) -> &'static str {
    if lowrank_models::is_head(site) {
        "its head is its embedding (tied), which carries no adapter"
    } else {
        "was it made for another model?"
    }
}
