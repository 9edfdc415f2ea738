//! What can be wrong with a data file, a tokenizer or a chat template.

/// One variant per cause. Messages say what is wrong and what to do; [`TaskError::AtLine`] adds where.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TaskError {
    /// The cause, with the line of the data file (counted from 1) that has it.
    #[error("line {line}: {cause}")]
    AtLine {
        /// Line of the data file, from 1.
        line: usize,
        /// What is wrong there.
        #[source]
        cause: Box<TaskError>,
    },
    /// The file holds no record.
    #[error("the data holds no record: give a file with at least one line")]
    NoRecords,
    /// A line is valid JSON but not an object.
    #[error("found {found} where an object was expected: write one JSON object a line")]
    NotObject {
        /// The JSON type found.
        found: &'static str,
    },
    /// The keys fit no known kind of record.
    #[error("the keys {found} fit no kind of record; expected {expected}{hint}")]
    UnknownKeys {
        /// The keys of the object, in file order.
        found: String,
        /// Every kind with its keys.
        expected: String,
        /// "; did you mean ...", or nothing.
        hint: String,
    },
    /// The keys fit two kinds of record.
    #[error("the keys fit both {first} and {second}: keep the keys of one of them")]
    Ambiguous {
        /// The first kind that fits.
        first: &'static str,
        /// The second kind that fits.
        second: &'static str,
    },
    /// Two kinds of record in one file.
    #[error(
        "this record is of kind {kind}, but line {first_line} is of kind {first}: keep one kind per file"
    )]
    MixedKinds {
        /// Kind of this record.
        kind: &'static str,
        /// Kind of the first record.
        first: &'static str,
        /// Line of the first record.
        first_line: usize,
    },
    /// A value that must be text is not.
    #[error("`{key}` is {found}, not text: write a JSON string (NaN, null and numbers are not text)")]
    NotText {
        /// The key.
        key: String,
        /// The JSON type found.
        found: &'static str,
    },
    /// A text is empty or only white space.
    #[error("`{key}` is empty: fill it in or remove the line")]
    EmptyText {
        /// The key.
        key: String,
    },
    /// `messages` is not a list of messages.
    #[error("`messages` is {found}: write a list of objects with `role` and `content`")]
    NotMessages {
        /// What was found.
        found: &'static str,
    },
    /// A conversation without a turn to learn.
    #[error(
        "no message has the role `assistant`, so nothing would be learned: add an answer, or train on everything (--loss-on all)"
    )]
    NoAnswer,
    /// Chat layout was asked for, or is needed, and the model has no chat template.
    #[error(
        "{kind} needs a chat template and the model has none: use a model that has one, or prompt/completion data with --format plain"
    )]
    NoTemplate {
        /// Kind of record.
        kind: &'static str,
    },
    /// Messages cannot be laid out without a template.
    #[error("`messages` cannot be written as plain text: use --format auto or chat")]
    MessagesPlain,
    /// The chat template is not valid Jinja.
    #[error("the chat template cannot be read: {detail}")]
    TemplateSyntax {
        /// What the template engine says.
        detail: String,
    },
    /// The chat template refused these messages.
    #[error("the chat template refused the messages: {detail}")]
    TemplateRender {
        /// What the template engine says.
        detail: String,
    },
    /// A part of the conversation is not written as in the whole conversation.
    #[error(
        "the chat template writes the conversation up to message {message} differently from the same part of the whole \
         (from byte {at}: {alone:?} alone, {whole:?} in the whole), so the answers' places are unknown: \
         train on everything (--loss-on all), on the last answer (--loss-on last), or give a template that only appends"
    )]
    PrefixBroken {
        /// Index of the message, from 0.
        message: usize,
        /// First byte that differs.
        at: usize,
        /// What the part alone has there.
        alone: String,
        /// What the whole has there.
        whole: String,
    },
    /// A date that is not in the calendar.
    #[error("{year}-{month}-{day} is no date of the calendar")]
    NoSuchDate {
        /// Year.
        year: i32,
        /// Month, from 1.
        month: u8,
        /// Day, from 1.
        day: u8,
    },
    /// The tokenizer file cannot be used.
    #[error("the tokenizer cannot be read: {detail}")]
    TokenizerFile {
        /// What the tokenizer library says.
        detail: String,
    },
    /// The tokenizer failed on a text.
    #[error("the tokenizer failed: {detail}")]
    Tokenize {
        /// What the tokenizer library says.
        detail: String,
    },
    /// A field of a GGUF vocabulary, a tokenizer_config.json or a generation_config.json is wrong.
    #[error("tokenizer field `{field}` {problem}")]
    Field {
        /// The field.
        field: String,
        /// What is wrong and what was expected.
        problem: String,
    },
    /// A GGUF pre-tokenizer name that is not known.
    #[error(
        "pre-tokenizer `{pre}` is not known; known are {known}. A wrong one would silently give other tokens: use the model's tokenizer.json instead"
    )]
    UnknownPre {
        /// The name in the file.
        pre: String,
        /// All known names.
        known: String,
    },
    /// Plain text must end with the end-of-text token, and none is known.
    #[error(
        "the tokenizer names no end-of-text token (eos): give the model's tokenizer_config.json or generation_config.json"
    )]
    NoEos,
    /// Every example lost all of its loss tokens to the length limit.
    #[error(
        "none of the {read} examples has a token to learn within {max_length} tokens (shortest prompt: {shortest_prompt} tokens): raise the maximum length"
    )]
    NothingLeft {
        /// Examples read.
        read: usize,
        /// The limit.
        max_length: usize,
        /// Shortest prompt, in tokens.
        shortest_prompt: usize,
    },
    /// A record without the text or the label that it needs.
    #[error("the record {problem}")]
    Label {
        /// What is wrong and what was expected.
        problem: String,
    },
    /// A label that there was nothing to learn from.
    #[error("the label {label:?} is none of those that are trained on: {known}")]
    UnknownLabel {
        /// The label.
        label: String,
        /// Those that are known.
        known: String,
    },
    /// A setting outside its range.
    #[error("`{setting}` is {value}, but must be {expected}")]
    Setting {
        /// Name of the setting.
        setting: &'static str,
        /// What was given.
        value: String,
        /// What is allowed.
        expected: &'static str,
    },
    /// A held-out part that leaves nothing on one side.
    #[error(
        "cannot hold out {held_out} of {examples} examples: both sides need at least one (copies of an example stay together)"
    )]
    Split {
        /// Examples asked for.
        held_out: usize,
        /// Examples there are.
        examples: usize,
    },
    /// An example is longer than a row.
    #[error(
        "an example of {length} tokens does not fit a row of {time}: tokenise with max_length at most {time}"
    )]
    RowTooShort {
        /// Tokens of the example.
        length: usize,
        /// Tokens of a row.
        time: usize,
    },
    /// A token id outside the range of targets.
    #[error("token id {token} does not fit a 32-bit signed target")]
    TokenTooLarge {
        /// The id.
        token: u32,
    },
    /// A batch number past the end of its epoch.
    #[error("batch {index} does not exist: the epoch has {batches}")]
    NoSuchBatch {
        /// Asked for, from 0.
        index: usize,
        /// How many there are.
        batches: usize,
    },
    /// A multiple-choice question that cannot be scored.
    #[error("the question {problem}")]
    Question {
        /// What is wrong and what was expected.
        problem: String,
    },
    /// Text for a model that reads one text and writes another.
    #[error(
        "{kind} records are no pairs: an encoder–decoder learns from prompt/completion or question/answer"
    )]
    NoPair {
        /// Kind of record.
        kind: &'static str,
    },
    /// An image processor's configuration that cannot be followed.
    #[error("preprocessor_config.json: `{key}` {problem}")]
    Processor {
        /// The key.
        key: &'static str,
        /// What is wrong and what is supported.
        problem: String,
    },
    /// An image that the model's processor cannot make an input of.
    #[error("{place}: {problem}")]
    Picture {
        /// Which image: its file, or its number in a file.
        place: String,
        /// What is wrong.
        problem: String,
    },
    /// Nothing to tell apart.
    #[error("all {records} records have the one label {class:?}: a classification needs at least two")]
    OneClass {
        /// The class.
        class: String,
        /// Records read.
        records: usize,
    },
    /// A class that the model's head does not have.
    #[error("the class {class:?} is none of the model's ({known}); rename it")]
    NotOfModel {
        /// The class of the data.
        class: String,
        /// Classes of the model.
        known: String,
    },
    /// A BIG-bench task file with another structure.
    #[error("BIG-bench task: {problem}")]
    BigBench {
        /// What is wrong and what was expected.
        problem: String,
    },
}

impl TaskError {
    /// The same error, with its line.
    #[must_use]
    pub fn at(self, line: usize) -> TaskError {
        TaskError::AtLine { line, cause: Box::new(self) }
    }
}

/// The JSON type of a value, for messages.
pub(crate) fn json_type(value: &serde_json::Value) -> &'static str {
    match value {
        serde_json::Value::Null => "null",
        serde_json::Value::Bool(_) => "a boolean",
        serde_json::Value::Number(_) => "a number",
        serde_json::Value::String(_) => "a string",
        serde_json::Value::Array(_) => "a list",
        serde_json::Value::Object(_) => "an object",
    }
}
