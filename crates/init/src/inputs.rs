//! Statistics of a layer's inputs: what a start asks for, what collects them, and what it is shown.

use faer::MatRef;
use lowrank_linalg::{Components, IncrementalSvd, LinalgError, Moments};
use lowrank_record::Seed;

use crate::Named;

/// Statistics of the inputs `x [in]` of a layer, over the tokens that were let in.
#[derive(Debug, Clone, Copy)]
pub enum Inputs<'a> {
    /// All of the first two moments.
    Moments(&'a Moments),
    /// The leading components alone.
    Components(&'a Components),
}

impl Inputs<'_> {
    /// Entries of an input (`in`).
    #[must_use]
    pub fn width(&self) -> usize {
        match self {
            Inputs::Moments(moments) => moments.width(),
            Inputs::Components(components) => components.width(),
        }
    }

    /// Tokens seen.
    #[must_use]
    pub fn rows(&self) -> u64 {
        match self {
            Inputs::Moments(moments) => moments.rows(),
            Inputs::Components(components) => components.rows,
        }
    }
}

/// Which statistic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Statistic {
    /// The first two moments, at any width.
    Moments,
    /// The leading components: from the moments up to a width, incrementally above.
    Components,
}

/// When enough was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// When the components of the last update but one would have held this part of what those of the last one hold.
    Captured,
    /// When each component has this cosine with that of the same number before the last update, as in EVA.
    Cosine,
}

impl Named for Stop {
    const NAMES: &'static [(&'static str, Self)] = &[("captured", Stop::Captured), ("cosine", Stop::Cosine)];
}

/// What a start asks of a layer's inputs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct InputsWanted {
    /// Which statistic.
    pub statistic: Statistic,
    /// Components about the mean of the inputs, or about zero.
    pub centred: bool,
    /// Components wanted; a narrower layer gives as many as it is wide.
    pub count: usize,
    /// Components kept beyond those on the way.
    pub oversampling: usize,
    /// The width up to which components are taken from exact moments.
    pub exact_up_to: usize,
    /// When enough was seen.
    pub stop: Stop,
    /// The part or the cosine at which it stops, 0 to 1.
    pub tau: f64,
    /// Batches that are looked at in any case.
    pub least_batches: usize,
    /// Batches after which components that have not settled are taken as they are, once all there are were looked at. Moments
    /// take all batches, and each once.
    pub most_batches: usize,
}

/// The width up to which components are taken from exact moments: 8 MB of f64 for each distinct input, all of which are held at the
/// same time. Above, an incremental decomposition takes a fraction of the memory and of the operations.
pub(crate) const EXACT_UP_TO: usize = 1024;

/// Batches after which components are taken as they are where a start does not say otherwise.
pub(crate) const MOST_BATCHES: usize = 256;

impl InputsWanted {
    /// The first two moments, over all batches there are.
    #[must_use]
    pub fn moments() -> InputsWanted {
        InputsWanted {
            statistic: Statistic::Moments,
            centred: false,
            count: 0,
            oversampling: 0,
            exact_up_to: EXACT_UP_TO,
            stop: Stop::Captured,
            tau: 1.0,
            least_batches: 1,
            most_batches: MOST_BATCHES,
        }
    }

    /// Whether a layer with inputs of this width is shown by its moments: also where as many components would be kept as it is
    /// wide, which take no less room than the moments and far more time.
    #[must_use]
    pub fn is_exact(&self, width: usize) -> bool {
        self.statistic == Statistic::Moments
            || width <= self.exact_up_to
            || self.count.saturating_add(self.oversampling) >= width
    }

    /// What collects them, for a layer with inputs of this width. One serves all layers that share their input; ask for
    /// the largest count among those.
    ///
    /// # Errors
    /// [`LinalgError::Rank`] for a count of 0 where components are wanted.
    pub fn collector(&self, width: usize, seed: Seed) -> Result<InputsCollector, LinalgError> {
        let state = if self.is_exact(width) {
            State::Moments(Moments::new(width))
        } else {
            let count = self.count.min(width);
            let incremental = IncrementalSvd::new(width, count, self.oversampling, self.centred, seed)?;
            State::Incremental(Box::new(incremental))
        };
        Ok(InputsCollector { wanted: *self, seed, batches: 0, state })
    }
}

/// Statistics of the inputs of one layer while they come in.
#[derive(Debug, Clone)]
pub struct InputsCollector {
    wanted: InputsWanted,
    seed: Seed,
    batches: usize,
    state: State,
}

#[derive(Debug, Clone)]
enum State {
    Moments(Moments),
    Incremental(Box<IncrementalSvd>),
}

/// Finished statistics of the inputs of one layer; [`CollectedInputs::inputs`] is what a start is shown.
#[derive(Debug, Clone, PartialEq)]
pub enum CollectedInputs {
    /// The moments.
    Moments(Moments),
    /// The components.
    Components(Components),
}

impl CollectedInputs {
    /// As evidence.
    #[must_use]
    pub fn inputs(&self) -> Inputs<'_> {
        match self {
            CollectedInputs::Moments(moments) => Inputs::Moments(moments),
            CollectedInputs::Components(components) => Inputs::Components(components),
        }
    }
}

impl InputsCollector {
    /// The inputs of one batch, `[n, in]`: the tokens that are let in, which may be none.
    ///
    /// # Errors
    /// As [`Moments::absorb`] and [`IncrementalSvd::absorb`].
    pub fn absorb(&mut self, rows: MatRef<'_, f32>) -> Result<(), LinalgError> {
        match &mut self.state {
            State::Moments(moments) => moments.absorb(rows)?,
            State::Incremental(incremental) => incremental.absorb(rows)?,
        }
        self.batches += 1;
        Ok(())
    }

    /// Batches seen.
    #[must_use]
    pub fn batches(&self) -> usize {
        self.batches
    }

    /// Tokens seen.
    #[must_use]
    pub fn rows(&self) -> u64 {
        match &self.state {
            State::Moments(moments) => moments.rows(),
            State::Incremental(incremental) => incremental.rows(),
        }
    }

    /// Whether the leading `rank` components have settled, or the most batches were looked at. Never for moments, which are exact
    /// for the rows that they saw and take whatever there is.
    #[must_use]
    pub fn is_done(&self, rank: usize) -> bool {
        let is_cut = matches!(self.state, State::Incremental(_));
        is_cut && (self.batches >= self.wanted.most_batches || self.has_settled(rank))
    }

    /// Whether the leading `rank` components have settled, as the start asked; never for moments.
    #[must_use]
    pub fn has_settled(&self, rank: usize) -> bool {
        let InputsWanted { stop, tau, least_batches, .. } = self.wanted;
        let State::Incremental(incremental) = &self.state else { return false };
        if self.batches < least_batches {
            return false;
        }
        settled(stop, tau, rank, incremental.cosines().as_deref(), incremental.carried().as_deref())
    }

    /// What was collected: the moments where those were asked for, otherwise the components, found once for all layers that share
    /// their input, and all else is dropped.
    ///
    /// # Errors
    /// As [`Moments::principal`] and [`IncrementalSvd::components`].
    pub fn finish(self) -> Result<CollectedInputs, LinalgError> {
        let InputsWanted { statistic, centred, count, .. } = self.wanted;
        Ok(match self.state {
            State::Moments(moments) if statistic == Statistic::Moments => CollectedInputs::Moments(moments),
            State::Moments(moments) => {
                let count = count.min(moments.width());
                CollectedInputs::Components(moments.principal(count, centred, self.seed)?)
            }
            State::Incremental(incremental) => {
                let count = count.min(incremental.width());
                CollectedInputs::Components(incremental.components(count)?)
            }
        })
    }
}

/// Whether the leading `rank` components have settled, by the cosines and carried parts of their last update.
pub(crate) fn settled(
    stop: Stop,
    tau: f64,
    rank: usize,
    cosines: Option<&[f64]>,
    carried: Option<&[f64]>,
) -> bool {
    match stop {
        Stop::Captured => {
            carried.and_then(|parts| parts.get(rank.saturating_sub(1))).is_some_and(|&part| part >= tau)
        }
        Stop::Cosine => cosines
            .and_then(|cosines| cosines.get(..rank))
            .is_some_and(|cosines| cosines.iter().all(|&cosine| cosine >= tau)),
    }
}
