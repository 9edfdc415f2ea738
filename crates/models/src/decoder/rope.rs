//! Frequencies of the rotary embedding with the scaling variants of published checkpoints, and tables of their
//! cosines and sines.

use std::f64::consts::PI;

use lowrank_tensor::ops::Rotary;

use super::config::{Config, RopeScaling};

/// `θ^(−2i/d)` for each pair of a head.
fn plain(config: &Config) -> impl Iterator<Item = f64> {
    let (theta, width) = (config.rope_theta, config.head_dim as f64);
    (0..config.head_dim / 2).map(move |i| theta.powf(-2.0 * i as f64 / width))
}

/// What the scaling divides each plain frequency by: `rope_freqs.weight` of GGUF.
#[must_use]
pub fn factors(config: &Config) -> Vec<f32> {
    plain(config).zip(frequencies(config)).map(|(plain, scaled)| (plain / scaled) as f32).collect()
}

/// The scaling of the published Llama 3 models, if it has these factors (up to the rounding of the converter, which
/// computes in f32): a model that is written again then says in `config.json` what every reader knows.
#[must_use]
pub fn llama3(config: &Config, found: &[f32]) -> Option<RopeScaling> {
    let factor = f64::from(*found.last()?);
    let rope_scaling = RopeScaling::Llama3 { factor, low: 1.0, high: 4.0, original: 8192.0 };
    let named = Config { rope_scaling, ..config.clone() };
    let same = factors(&named).iter().zip(found).all(|(named, found)| (named - found).abs() <= 1e-4 * found);
    same.then_some(named.rope_scaling)
}

/// Angular frequency of each pair of a head, `head_dim / 2` values: `θ^(−2i/d)`, then scaled.
#[must_use]
pub fn frequencies(config: &Config) -> Vec<f64> {
    let width = config.head_dim as f64;
    let plain = plain(config);
    match &config.rope_scaling {
        // Within the context, and the decoder takes no longer rows, `dynamic` changes nothing.
        RopeScaling::None | RopeScaling::Dynamic { .. } => plain.collect(),
        RopeScaling::Factors(factors) => {
            plain.zip(factors).map(|(frequency, &factor)| frequency / f64::from(factor)).collect()
        }
        RopeScaling::Linear { factor } => plain.map(|frequency| frequency / factor).collect(),
        RopeScaling::Llama3 { factor, low, high, original } => plain
            .map(|frequency| {
                let wavelength = 2.0 * PI / frequency;
                // 0 keeps the trained frequency, 1 divides it; a ramp in between.
                let keep = ((original / wavelength - low) / (high - low)).clamp(0.0, 1.0);
                (1.0 - keep) * frequency / factor + keep * frequency
            })
            .collect(),
        RopeScaling::Yarn { factor, beta_fast, beta_slow, original, .. } => {
            // The pair that turns `rotations` times within the original context.
            let pair = |rotations: f64| {
                width * (original / (rotations * 2.0 * PI)).ln() / (2.0 * config.rope_theta.ln())
            };
            let low = pair(*beta_fast).floor().max(0.0);
            let high = pair(*beta_slow).ceil().min(width - 1.0);
            let span = if high > low { high - low } else { 0.001 };
            plain
                .enumerate()
                .map(|(i, frequency)| {
                    let divide = ((i as f64 - low) / span).clamp(0.0, 1.0);
                    divide * frequency / factor + (1.0 - divide) * frequency
                })
                .collect()
        }
    }
}

/// Cosines and sines for the positions `0..length`.
#[must_use]
pub fn tables(config: &Config, length: usize) -> Rotary {
    let frequencies = frequencies(config);
    let factor = match &config.rope_scaling {
        RopeScaling::Yarn { attention_factor, .. } => *attention_factor,
        _ => 1.0,
    };
    let mut rotary = Rotary {
        cos: Vec::with_capacity(length * frequencies.len()),
        sin: Vec::with_capacity(length * frequencies.len()),
        head_dim: config.head_dim,
        rotary_dim: config.head_dim,
    };
    for position in 0..length {
        for frequency in &frequencies {
            // In f64: at position 100,000 an f32 angle is off by 4e-3.
            let (sin, cos) = (position as f64 * frequency).sin_cos();
            rotary.cos.push((cos * factor) as f32);
            rotary.sin.push((sin * factor) as f32);
        }
    }
    rotary
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn llama(scaling: &serde_json::Value, head_dim: usize) -> Config {
        Config::from_json(&json!({
            "model_type": "llama", "vocab_size": 40, "hidden_size": 64, "intermediate_size": 64,
            "num_hidden_layers": 1, "num_attention_heads": 1, "head_dim": head_dim, "rope_theta": 5e5,
            "max_position_embeddings": 131_072, "rope_scaling": scaling,
        }))
        .unwrap()
    }

    /// `rope_freqs.weight` as `LlamaModel.generate_extra_tensors` in llama.cpp's `convert_hf_to_gguf.py` computes it.
    fn converted(base: f32, dim: usize, factor: f32, low: f32, high: f32, original: f32) -> Vec<f32> {
        let one = |i: usize| {
            let frequency = 1.0 / base.powf(2.0 * i as f32 / dim as f32);
            let wavelength = 2.0 * std::f32::consts::PI / frequency;
            if wavelength < original / high {
                1.0
            } else if wavelength > original / low {
                factor
            } else {
                let smooth = (original / wavelength - low) / (high - low);
                1.0 / ((1.0 - smooth) / factor + smooth)
            }
        };
        (0..dim / 2).map(one).collect()
    }

    #[test]
    fn llama3_scaling_is_the_factors_of_the_converter() {
        for (factor, dim) in [(8.0, 128), (32.0, 64)] {
            let scaling = json!({"rope_type": "llama3", "factor": factor, "low_freq_factor": 1.0,
                "high_freq_factor": 4.0, "original_max_position_embeddings": 8192});
            let named = llama(&scaling, dim);
            let found = converted(5e5, dim, factor, 1.0, 4.0, 8192.0);
            assert!(found.iter().any(|&f| f > 1.5 && f < factor - 0.5), "a value on the ramp");
            let by_factors = Config { rope_scaling: RopeScaling::Factors(found.clone()), ..named.clone() };
            for (named, divided) in frequencies(&named).iter().zip(frequencies(&by_factors)) {
                assert!((named - divided).abs() <= 2e-5 * named, "{named} {divided}");
            }
            assert_eq!(llama3(&by_factors, &found), Some(named.rope_scaling));
            // Other numbers keep their factors.
            let other = converted(5e5, dim, factor, 1.0, 8.0, 8192.0);
            assert_eq!(llama3(&by_factors, &other), None);
        }
    }

    #[test]
    fn dynamic_scaling_is_plain_within_the_context() {
        let dynamic = llama(&json!({"type": "dynamic", "factor": 4.0}), 32);
        assert_eq!(frequencies(&dynamic), frequencies(&llama(&serde_json::Value::Null, 32)));
    }
}
