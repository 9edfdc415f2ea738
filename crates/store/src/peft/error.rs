/// What is wrong with an adapter.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PeftError {
    /// The configuration is not an object.
    #[error("adapter_config.json is not a JSON object")]
    NotAnObject,
    /// A key that must be there is not. PEFT would guess, and be wrong without a word.
    #[error(
        "adapter_config.json has no {key:?}; PEFT would guess a value, so write the one that was trained with"
    )]
    MissingKey {
        /// The key.
        key: &'static str,
    },
    /// A key has a value of the wrong kind.
    #[error("adapter_config.json: {key:?} is {found}, {wanted} is needed")]
    WrongType {
        /// The key.
        key: &'static str,
        /// What is there.
        found: String,
        /// What is needed.
        wanted: &'static str,
    },
    /// Not a LoRA.
    #[error("adapter_config.json: peft_type is {found:?}; only LORA is read")]
    NotLora {
        /// The type.
        found: String,
    },
    /// A kind of adapter that is not known here.
    #[error(
        "adapter_config.json: peft_type is {found:?}; known are LORA, IA3, LOHA, LOKR, OFT, BOFT, VERA and ADALORA"
    )]
    UnknownKind {
        /// The type.
        found: String,
    },
    /// A LoRA where another kind was to be read.
    #[error("adapter_config.json: peft_type is \"LORA\", which is read as a LoRA adapter")]
    IsLora,
    /// A key that this kind does not have in PEFT 0.21, which would drop it.
    #[error(
        "adapter_config.json: {kind} has no key {key:?} in PEFT 0.21, which would drop it; remove or correct it"
    )]
    UnknownKey {
        /// The type.
        kind: &'static str,
        /// The key.
        key: String,
    },
    /// Two settings of which one follows from the other.
    #[error("adapter_config.json: give one of {first:?} and {second:?}, and 0 for the other")]
    EitherOr {
        /// The first key.
        first: &'static str,
        /// The second key.
        second: &'static str,
    },
    /// VeRA without the projections that all layers share.
    #[error(
        "adapter_config.json: save_projection is false, so that vera_A and vera_B would be drawn by torch's generator, which is not \
         done here; save the adapter with save_projection true"
    )]
    NoProjection,
    /// AdaLoRA's choice of directions for a module does not fit.
    #[error("adapter_config.json: rank_pattern has {found} answers for {module:?}, init_r says {expected}")]
    BadChoice {
        /// The module.
        module: String,
        /// Answers in the pattern.
        found: usize,
        /// The rank that the training began with.
        expected: usize,
    },
    /// AdaLoRA's choice of directions names a module that is not there.
    #[error("adapter_config.json: rank_pattern names {module:?}, of which no tensor is in the file")]
    ChoiceWithoutModule {
        /// The module.
        module: String,
    },
    /// A tensor that its module must have.
    #[error("tensor {name:?} is missing")]
    MissingTensor {
        /// Its name.
        name: String,
    },
    /// A part that the kind does not have; only our own callers can get this wrong.
    #[error("{kind} has no part {part:?}")]
    UnknownPart {
        /// The type.
        kind: &'static str,
        /// The part.
        part: String,
    },
    /// A start that is not known here.
    #[error(
        "adapter_config.json: init_lora_weights is {found:?}; known are true, false, and in lower case gaussian, eva, \
         orthogonal, mica, pissa, pissa_niter_N, olora, corda, lora_ga, loftq. Write true for a plain adapter"
    )]
    UnknownInit {
        /// The value.
        found: String,
    },
    /// Something that changes the meaning of the factors and is not read here.
    #[error("adapter_config.json: {key:?} is set, which is not supported")]
    Unsupported {
        /// The key.
        key: &'static str,
    },
    /// A pattern that is no regular expression here.
    #[error("pattern {pattern:?} cannot be used: {reason}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// Why.
        reason: String,
    },
    /// The factors belong to a base whose weights were changed at the start.
    #[error(
        "init_lora_weights is {init:?}: these factors belong to a base that was changed at the start, and would be \
         wrong on the untouched one; give the folder of the initial factors too, or convert the adapter first"
    )]
    RawOffset {
        /// The start.
        init: String,
    },
    /// LoftQ replaces the base by its quantised form, which no factors can undo.
    #[error(
        "init_lora_weights is \"loftq\": these factors belong to a base that was quantised at the start, and initial \
         factors cannot undo that; load them on that quantised base, with init_lora_weights true"
    )]
    RawLoftq,
    /// Initial factors were given for an adapter that needs none.
    #[error(
        "initial factors were given, but init_lora_weights is {init:?}, which leaves the base as it is; drop them"
    )]
    NeedlessInitial {
        /// The start.
        init: String,
    },
    /// Initial factors count with another scale than the trained ones, so that their difference means nothing.
    #[error(
        "module {module:?}: the trained factors have scale {trained}, the initial ones {initial}; give the folder saved \
         when this training began"
    )]
    InitialScale {
        /// The module.
        module: String,
        /// Scale of the trained factors.
        trained: f64,
        /// Scale of the initial ones.
        initial: f64,
    },
    /// Initial factors and trained ones do not belong together.
    #[error(
        "module {module:?}: {why} in the initial factors; give the folder saved when this training began"
    )]
    InitialDiffers {
        /// The module.
        module: String,
        /// The difference.
        why: String,
    },
    /// Only the pickled form is there.
    #[error(
        "only adapter_model.bin is here, a pickle, which can run code; save it as adapter_model.safetensors"
    )]
    Pickle,
    /// No factors at all.
    #[error("the adapter holds no factors")]
    Empty,
    /// One factor of two.
    #[error("module {module:?} has {present} but no {missing}")]
    MissingPartner {
        /// The module.
        module: String,
        /// The factor that is there.
        present: &'static str,
        /// The factor that is not.
        missing: &'static str,
    },
    /// A tensor that has no meaning.
    #[error("tensor {name:?} has no place in an adapter of this configuration")]
    ExtraTensor {
        /// Its name.
        name: String,
    },
    /// A name that PEFT would pass over or misread.
    #[error("tensor {name:?}: {why}")]
    Misnamed {
        /// Its name.
        name: String,
        /// What is wrong and what to do.
        why: &'static str,
    },
    /// A shape that fits nothing.
    #[error("tensor {name:?} has shape {shape:?}; {wanted} is needed")]
    Misshaped {
        /// Its name.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
        /// What is needed.
        wanted: String,
    },
    /// The two factors have different ranks.
    #[error("module {module:?}: lora_A has rank {right}, lora_B has rank {left}; is one of them transposed?")]
    RanksDisagree {
        /// The module.
        module: String,
        /// Columns of the left factor.
        left: usize,
        /// Rows of the right factor.
        right: usize,
    },
    /// The rank is not what the configuration says.
    #[error("module {module:?} has rank {found}, r and rank_pattern say {expected}")]
    RankDiffers {
        /// The module.
        module: String,
        /// Rank of the factors.
        found: usize,
        /// Rank by the configuration.
        expected: usize,
    },
    /// The module is none that the configuration names.
    #[error("module {module:?} has factors, but target_modules does not name it")]
    NotATarget {
        /// The module.
        module: String,
    },
    /// The configuration names modules that have no factors.
    #[error("target_modules names {target:?}, but no module of that name has factors; tensors are missing")]
    TargetWithoutFactors {
        /// The target.
        target: String,
    },
    /// `modules_to_save` names a module of which nothing is stored.
    #[error("modules_to_save names {module:?}, but no weight of it is in the file; tensors are missing")]
    SavedWithoutTensor {
        /// The entry.
        module: String,
    },
    /// DoRA without magnitude, or a bias that is announced and absent.
    #[error("module {module:?} has no {what}, but adapter_config.json says {key:?}")]
    MissingPart {
        /// The module.
        module: String,
        /// The part.
        what: &'static str,
        /// The key that announces it.
        key: &'static str,
    },
    /// Not real numbers.
    #[error("tensor {name:?} is {dtype}; F32, BF16, F16 or F64 is needed")]
    Dtype {
        /// Its name.
        name: String,
        /// Its dtype.
        dtype: &'static str,
    },
    /// NaN or infinity.
    #[error("tensor {name:?} holds {value} at {index}; the training diverged, or the file is damaged")]
    NotFinite {
        /// Its name.
        name: String,
        /// Position in the tensor.
        index: usize,
        /// The value.
        value: f32,
    },
    /// Two factors of one module.
    #[error("module {module:?} occurs twice")]
    DuplicateModule {
        /// The module.
        module: String,
    },
    /// Two whole weights of one name.
    #[error("the saved weight {name:?} occurs twice, or is not named in modules_to_save")]
    BadWhole {
        /// Its name.
        name: String,
    },
    /// Sorted, the patterns give a module another scale.
    #[error(
        "module {module:?} is matched by several patterns, and gets another scale when they are sorted, as PEFT does"
    )]
    PatternOrder {
        /// The module.
        module: String,
    },
    /// DoRA's factors cannot be stacked: the magnitude belongs to the changed base.
    #[error("a DoRA adapter cannot be converted to the untouched base by stacking")]
    StackedDora,
    /// A provenance key that the format uses itself.
    #[error("provenance cannot have the key \"format\", which safetensors readers use")]
    ReservedProvenance,
    /// The numbers cannot be stored as asked.
    #[error("tensor {name:?}: {cause}")]
    Narrow {
        /// Its name.
        name: String,
        /// Why.
        cause: lowrank_blocks::BlockError,
    },
}
