//! The change of one layer as it is mounted: the exact factors of it on the base as it was opened, where it has such.

use std::collections::BTreeMap;

use lowrank_adapt::{Adapter, Linear, LowRankPath, Offset};
use lowrank_attach::Attached;
use lowrank_linalg::{LinalgError, LowRank, Svd, from_rows, svd_in_f64};
use lowrank_tensor::to_rows;

use crate::model::ADAPTER;
use crate::subject::Subject;
use crate::{AppError, Model};
use lowrank_command::Because;

/// The layers of a model with what is mounted on them.
pub(super) struct Changes<'a> {
    sites: BTreeMap<String, &'a Linear>,
}

impl<'a> Changes<'a> {
    pub(super) fn of<N: Subject>(model: &'a Model<N>) -> Changes<'a> {
        Changes { sites: model.decoder.sites().into_iter().collect() }
    }

    /// A layer of the model.
    ///
    /// # Errors
    /// [`AppError::Failed`] where there is none.
    pub(super) fn linear(&self, each: &Attached) -> Result<&'a Linear, AppError> {
        let linear = self.sites.get(&each.site.name).copied();
        linear.ok_or_else(|| AppError::failed(format!("{} is no layer of the model", each.site.name)))
    }

    /// What is mounted on a layer.
    ///
    /// # Errors
    /// [`AppError::Failed`] where nothing is.
    pub(super) fn adapter(&self, each: &Attached) -> Result<&'a dyn Adapter, AppError> {
        let mounted = self.linear(each)?.adapters().iter().find(|mounted| mounted.name == ADAPTER);
        let mounted =
            mounted.ok_or_else(|| AppError::failed(format!("{} holds no adapter", each.site.name)))?;
        Ok(&*mounted.adapter)
    }

    /// The change of the base as it was opened (or of the one that the start put in its place), left `[out, k]` with the scale
    /// in it and right `[k, in]`; `None` for a form whose change is no product of thin factors.
    ///
    /// # Errors
    /// [`AppError::Failed`] naming the layer.
    pub(super) fn factors(&self, each: &Attached) -> Result<Option<LowRank>, AppError> {
        let Some(LowRankPath { left, right }) = self.adapter(each)?.low_rank() else { return Ok(None) };
        let [out, inp] = each.site.shape;
        let rank = right.dims()[0];
        let factors = |left: &[f32], right: &[f32], rank| {
            LowRank::from_rows(left, right, out, inp, rank).while_doing(&each.site.name)
        };
        let change = factors(&to_rows(left), &to_rows(right), rank)?;
        let Some((left, right)) = &each.initial else { return Ok(Some(change)) };
        let start = factors(left, right, right.len() / inp.max(1))?;
        match each.offset {
            Offset::Base => {
                less(&change, &start.times(each.site.scale)).while_doing(&each.site.name).map(Some)
            }
            Offset::Shadow => match halves(&change, &start) {
                Some((trained, start)) => less(&trained, &start).while_doing(&each.site.name).map(Some),
                None => Ok(Some(change)),
            },
            Offset::None => Ok(Some(change)),
        }
    }

    /// The singular values and vectors of the change: from its thin factors, or of all of it where it has none and no more than
    /// `dense` values on its shorter side; `None` where it has more.
    ///
    /// # Errors
    /// As [`Changes::factors`].
    pub(super) fn spectrum(&self, each: &Attached, dense: usize) -> Result<Option<Svd>, AppError> {
        if let Some(change) = self.factors(each)? {
            return change.factor().while_doing(&each.site.name).map(Some);
        }
        let [out, inp] = each.site.shape;
        if out.min(inp) > dense {
            return Ok(None);
        }
        let base = self.linear(each)?.frozen().while_doing(&each.site.name)?;
        let values = self.adapter(each)?.delta(base);
        let change = from_rows(&values, out, inp).while_doing(&each.site.name)?;
        svd_in_f64(change.as_ref()).while_doing(&each.site.name).map(Some)
    }

    /// The best approximation of a change without thin factors at the rank of its layer, and its relative error in the Frobenius
    /// norm (Eckart and Young, 1936).
    ///
    /// # Errors
    /// As [`Changes::factors`].
    pub(super) fn cut(&self, each: &Attached) -> Result<(LowRank, f64), AppError> {
        let [out, inp] = each.site.shape;
        let base = self.linear(each)?.frozen().while_doing(&each.site.name)?;
        let values = self.adapter(each)?.delta(base);
        let change = from_rows(&values, out, inp).while_doing(&each.site.name)?;
        let svd = svd_in_f64(change.as_ref()).while_doing(&each.site.name)?;
        let (norm, tail) = (svd.energy().sqrt(), svd.tail(each.site.rank));
        Ok((svd.head(each.site.rank).balanced(1.0), if norm > 0.0 { tail / norm } else { 0.0 }))
    }
}

/// What was trained less the start, as factors in which nothing large cancels where both have the same rank.
pub(super) fn less(trained: &LowRank, start: &LowRank) -> Result<LowRank, LinalgError> {
    if trained.rank() == start.rank() { trained.moved_from(start) } else { trained.add(&start.times(-1.0)) }
}

/// The two halves of a path that takes a start back beside the weight, the start's with its sign turned: `None` for a path that
/// is made otherwise.
fn halves(path: &LowRank, start: &LowRank) -> Option<(LowRank, LowRank)> {
    let ((out, inp), rank) = (path.shape(), start.rank());
    let half = |first: usize| LowRank {
        left: path.left.as_ref().submatrix(0, first, out, rank).to_owned(),
        right: path.right.as_ref().submatrix(first, 0, rank, inp).to_owned(),
    };
    if path.rank() != 2 * rank || start.shape() != (out, inp) {
        return None;
    }
    let (trained, taken_back) = (half(0), half(rank));
    (taken_back.right == start.right).then(|| (trained, taken_back.times(-1.0)))
}
