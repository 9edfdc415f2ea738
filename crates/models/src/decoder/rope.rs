//! Frequencies of the rotary embedding with the scaling variants of published checkpoints, and tables of their
//! cosines and sines.

use std::f64::consts::PI;

use lowrank_tensor::ops::Rotary;

use super::config::{Config, RopeScaling};

/// Angular frequency of each pair of a head, `head_dim / 2` values: `θ^(−2i/d)`, then scaled.
#[must_use]
pub fn frequencies(config: &Config) -> Vec<f64> {
    let width = config.head_dim as f64;
    let plain = (0..config.head_dim / 2).map(|i| config.rope_theta.powf(-2.0 * i as f64 / width));
    match config.rope_scaling {
        RopeScaling::None => plain.collect(),
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
            let low = pair(beta_fast).floor().max(0.0);
            let high = pair(beta_slow).ceil().min(width - 1.0);
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
    let factor = match config.rope_scaling {
        RopeScaling::Yarn { attention_factor, .. } => attention_factor,
        _ => 1.0,
    };
    let mut rotary = Rotary {
        cos: Vec::with_capacity(length * frequencies.len()),
        sin: Vec::with_capacity(length * frequencies.len()),
        head_dim: config.head_dim,
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
