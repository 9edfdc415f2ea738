//! The start, kept in the run folder: a resumed run mounts it without collecting the evidence again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lowrank_adapt::{Linear, Offset, Part};
use lowrank_attach::{Attached, Plan, Site, StoredStart};
use lowrank_store::checkpoint::Checkpoint;

use crate::subject::Subject;
use crate::{AppError, Model};
use lowrank_command::Because;

/// Where a run folder keeps its start.
pub(crate) fn path(folder: &Path) -> PathBuf {
    folder.join("start.safetensors")
}

/// What the change that a layer starts at is called, beside the parts of its adapter.
const INITIAL: [&str; 2] = ["initial_left", "initial_right"];
/// What the weight is called that the start put in the base's place.
const BASE: &str = "base_weight";

/// Where a start is kept, and what decided it.
#[derive(Clone, Copy)]
pub(crate) struct Kept<'a> {
    pub(crate) path: &'a Path,
    pub(crate) identity: &'a BTreeMap<String, String>,
}

/// Writes the adapter of every layer as it starts, how its start is taken back, the weight that took the base's place if one
/// did, and what decided them.
pub(super) fn write<N: Subject>(
    model: &Model<N>,
    attached: &[Attached],
    kept: Kept<'_>,
) -> Result<(), AppError> {
    let sites: BTreeMap<String, &Linear> = model.decoder.sites().into_iter().collect();
    let (mut tensors, mut layers) = (Vec::new(), Vec::new());
    for each in attached {
        let (site, [out, inp]) = (&each.site, each.site.shape);
        let at = |part: &str| format!("{}.{part}", site.name);
        for part in &each.parts {
            tensors.push((at(&part.name), part.shape.clone(), part.values.clone()));
        }
        if let Some((left, right)) = &each.initial {
            let rank = right.len() / inp.max(1);
            tensors.push((at(INITIAL[0]), vec![out, rank], left.clone()));
            tensors.push((at(INITIAL[1]), vec![rank, inp], right.clone()));
        }
        if each.replaced
            && let Some(linear) = sites.get(&site.name)
        {
            tensors.push((at(BASE), vec![out, inp], linear.frozen().while_doing(&site.name)?.to_f32()));
        }
        layers.push(serde_json::json!({
            "layer": site.name, "rank": site.rank, "alpha": site.alpha, "offset": name(each.offset),
        }));
    }
    let json = serde_json::json!({"layers": layers, "identity": kept.identity});
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

/// Reads them, with the plan as the start left it: it may have moved ranks between the layers.
///
/// # Errors
/// [`AppError::Usage`] when it was decided by something else, or is not a start of layers of the plan.
pub(super) fn read(kept: Kept<'_>, plan: &Plan) -> Result<(Plan, Vec<StoredStart>), AppError> {
    let (stored, path) = (load(kept)?, kept.path);
    let damaged = || AppError::usage(format!("{} is not a whole start; start the run anew", path.display()));
    let layers: Vec<Layer> = serde_json::from_value(stored.json["layers"].clone()).map_err(|_| damaged())?;
    let mut tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)> =
        stored.tensors.into_iter().map(|(name, shape, values)| (name, (shape, values))).collect();
    let (mut sites, mut starts) = (Vec::with_capacity(layers.len()), Vec::with_capacity(layers.len()));
    for Layer { layer, rank, alpha, offset } in layers {
        let planned = plan.sites.iter().find(|site| site.name == layer).ok_or_else(damaged)?;
        let offset =
            [Offset::None, Offset::Shadow, Offset::Base].into_iter().find(|&each| name(each) == offset);
        let mut take = |part: &str| tensors.remove(&format!("{layer}.{part}"));
        let initial = match (take(INITIAL[0]), take(INITIAL[1])) {
            (Some((_, left)), Some((_, right))) => Some((left, right)),
            (None, None) => None,
            _ => return Err(damaged()),
        };
        let base = take(BASE).map(|(_, values)| values);
        let prefix = format!("{layer}.");
        let is_own = |key: &str| key.strip_prefix(&prefix).is_some_and(|part| !part.contains('.'));
        let own: Vec<String> = tensors.keys().filter(|key| is_own(key)).cloned().collect();
        let parts = own.into_iter().filter_map(|key| {
            let (shape, values) = tensors.remove(&key)?;
            Some(Part { name: key[prefix.len()..].to_owned(), shape, values })
        });
        starts.push(StoredStart {
            parts: parts.collect(),
            initial,
            offset: offset.ok_or_else(damaged)?,
            base,
        });
        let scale = lowrank_record::scale(alpha, rank, plan.rank_stabilised);
        sites.push(Site { rank, alpha, scale, ..planned.clone() });
    }
    Ok((Plan { sites, rank_stabilised: plan.rank_stabilised }, starts))
}

/// What is kept of a layer beside its tensors.
#[derive(serde::Deserialize)]
struct Layer {
    layer: String,
    rank: usize,
    alpha: f64,
    offset: String,
}

fn name(offset: Offset) -> &'static str {
    match offset {
        Offset::None => "none",
        Offset::Shadow => "shadow",
        Offset::Base => "base",
    }
}
