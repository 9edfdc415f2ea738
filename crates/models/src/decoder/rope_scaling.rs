//! The scaling variants of the rotary embedding: their names and numbers in `config.json`, and what the numbers must be.
//! What they do to the frequencies stands in `rope.rs`.

use serde_json::{Value, json};

use super::config::{PLACE, bad, number};
use crate::ModelError;

/// How the rotary frequencies are stretched beyond the trained context.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub enum RopeScaling {
    /// As trained.
    None,
    /// All positions divided by a factor (Chen et al., "Extending Context Window … via Positional Interpolation", 2023).
    Linear {
        /// Divisor of the frequencies.
        factor: f64,
    },
    /// Dynamic NTK: the plain frequencies up to the model's context. Longer rows, for which it would stretch them, are
    /// refused like those of any model, so the factor is only kept for the files that are written.
    Dynamic {
        /// By how much rows may exceed the context elsewhere.
        factor: f64,
    },
    /// Llama 3.1: low frequencies divided, high ones kept, a ramp between.
    Llama3 {
        /// Divisor of the low frequencies.
        factor: f64,
        /// Wavelengths longer than `original / low` are divided.
        low: f64,
        /// Wavelengths shorter than `original / high` are kept.
        high: f64,
        /// Context of the original model.
        original: f64,
    },
    /// YaRN (Peng et al., 2023).
    Yarn {
        /// Divisor of the low frequencies.
        factor: f64,
        /// Rotations above which a frequency is kept.
        beta_fast: f64,
        /// Rotations below which a frequency is divided.
        beta_slow: f64,
        /// Context of the original model.
        original: f64,
        /// Factor on cosines and sines.
        attention_factor: f64,
    },
    /// A divisor for each of the `rotary_dim / 2` frequencies: `rope_freqs.weight` of GGUF, and transformers' `longrope`
    /// where its two lists are the same.
    Factors(Vec<f32>),
}

/// YaRN's factor on cosines and sines where the model does not say another.
#[must_use]
pub fn yarn_attention_factor(factor: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { 0.1 * factor.ln() + 1.0 }
}

impl RopeScaling {
    /// The base of the frequencies and their scaling. Newer files keep both in `rope_parameters`, older ones split them
    /// into `rope_scaling` and the family's own key of the base.
    pub(super) fn from_json(
        json: &Value,
        theta_key: &'static str,
        context: usize,
    ) -> Result<(f64, RopeScaling), ModelError> {
        let parameters = json.get("rope_parameters").filter(|value| value.is_object());
        let inside = parameters.map(|parameters| number(parameters, "rope_theta")).transpose()?.flatten();
        let theta = inside.or(number(json, theta_key)?).unwrap_or(10_000.0);
        let older = || json.get("rope_scaling").filter(|value| value.is_object());
        Ok((
            theta,
            match parameters.or_else(older) {
                Some(scaling) => RopeScaling::from_object(scaling, context)?,
                None => RopeScaling::None,
            },
        ))
    }

    fn from_object(scaling: &Value, context: usize) -> Result<RopeScaling, ModelError> {
        let kind = scaling.get("rope_type").or_else(|| scaling.get("type")).and_then(Value::as_str);
        let need = |key: &'static str| {
            number(scaling, key)?.ok_or(ModelError::MissingKey { place: PLACE, key, expected: "a number" })
        };
        Ok(match kind.unwrap_or("default") {
            "default" => RopeScaling::None,
            "linear" => RopeScaling::Linear { factor: need("factor")? },
            "dynamic" => RopeScaling::Dynamic { factor: need("factor")? },
            "llama3" => RopeScaling::Llama3 {
                factor: need("factor")?,
                low: need("low_freq_factor")?,
                high: need("high_freq_factor")?,
                original: need("original_max_position_embeddings")?,
            },
            "yarn" => {
                let factor = need("factor")?;
                RopeScaling::Yarn {
                    factor,
                    beta_fast: number(scaling, "beta_fast")?.unwrap_or(32.0),
                    beta_slow: number(scaling, "beta_slow")?.unwrap_or(1.0),
                    original: number(scaling, "original_max_position_embeddings")?.unwrap_or(context as f64),
                    attention_factor: number(scaling, "attention_factor")?
                        .unwrap_or_else(|| yarn_attention_factor(factor)),
                }
            }
            "longrope" => RopeScaling::from_longrope(scaling)?,
            other => {
                let known = "known types are default, linear, dynamic, llama3, yarn and longrope";
                return Err(bad("rope_scaling", other, known));
            }
        })
    }

    /// LongRoPE has one list of divisors for short rows and one for long ones, and by default a factor on cosines and
    /// sines that depends on the context; it is read where none of this changes from row to row.
    fn from_longrope(scaling: &Value) -> Result<RopeScaling, ModelError> {
        let list = |key: &str| -> Option<Vec<f32>> {
            scaling
                .get(key)?
                .as_array()?
                .iter()
                .map(|value| value.as_f64().map(|value| value as f32))
                .collect()
        };
        match (list("short_factor"), list("long_factor"), number(scaling, "attention_factor")?) {
            (Some(short), Some(long), Some(1.0)) if short == long => Ok(RopeScaling::Factors(short)),
            _ => Err(bad(
                "rope_scaling",
                "longrope",
                "it is supported where short_factor equals long_factor and attention_factor is 1",
            )),
        }
    }

    /// What `config.json` holds; nothing where nothing is scaled.
    pub(super) fn to_json(&self, context: usize) -> Option<Value> {
        Some(match self {
            RopeScaling::None => return None,
            RopeScaling::Linear { factor } => json!({"rope_type": "linear", "factor": factor}),
            RopeScaling::Dynamic { factor } => json!({"rope_type": "dynamic", "factor": factor}),
            RopeScaling::Llama3 { factor, low, high, original } => json!({
                "rope_type": "llama3", "factor": factor, "low_freq_factor": low, "high_freq_factor": high,
                "original_max_position_embeddings": *original as u64,
            }),
            RopeScaling::Yarn { factor, beta_fast, beta_slow, original, attention_factor } => json!({
                "rope_type": "yarn", "factor": factor, "beta_fast": beta_fast, "beta_slow": beta_slow,
                "original_max_position_embeddings": *original as u64, "attention_factor": attention_factor,
            }),
            RopeScaling::Factors(factors) => json!({
                "rope_type": "longrope", "short_factor": factors, "long_factor": factors, "factor": 1.0,
                "original_max_position_embeddings": context, "attention_factor": 1.0,
            }),
        })
    }

    /// Whether its numbers give finite angles where this many values of a head turn.
    pub(super) fn check(&self, rotary_dim: usize) -> Result<(), ModelError> {
        let numbers = match self {
            RopeScaling::None => vec![],
            RopeScaling::Linear { factor } | RopeScaling::Dynamic { factor } => vec![*factor],
            RopeScaling::Llama3 { factor, low, high, original } => vec![*factor, *low, high - low, *original],
            RopeScaling::Yarn { factor, beta_fast, beta_slow, original, attention_factor } => {
                vec![*factor, *beta_slow, beta_fast - beta_slow, *original, *attention_factor]
            }
            RopeScaling::Factors(factors) if factors.len() != rotary_dim / 2 => {
                let hint = format!("a head of width {rotary_dim} has {} frequencies", rotary_dim / 2);
                return Err(bad("rope_scaling", format!("{} factors", factors.len()), &hint));
            }
            RopeScaling::Factors(factors) => factors.iter().map(|&factor| f64::from(factor)).collect(),
        };
        if numbers.iter().all(|number| number.is_finite() && *number > 0.0) {
            return Ok(());
        }
        let hint = "its numbers should be positive, and the high bound above the low one";
        Err(bad("rope_scaling", format!("{self:?}"), hint))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(scaling: Value) -> Result<RopeScaling, ModelError> {
        let json = json!({"rope_theta": 1e4, "rope_scaling": scaling});
        RopeScaling::from_json(&json, "rope_theta", 4096).map(|(_, scaling)| scaling)
    }

    #[test]
    fn every_variant_is_written_as_it_is_read() {
        for scaling in [
            RopeScaling::Linear { factor: 4.0 },
            RopeScaling::Dynamic { factor: 2.0 },
            RopeScaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, original: 8192.0 },
            RopeScaling::Yarn {
                factor: 4.0,
                beta_fast: 32.0,
                beta_slow: 1.0,
                original: 2048.0,
                attention_factor: 1.25,
            },
            RopeScaling::Factors(vec![1.0, 1.0, 3.7, 8.0]),
        ] {
            assert_eq!(read(scaling.to_json(4096).unwrap()).unwrap(), scaling);
            scaling.check(8).unwrap();
        }
        assert_eq!(RopeScaling::None.to_json(4096), None);
    }

    #[test]
    fn longrope_that_changes_with_the_row_is_refused() {
        let written = RopeScaling::Factors(vec![1.0, 2.0]).to_json(64).unwrap();
        for (key, value) in [("long_factor", json!([1.0, 3.0])), ("attention_factor", Value::Null)] {
            let mut changed = written.clone();
            changed[key] = value;
            assert!(read(changed).unwrap_err().to_string().contains("longrope"), "{key}");
        }
        let message = RopeScaling::Factors(vec![1.0, 2.0]).check(6).unwrap_err().to_string();
        assert!(message.contains("2 factors") && message.contains("3 frequencies"), "{message}");
    }
}
