//! Why a start cannot be chosen. The site's name is added by the layer above.

use lowrank_blocks::BlockError;
use lowrank_linalg::LinalgError;
use lowrank_record::{Need, OptionError};

/// Why a start cannot be chosen.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum InitError {
    /// Evidence that the method needs was not collected.
    #[error(
        "{method} needs the {need} of this site, which was not collected; collect it, or choose a method that does without"
    )]
    Missing {
        /// The method.
        method: &'static str,
        /// The evidence.
        need: Need,
    },
    /// A rank that no matrix of this shape has.
    #[error(
        "{method}: rank {rank} for a weight [{out}, {inp}]; give a rank from 1 to {max}, or exclude this site",
        max = (*out).min(*inp)
    )]
    Rank {
        /// The method.
        method: &'static str,
        /// The rank asked for.
        rank: usize,
        /// Rows of the weight.
        out: usize,
        /// Columns of the weight.
        inp: usize,
    },
    /// A method that takes one set of directions for each factor, and a weight too small for two.
    #[error(
        "{method}: rank {rank} takes {} singular directions of the gradient, and a weight [{out}, {inp}] has {}; give a rank of \
         at most {}, or exclude this site",
        2 * rank, (*out).min(*inp), (*out).min(*inp) / 2
    )]
    DoubleRank {
        /// The method.
        method: &'static str,
        /// The rank asked for.
        rank: usize,
        /// Rows of the weight.
        out: usize,
        /// Columns of the weight.
        inp: usize,
    },
    /// A method that halves the rank.
    #[error("{method}: rank {rank} is odd and this method splits it in two; give an even rank")]
    OddRank {
        /// The method.
        method: &'static str,
        /// The rank asked for.
        rank: usize,
    },
    /// A scale that no start can be divided by.
    #[error(
        "{method}: scale {scale} (alpha/r or alpha/sqrt(r)) is not a positive number of f32; give a positive alpha of usual size"
    )]
    Scale {
        /// The method.
        method: &'static str,
        /// The scale of the site.
        scale: f64,
    },
    /// Evidence of another shape than the site's.
    #[error(
        "{method}: the {need} is [{rows}, {cols}], the site [{out}, {inp}]; it was collected at another site"
    )]
    Shape {
        /// The method.
        method: &'static str,
        /// The evidence.
        need: Need,
        /// Rows of the evidence.
        rows: usize,
        /// Columns of the evidence.
        cols: usize,
        /// Rows of the weight.
        out: usize,
        /// Columns of the weight.
        inp: usize,
    },
    /// A gradient without a direction.
    #[error(
        "{method}: the gradient of this site is zero everywhere, so it points nowhere; check that the loss depends on this \
         layer and that its labels are not all ignored, exclude this site, or start it with kaiming"
    )]
    ZeroGradient {
        /// The method.
        method: &'static str,
    },
    /// A weight that is zero everywhere, where the start takes its size or its directions from it.
    #[error(
        "{method}: the weight of this site is zero everywhere, so a start made of it is zero and never learns; exclude this \
         site, or start it with kaiming"
    )]
    ZeroWeight {
        /// The method.
        method: &'static str,
    },
    /// Directions of a gradient that it does not have, where their values are divided by.
    #[error(
        "{method}: the gradient of this site has too small a rank for this choice, which divides by a singular value of \
         zero; lower the rank, show it more samples, or take another scale"
    )]
    NoDirection {
        /// The method.
        method: &'static str,
    },
    /// A start whose numbers do not fit into f32.
    #[error(
        "{method}: the start's entries are not finite numbers in f32; choose a smaller size (see `lowrank explain {method}`)"
    )]
    Overflow {
        /// The method.
        method: &'static str,
    },
    /// A start whose numbers are all too small for f32.
    #[error(
        "{method}: both factors of the start are zero in f32, so neither has a gradient and it never learns; choose a larger \
         size (see `lowrank explain {method}`)"
    )]
    Vanishes {
        /// The method.
        method: &'static str,
    },
    /// Factors of a gradient that were cut too short.
    #[error(
        "{method}: rank {rank} takes {want} singular triplets of the gradient, {have} were collected; collect at least {want}"
    )]
    TooFewTriplets {
        /// The method.
        method: &'static str,
        /// The rank asked for.
        rank: usize,
        /// Triplets there are.
        have: usize,
        /// Triplets needed.
        want: usize,
    },
    /// A weight whose smallest singular values are all rounding, where the start is made of them.
    #[error(
        "{method}: the {rank} smallest singular values of this site's weight are below the rounding of the largest, so a \
         start made of them is noise and hardly learns; exclude this site, or start it with mica or kaiming"
    )]
    NoMinor {
        /// The method.
        method: &'static str,
        /// The rank asked for.
        rank: usize,
    },
    /// A block of the weight that is zero, where its singular values are divided by.
    #[error(
        "{method}: the block of {rank} rows and {rank} columns that the start is made of is zero; choose rows = pivoted and \
         columns = pivoted, or exclude this site"
    )]
    ZeroBlock {
        /// The method.
        method: &'static str,
        /// The rank asked for.
        rank: usize,
    },
    /// Choices that exclude each other.
    #[error("{method}: {problem}")]
    Combination {
        /// The method.
        method: &'static str,
        /// Which choices, why, and what to choose.
        problem: &'static str,
    },
    /// A weight that the quantised format holds exactly, where the start is made of what it loses.
    #[error(
        "{method}: {format} holds the weight of this site without an error, so there is nothing for the start to take up and \
         it never learns; quantise it as it is and start it with kaiming"
    )]
    NothingLost {
        /// The method.
        method: &'static str,
        /// The format.
        format: &'static str,
    },
    /// A weight that the quantised format cannot hold.
    #[error("{method}: {source}")]
    Blocks {
        /// The method.
        method: &'static str,
        /// What does not fit.
        source: BlockError,
    },
    /// A control asked of a method that puts another weight in the base's place.
    #[error(
        "{method}: {of} puts a quantised weight in the base's place and its factors make up for it, which random ones do \
         not; compare it with kaiming on the same quantised weight"
    )]
    NoControl {
        /// The method.
        method: &'static str,
        /// The method that it would be the control of.
        of: &'static str,
    },
    /// A decomposition failed.
    #[error("{method}: {source}")]
    Linalg {
        /// The method.
        method: &'static str,
        /// What failed.
        source: LinalgError,
    },
    /// Inputs of another width than the site's.
    #[error(
        "{method}: the inputs are {width} wide, the site [{out}, {inp}] takes {inp}; they were collected at another site"
    )]
    Width {
        /// The method.
        method: &'static str,
        /// The width of the inputs collected.
        width: usize,
        /// Rows of the weight.
        out: usize,
        /// Columns of the weight.
        inp: usize,
    },
    /// Another statistic of the inputs than the method is made of.
    #[error(
        "{method} needs {want} of this site's inputs, and {have} were collected; collect what `Initialiser::inputs` asks for"
    )]
    Statistic {
        /// The method.
        method: &'static str,
        /// What it needs.
        want: &'static str,
        /// What there is.
        have: &'static str,
    },
    /// Inputs that span fewer directions than the start takes.
    #[error(
        "{method}: {rows} inputs of this site span {have} directions, a start of rank {rank} takes {rank}; show it more          tokens, lower the rank, or exclude this site"
    )]
    FewDirections {
        /// The method.
        method: &'static str,
        /// The rank asked for.
        rank: usize,
        /// Directions there are.
        have: usize,
        /// Tokens seen.
        rows: u64,
    },
    /// Factors of another map of the gradient than the method decomposes.
    #[error(
        "{method} takes factors of {want}, and those of {have} were collected; collect what `Initialiser::leading` asks for"
    )]
    OtherMap {
        /// The method.
        method: &'static str,
        /// The map that it decomposes.
        want: &'static str,
        /// The map whose factors there are.
        have: &'static str,
    },
    /// A start in units of the first step's learning rate, which was not given.
    #[error("{method} needs the learning rate of the first optimiser step; give it, or a number as its rate")]
    NoRate {
        /// The method.
        method: &'static str,
    },
    /// A learning rate that no step has.
    #[error("{method}: a learning rate of {rate} for the first step gives no start; give a positive number")]
    Rate {
        /// The method.
        method: &'static str,
        /// The rate given.
        rate: f64,
    },
    /// Ranks asked of a method that does not tell which directions are worth more.
    #[error("{method} has no explained-variance ratios; ranks cannot be redistributed by it")]
    NoRatios {
        /// The method.
        method: &'static str,
    },
    /// Ratios by which no ranks can be given out.
    #[error("redistribution of ranks: the explained-variance ratios of group {group} {problem}")]
    Ratios {
        /// Which group.
        group: usize,
        /// What is wrong with them.
        problem: &'static str,
    },
    /// Inputs that are zero everywhere.
    #[error(
        "{method}: the inputs of this site are zero everywhere, or none were let in; check the calibration text and its masks,          or exclude this site"
    )]
    ZeroInputs {
        /// The method.
        method: &'static str,
    },
    /// No initialiser of this name.
    #[error("no initialiser is called {name}; {hint}")]
    UnknownMethod {
        /// The name given.
        name: String,
        /// The nearest name, or all of them.
        hint: String,
    },
    /// The method has no such choice.
    #[error("{method} has no option {option}; {hint}")]
    UnknownOption {
        /// The method.
        method: &'static str,
        /// The option given.
        option: String,
        /// The nearest option, or all of them.
        hint: String,
    },
    /// The same choice given twice.
    #[error("{method}: option {option} is given twice; keep one")]
    RepeatedOption {
        /// The method.
        method: &'static str,
        /// The option.
        option: &'static str,
    },
    /// A value that the choice does not take.
    #[error("{method}: {option} = {value} is not allowed; it takes {values}")]
    BadValue {
        /// The method.
        method: &'static str,
        /// The option.
        option: &'static str,
        /// The value given.
        value: String,
        /// What it takes.
        values: &'static str,
    },
}

impl InitError {
    /// For `map_err`: a failed decomposition, with the method that asked for it.
    pub(crate) fn linalg(method: &'static str) -> impl Fn(LinalgError) -> InitError {
        move |source| InitError::Linalg { method, source }
    }
}

impl From<OptionError> for InitError {
    fn from(error: OptionError) -> InitError {
        match error {
            OptionError::Unknown { method, option, hint } => {
                InitError::UnknownOption { method, option, hint }
            }
            OptionError::Repeated { method, option } => InitError::RepeatedOption { method, option },
            OptionError::Value { method, option, value, values } => {
                InitError::BadValue { method, option, value, values }
            }
        }
    }
}
