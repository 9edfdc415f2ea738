//! The start, kept in the run folder: a resumed run mounts it without collecting the evidence again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lowrank_adapt::{Offset, Start};
use lowrank_attach::{Attached, Plan};
use lowrank_store::checkpoint::Checkpoint;

use crate::AppError;
use crate::error::Because;

/// Where a run folder keeps its start.
pub(crate) fn path(folder: &Path) -> PathBuf {
    folder.join("start.safetensors")
}

/// Where a start is kept, and what decided it.
#[derive(Clone, Copy)]
pub(crate) struct Kept<'a> {
    pub(crate) path: &'a Path,
    pub(crate) identity: &'a BTreeMap<String, String>,
}

/// Writes the factors of every layer, how they are taken back, and what decided them.
pub(super) fn write(attached: &[Attached], kept: Kept<'_>) -> Result<(), AppError> {
    let mut tensors = Vec::new();
    for Attached { site, initial: (left, right), .. } in attached {
        let [out, inp] = site.shape;
        tensors.push((format!("{}.left", site.name), vec![out, site.rank], left.clone()));
        tensors.push((format!("{}.right", site.name), vec![site.rank, inp], right.clone()));
    }
    let offset = attached.first().map_or(Offset::None, |each| each.offset);
    let json = serde_json::json!({"offset": name(offset), "identity": kept.identity});
    Checkpoint { tensors, integers: Vec::new(), json }.save(kept.path).while_doing("storing the start")
}

/// Refuses a start that was decided by something else; none is kept before the first step.
///
/// # Errors
/// [`AppError::Usage`] naming what differs.
pub(crate) fn check(kept: Kept<'_>) -> Result<(), AppError> {
    if kept.path.is_file() { load(kept).map(drop) } else { Ok(()) }
}

fn load(Kept { path, identity }: Kept<'_>) -> Result<Checkpoint, AppError> {
    let stored = Checkpoint::load(path).input("reading the stored start")?;
    for (key, now) in identity {
        if stored.json["identity"][key] != **now {
            return Err(AppError::usage(format!(
                "{}: the run began with {key} = {}, but now it is {now}; resume with the options of that run, or start a \
                 new one with another --run",
                path.display(),
                stored.json["identity"][key].as_str().unwrap_or("nothing")
            )));
        }
    }
    Ok(stored)
}

/// Reads them in the plan's order.
///
/// # Errors
/// [`AppError::Usage`] when it was decided by something else, or a layer of the plan is not in the file.
pub(super) fn read(kept: Kept<'_>, plan: &Plan) -> Result<Vec<Start>, AppError> {
    let (stored, path) = (load(kept)?, kept.path);
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
            Ok(Start { left, right, core: None, rank: site.rank, offset })
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
