//! The start, kept in the run folder: a resumed run mounts it without collecting the evidence again.

use std::collections::BTreeMap;
use std::path::Path;

use lowrank_adapt::{Offset, Start};
use lowrank_attach::{Attached, Plan};
use lowrank_store::checkpoint::Checkpoint;

use crate::AppError;
use crate::error::Because;

/// Writes the factors of every layer, and how they are taken back.
pub(super) fn write(attached: &[Attached], path: &Path) -> Result<(), AppError> {
    let mut tensors = Vec::new();
    for Attached { site, initial: (left, right), .. } in attached {
        let [out, inp] = site.shape;
        tensors.push((format!("{}.left", site.name), vec![out, site.rank], left.clone()));
        tensors.push((format!("{}.right", site.name), vec![site.rank, inp], right.clone()));
    }
    let offset = attached.first().map_or(Offset::None, |each| each.offset);
    let json = serde_json::json!({"offset": name(offset)});
    Checkpoint { tensors, integers: Vec::new(), json }.save(path).while_doing("storing the start")
}

/// Reads them in the plan's order.
///
/// # Errors
/// [`AppError::Usage`] when a layer of the plan is not in the file.
pub(super) fn read(path: &Path, plan: &Plan) -> Result<Vec<Start>, AppError> {
    let stored = Checkpoint::load(path).input("reading the stored start")?;
    let offset = [Offset::None, Offset::Shadow, Offset::Base]
        .into_iter()
        .find(|&offset| stored.json["offset"] == name(offset))
        .ok_or_else(|| AppError::usage(format!("{} does not say its offset", path.display())))?;
    let mut tensors: BTreeMap<String, Vec<f32>> =
        stored.tensors.into_iter().map(|(name, _, values)| (name, values)).collect();
    let mut take = |key: String| {
        tensors
            .remove(&key)
            .ok_or_else(|| AppError::usage(format!("{} has no {key}; was the plan changed?", path.display())))
    };
    plan.sites
        .iter()
        .map(|site| {
            let left = take(format!("{}.left", site.name))?;
            let right = take(format!("{}.right", site.name))?;
            Ok(Start { left, right, rank: site.rank, offset })
        })
        .collect()
}

fn name(offset: Offset) -> &'static str {
    match offset {
        Offset::None => "none",
        Offset::Shadow => "shadow",
        Offset::Base => "base",
    }
}
