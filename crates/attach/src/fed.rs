//! What layers are fed, as it is: the first rows of a batch, to be compared before and after a change of the network.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use faer::{Mat, MatRef};
use lowrank_models::Network;
use lowrank_tensor::ops::InputObserver;

use crate::{AttachError, Calibration, Plan};

/// Keeps the first rows that one layer is shown.
struct Keeper {
    inp: usize,
    /// The rows to keep; `None` for the first of all.
    rows: Option<Vec<usize>>,
    most: usize,
    kept: Mutex<Option<Mat<f32>>>,
}

impl InputObserver for Keeper {
    fn observe_inputs(&self, inputs: &[f32], n: usize) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        // A layer that is used twice is known by its first use.
        if kept.is_none() {
            let all = MatRef::from_row_major_slice(inputs, n, self.inp);
            let rows: Vec<usize> = match &self.rows {
                Some(rows) => rows.iter().copied().filter(|&row| row < n).collect(),
                None => (0..n.min(self.most)).collect(),
            };
            *kept = Some(Mat::from_fn(rows.len(), self.inp, |i, j| all[(rows[i], j)]));
        }
    }
}

/// The inputs `[n, in]` of each layer of the plan in one forward pass, by name: of the rows that are shown ([`Calibration::shown`]) the first
/// `most`. Memory: `4·most·in` bytes a layer.
///
/// # Errors
/// [`AttachError::NothingShown`], [`AttachError::NotReached`], or what the model says.
pub fn fed<N: Network>(
    model: &mut N,
    plan: &Plan,
    batch: &Calibration<N::Batch>,
    most: usize,
) -> Result<BTreeMap<String, Mat<f32>>, AttachError> {
    if !batch.shown.iter().all(|stream| stream.contains(&true)) {
        return Err(AttachError::NothingShown);
    }
    let mut keepers = BTreeMap::new();
    for site in &plan.sites {
        let shown = batch.shown.get(model.stream(&site.name));
        let rows = shown.map(|stream| (0..stream.len()).filter(|&row| stream[row]).take(most).collect());
        let keeper = Keeper { inp: site.shape[1], rows, most, kept: Mutex::new(None) };
        keepers.insert(site.name.clone(), Arc::new(keeper));
    }
    for (name, linear) in model.sites_mut() {
        linear.observe_inputs(keepers.get(&name).map(|keeper| Arc::clone(keeper) as Arc<dyn InputObserver>));
    }
    let passed = model.show_inputs(&batch.batch);
    for (_, linear) in model.sites_mut() {
        linear.observe_inputs(None);
    }
    passed?;
    let mut found = BTreeMap::new();
    for (name, keeper) in keepers {
        let kept = keeper.kept.lock().unwrap_or_else(PoisonError::into_inner).take();
        let kept = kept.ok_or_else(|| AttachError::NotReached { site: name.clone() })?;
        found.insert(name, kept);
    }
    Ok(found)
}
