//! Switching among adapters that are mounted: each layer's slot holds all of them, and one is active.

use lowrank_adapt::Linear;
use lowrank_models::Network;

use crate::AttachError;

/// The names of the adapters that the layers of a network hold, each once, in the order in which they were mounted.
pub fn mounted<N: Network>(model: &N) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for (_, linear) in model.sites() {
        for held in linear.adapters() {
            if !names.contains(&held.name) {
                names.push(held.name.clone());
            }
        }
    }
    names
}

/// Makes this adapter the only one that takes part, in every layer; `None` is the network without any. Nothing is mounted, read or
/// computed: a flag in each slot changes. Returns how many layers the adapter changes.
///
/// # Errors
/// [`AttachError::UnknownAdapter`] naming the nearest, [`AttachError::Adapt`] while an adapter is merged. The network is then as it
/// was.
pub fn activate<N: Network>(model: &mut N, name: Option<&str>) -> Result<usize, AttachError> {
    let known = mounted(model);
    if let Some(name) = name
        && !known.iter().any(|known| known == name)
    {
        let hint = lowrank_record::nearest(name, known.iter().map(String::as_str));
        return Err(AttachError::UnknownAdapter { name: name.to_owned(), hint });
    }
    for (site, linear) in model.sites() {
        linear.switches().map_err(|source| AttachError::Adapt { site, source })?;
    }
    let holds = |linear: &Linear| linear.adapters().iter().any(|held| name == Some(held.name.as_str()));
    let mut layers = 0;
    for (site, linear) in model.sites_mut() {
        linear.activate(name).map_err(|source| AttachError::Adapt { site, source })?;
        layers += usize::from(holds(linear));
    }
    Ok(layers)
}
