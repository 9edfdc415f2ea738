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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_part_of_a_head_is_written_as_it_is_read() {
        for width in 2..200_usize {
            for turned_values in (2..=width).step_by(2) {
                let config = Config::from_json(&json!({
                    "model_type": "phi", "vocab_size": 9, "hidden_size": width, "intermediate_size": 8,
                    "num_hidden_layers": 1, "num_attention_heads": 1, "max_position_embeddings": 8,
                    // Far enough above the number that rounding does not lose it.
                    "partial_rotary_factor": (turned_values as f64 + 0.25 * f64::from(u8::from(turned_values < width))) / width as f64,
                }))
                .unwrap();
                assert_eq!(config.rotary_dim, turned_values);
                assert_eq!(
                    turned(&config.to_json(), "partial_rotary_factor", 1.0, width).unwrap(),
                    turned_values
                );
            }
        }
    }
}
