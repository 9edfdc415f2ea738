//! Relative position buckets: near distances have one each, far ones share them, ever more of them the farther (Raffel et
//! al., "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer", 2020, section 2.1).

use super::Config;

/// The bucket of a key that lies `offset` behind its query. A stack that sees both sides keeps half of the buckets for each.
///
/// The logarithm is taken in f32, as `transformers` takes it: where it is a whole number up to rounding, the rounding decides.
pub(super) fn bucket(offset: i64, config: &Config, both_sides: bool) -> usize {
    let buckets = if both_sides { config.buckets / 2 } else { config.buckets };
    let side = if both_sides && offset > 0 { buckets } else { 0 };
    let distance = if both_sides { offset.unsigned_abs() } else { offset.min(0).unsigned_abs() } as usize;
    let exact = buckets / 2;
    if distance < exact {
        return side + distance;
    }
    let log = (distance as f32 / exact as f32).ln();
    let span = (config.max_distance as f64 / exact as f64).ln() as f32;
    let shared = exact + (log / span * (buckets - exact) as f32) as usize;
    side + shared.min(buckets - 1)
}

/// What is added to the scores of a stack, `[heads, queries, keys]`, from its table `[buckets, heads]`.
pub(super) fn bias(table: &[f32], config: &Config, time: usize, both_sides: bool) -> Vec<f32> {
    let heads = config.heads;
    let mut out = vec![0.0; heads * time * time];
    for query in 0..time {
        for key in 0..time {
            let row = bucket(key as i64 - query as i64, config, both_sides) * heads;
            for head in 0..heads {
                out[(head * time + query) * time + key] = table[row + head];
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bucket at which each run of one bucket begins, `(offset, bucket)`, for offsets from −200 to 200: by
    /// `T5Attention._relative_position_bucket` of transformers 5.23.0 with 32 buckets and distance 128.
    const BOTH: &[(i64, usize)] = &[
        (-200, 15),
        (-90, 14),
        (-63, 13),
        (-45, 12),
        (-31, 11),
        (-22, 10),
        (-15, 9),
        (-11, 8),
        (-7, 7),
        (-6, 6),
        (-5, 5),
        (-4, 4),
        (-3, 3),
        (-2, 2),
        (-1, 1),
        (0, 0),
        (1, 17),
        (2, 18),
        (3, 19),
        (4, 20),
        (5, 21),
        (6, 22),
        (7, 23),
        (8, 24),
        (12, 25),
        (16, 26),
        (23, 27),
        (32, 28),
        (46, 29),
        (64, 30),
        (91, 31),
    ];
    const PAST: &[(i64, usize)] = &[
        (-200, 31),
        (-112, 30),
        (-98, 29),
        (-86, 28),
        (-76, 27),
        (-66, 26),
        (-58, 25),
        (-51, 24),
        (-45, 23),
        (-39, 22),
        (-34, 21),
        (-30, 20),
        (-26, 19),
        (-23, 18),
        (-20, 17),
        (-18, 16),
        (-15, 15),
        (-14, 14),
        (-13, 13),
        (-12, 12),
        (-11, 11),
        (-10, 10),
        (-9, 9),
        (-8, 8),
        (-7, 7),
        (-6, 6),
        (-5, 5),
        (-4, 4),
        (-3, 3),
        (-2, 2),
        (-1, 1),
        (0, 0),
    ];

    #[test]
    fn buckets_are_those_of_transformers() {
        let json = serde_json::json!({"model_type": "t5", "vocab_size": 20, "d_model": 16, "d_kv": 6, "d_ff": 24,
            "num_layers": 2, "num_heads": 3});
        let config = Config::from_json(&json).unwrap();
        for (both_sides, expected) in [(true, BOTH), (false, PAST)] {
            let mut runs: Vec<(i64, usize)> = Vec::new();
            for offset in -200..=200 {
                let found = bucket(offset, &config, both_sides);
                if runs.last().is_none_or(|&(_, last)| last != found) {
                    runs.push((offset, found));
                }
            }
            assert_eq!(runs, expected);
        }
    }
}
