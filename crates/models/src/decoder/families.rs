//! A family a file: its names, and its `config.json` read and written.

use serde_json::Value;

use super::config::{Config, bad, number};
use crate::ModelError;

pub mod gpt2;
pub mod gpt_neox;
pub mod llama;
pub mod phi;

/// Width of a head where heads share the hidden state evenly.
fn head_width(key: &'static str, hidden: usize, heads: usize, heads_key: &str) -> Result<usize, ModelError> {
    if hidden.is_multiple_of(heads) {
        return Ok(hidden / heads);
    }
    Err(bad(key, hidden, &format!("it must be a multiple of {heads_key}")))
}

/// How many values of a head turn: a part of its width, rounded down as transformers does. Newer files keep the part in
/// `rope_parameters`, older ones under `key`.
fn turned(json: &Value, key: &'static str, default: f64, head_dim: usize) -> Result<usize, ModelError> {
    let parameters = json.get("rope_parameters").filter(|value| value.is_object());
    let inside = parameters.map(|object| number(object, "partial_rotary_factor")).transpose()?.flatten();
    let part = match inside {
        Some(part) => part,
        None => number(json, key)?.unwrap_or(default),
    };
    let turned = part * head_dim as f64;
    if !(part > 0.0 && part <= 1.0 && turned >= 2.0) {
        return Err(bad(key, part, "it must be a part of the head, at least a pair of values"));
    }
    if !(turned as usize).is_multiple_of(2) {
        return Err(bad(
            key,
            part,
            &format!("the {} values of a head that turn are no pairs", turned as usize),
        ));
    }
    Ok(turned as usize)
}

/// The part of a head that turns, such that [`turned`] gives the number back.
fn rotary_part(config: &Config) -> f64 {
    let part = config.rotary_dim as f64 / config.head_dim as f64;
    if (part * config.head_dim as f64) as usize == config.rotary_dim { part } else { part.next_up() }
}
