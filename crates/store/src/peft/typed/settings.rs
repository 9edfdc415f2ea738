use serde_json::{Map, Value, json};

use super::Kind;
use super::config::shown;
use crate::peft::config::{Keys, pairs, targets};
use crate::peft::{PeftError, RANK, Targets, rank};

/// How an input is cut into blocks: by one of two numbers, the other following from the width of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blocks {
    /// Blocks of this many inputs.
    Size(usize),
    /// This many blocks.
    Count(usize),
}

/// What each kind needs beyond the modules; the key of the file in parentheses.
#[derive(Debug, Clone, PartialEq)]
pub enum Settings {
    /// IA3.
    Ia3 {
        /// Targets whose factors are on the input, `[1, in]`, instead of the output, `[out, 1]` (`feedforward_modules`).
        feedforward: Targets,
    },
    /// LoHa: the change is α/r · (w1_a·w1_b) ∘ (w2_a·w2_b).
    Loha {
        /// Rank of modules that no pattern names (`r`).
        rank: usize,
        /// α of modules that no pattern names (`alpha`).
        alpha: f64,
        /// Ranks of some modules, first match first (`rank_pattern`).
        rank_pattern: Vec<(String, usize)>,
        /// α of some modules, first match first (`alpha_pattern`).
        alpha_pattern: Vec<(String, f64)>,
    },
    /// LoKr: the change is α/r · w1 ⊗ w2, each whole or as a product.
    Lokr {
        /// Rank of modules that no pattern names (`r`).
        rank: usize,
        /// α of modules that no pattern names (`alpha`).
        alpha: f64,
        /// Ranks of some modules, first match first (`rank_pattern`).
        rank_pattern: Vec<(String, usize)>,
        /// α of some modules, first match first (`alpha_pattern`).
        alpha_pattern: Vec<(String, f64)>,
        /// Whether w1 is a product too where the rank is small enough (`decompose_both`).
        decompose_both: bool,
        /// The side that w1 is brought near; -1 for the root of the width (`decompose_factor`).
        decompose_factor: i64,
    },
    /// OFT.
    Oft {
        /// Size or number of blocks (`oft_block_size`, `r`).
        blocks: Blocks,
        /// One rotation for all blocks (`block_share`).
        block_share: bool,
        /// Whether rotations are kept near the identity (`coft`).
        coft: bool,
        /// How near (`eps`).
        eps: f64,
        /// Whether the inverse of Cayley's transform is a series (`use_cayley_neumann`).
        cayley_neumann: bool,
        /// Terms of the series (`num_cayley_neumann_terms`).
        terms: usize,
    },
    /// BOFT.
    Boft {
        /// Size or number of blocks (`boft_block_size`, `boft_block_num`).
        blocks: Blocks,
        /// Butterfly factors (`boft_n_butterfly_factor`). Without its CUDA extension PEFT makes one whatever this says.
        factors: usize,
    },
    /// VeRA.
    Vera {
        /// Rank of the projections (`r`).
        rank: usize,
        /// What the projections were drawn from (`projection_prng_key`).
        projection_key: u64,
        /// What `lambda_d` began as (`d_initial`).
        d_initial: f64,
    },
    /// AdaLoRA: the change is α/(init_r + 1e-5) · left·diag(values)·right.
    Adalora {
        /// The rank that the training began with (`init_r`); the scale divides by it.
        init_rank: usize,
        /// The rank aimed at (`target_r`).
        target_rank: usize,
        /// α, above 0 (`lora_alpha`).
        alpha: f64,
        /// Steps of the training (`total_step`), of which PEFT wants at least one.
        total_steps: usize,
        /// Steps before the pruning began (`tinit`).
        first_steps: usize,
        /// Steps after it ended (`tfinal`).
        last_steps: usize,
        /// Which of the directions are left, by module; only these are in the file (`rank_pattern`). A module that is not named has
        /// all of them.
        kept: Vec<(String, Vec<bool>)>,
    },
}

/// What PEFT puts behind a module's name in AdaLoRA's `rank_pattern`.
const KEPT_END: &str = ".lora_E";

fn whole(value: &Value) -> Option<usize> {
    usize::try_from(value.as_u64()?).ok()
}

const WHOLE: &str = "a whole number";

impl Settings {
    /// The kind that they are of.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Settings::Ia3 { .. } => Kind::Ia3,
            Settings::Loha { .. } => Kind::Loha,
            Settings::Lokr { .. } => Kind::Lokr,
            Settings::Oft { .. } => Kind::Oft,
            Settings::Boft { .. } => Kind::Boft,
            Settings::Vera { .. } => Kind::Vera,
            Settings::Adalora { .. } => Kind::Adalora,
        }
    }

    pub(super) fn parse(kind: Kind, keys: &mut Keys) -> Result<Settings, PeftError> {
        let ranks = |keys: &mut Keys| {
            let wanted = "an object of whole numbers from 1 to 16777216";
            keys.get("rank_pattern", wanted, |value| pairs(value, rank)).map(Option::unwrap_or_default)
        };
        let alphas = |keys: &mut Keys| {
            let read = |value: &Value| pairs(value, Value::as_f64);
            keys.get("alpha_pattern", "an object of numbers", read).map(Option::unwrap_or_default)
        };
        Ok(match kind {
            Kind::Lora => return Err(PeftError::IsLora),
            Kind::Ia3 => Settings::Ia3 {
                feedforward: keys.need("feedforward_modules", "text or a list of texts", targets)?,
            },
            Kind::Loha => Settings::Loha {
                rank: keys.need("r", RANK, rank)?,
                alpha: keys.need("alpha", "a number", Value::as_f64)?,
                rank_pattern: ranks(keys)?,
                alpha_pattern: alphas(keys)?,
            },
            Kind::Lokr => Settings::Lokr {
                rank: keys.need("r", RANK, rank)?,
                alpha: keys.need("alpha", "a number", Value::as_f64)?,
                rank_pattern: ranks(keys)?,
                alpha_pattern: alphas(keys)?,
                decompose_both: keys.truth("decompose_both")?,
                decompose_factor: keys
                    .get("decompose_factor", "a whole number or -1", Value::as_i64)?
                    .unwrap_or(-1),
            },
            Kind::Oft => Settings::Oft {
                blocks: blocks(keys, "oft_block_size", "r", Some(0))?,
                block_share: keys.truth("block_share")?,
                coft: keys.truth("coft")?,
                eps: keys.get("eps", "a number", Value::as_f64)?.unwrap_or(6e-5),
                cayley_neumann: keys
                    .get("use_cayley_neumann", "true or false", Value::as_bool)?
                    .unwrap_or(true),
                terms: keys.get("num_cayley_neumann_terms", WHOLE, whole)?.unwrap_or(5),
            },
            Kind::Boft => Settings::Boft {
                blocks: blocks(keys, "boft_block_size", "boft_block_num", None)?,
                factors: keys.get("boft_n_butterfly_factor", RANK, rank)?.unwrap_or(1),
            },
            Kind::Vera => {
                let saved = keys.get("save_projection", "true or false", Value::as_bool)?;
                if saved == Some(false) {
                    return Err(PeftError::NoProjection);
                }
                Settings::Vera {
                    rank: keys.need("r", RANK, rank)?,
                    projection_key: keys.get("projection_prng_key", WHOLE, Value::as_u64)?.unwrap_or(0),
                    d_initial: keys.get("d_initial", "a number", Value::as_f64)?.unwrap_or(0.1),
                }
            }
            Kind::Adalora => Settings::Adalora {
                init_rank: keys.need("init_r", RANK, rank)?,
                target_rank: keys.get("target_r", RANK, rank)?.unwrap_or(8),
                alpha: keys.need("lora_alpha", "a number", Value::as_f64)?,
                total_steps: keys.need("total_step", RANK, rank)?,
                first_steps: keys.get("tinit", WHOLE, whole)?.unwrap_or(0),
                last_steps: keys.get("tfinal", WHOLE, whole)?.unwrap_or(0),
                kept: keys
                    .get("rank_pattern", "an object of lists of true and false", kept)?
                    .unwrap_or_default(),
            },
        })
    }

    pub(super) fn check(&self) -> Result<(), PeftError> {
        match self {
            Settings::Oft { blocks: Blocks::Size(0) | Blocks::Count(0), .. } => {
                Err(PeftError::EitherOr { first: "oft_block_size", second: "r" })
            }
            Settings::Boft { blocks: Blocks::Size(0) | Blocks::Count(0), .. } => {
                Err(PeftError::EitherOr { first: "boft_block_size", second: "boft_block_num" })
            }
            // PEFT would take the module's rank instead.
            Settings::Adalora { alpha, .. } if alpha.is_nan() || *alpha <= 0.0 => Err(PeftError::WrongType {
                key: "lora_alpha",
                found: alpha.to_string(),
                wanted: "a number above 0",
            }),
            Settings::Adalora { total_steps, first_steps, last_steps, .. }
                if first_steps.saturating_add(*last_steps) >= *total_steps =>
            {
                // PEFT refuses such a folder when it loads it.
                Err(PeftError::WrongType {
                    key: "total_step",
                    found: total_steps.to_string(),
                    wanted: "more than tinit and tfinal together",
                })
            }
            _ => Ok(()),
        }
    }

    /// Rank and α of modules that no pattern names, for matching.
    pub(super) fn rank_and_alpha(&self) -> (usize, f64) {
        match *self {
            Settings::Loha { rank, alpha, .. } | Settings::Lokr { rank, alpha, .. } => (rank, alpha),
            Settings::Vera { rank, .. } => (rank, rank as f64),
            Settings::Adalora { init_rank, alpha, .. } => (init_rank, alpha),
            Settings::Ia3 { .. } | Settings::Oft { .. } | Settings::Boft { .. } => (1, 1.0),
        }
    }

    pub(super) fn write(&self, map: &mut Map<String, Value>) {
        let mut put = |key: &str, value: Value| map.insert(key.to_owned(), value);
        match self {
            Settings::Ia3 { feedforward } => {
                put("feedforward_modules", feedforward.to_value());
            }
            Settings::Loha { rank, alpha, rank_pattern, alpha_pattern }
            | Settings::Lokr { rank, alpha, rank_pattern, alpha_pattern, .. } => {
                put("r", json!(rank));
                put("alpha", shown(*alpha));
                let ranks = rank_pattern.iter().map(|(key, rank)| (key.clone(), json!(rank)));
                put("rank_pattern", Value::Object(ranks.collect()));
                let alphas = alpha_pattern.iter().map(|(key, alpha)| (key.clone(), shown(*alpha)));
                put("alpha_pattern", Value::Object(alphas.collect()));
                if let Settings::Lokr { decompose_both, decompose_factor, .. } = self {
                    put("decompose_both", json!(decompose_both));
                    put("decompose_factor", json!(decompose_factor));
                }
            }
            Settings::Oft { blocks, block_share, coft, eps, cayley_neumann, terms } => {
                let (size, count) = blocks.both();
                put("oft_block_size", json!(size));
                put("r", json!(count));
                put("block_share", json!(block_share));
                put("coft", json!(coft));
                put("eps", json!(eps));
                put("use_cayley_neumann", json!(cayley_neumann));
                put("num_cayley_neumann_terms", json!(terms));
            }
            Settings::Boft { blocks, factors } => {
                let (size, count) = blocks.both();
                put("boft_block_size", json!(size));
                put("boft_block_num", json!(count));
                put("boft_n_butterfly_factor", json!(factors));
            }
            Settings::Vera { rank, projection_key, d_initial } => {
                put("r", json!(rank));
                put("projection_prng_key", json!(projection_key));
                put("d_initial", json!(d_initial));
                put("save_projection", json!(true));
            }
            Settings::Adalora {
                init_rank,
                target_rank,
                alpha,
                total_steps,
                first_steps,
                last_steps,
                kept,
            } => {
                put("init_r", json!(init_rank));
                put("target_r", json!(target_rank));
                put("lora_alpha", shown(*alpha));
                put("total_step", json!(total_steps));
                put("tinit", json!(first_steps));
                put("tfinal", json!(last_steps));
                let choices = kept.iter().map(|(module, kept)| (format!("{module}{KEPT_END}"), json!(kept)));
                let choices: Map<String, Value> = choices.collect();
                put("rank_pattern", if choices.is_empty() { Value::Null } else { Value::Object(choices) });
            }
        }
    }
}

impl Blocks {
    /// Size and number as in the file: 0 for the one that follows.
    fn both(self) -> (usize, usize) {
        match self {
            Blocks::Size(size) => (size, 0),
            Blocks::Count(count) => (0, count),
        }
    }
}

/// Exactly one of the two keys is not 0. PEFT insists on some keys, and has defaults for others.
fn blocks(
    keys: &mut Keys,
    size: &'static str,
    count: &'static str,
    count_default: Option<usize>,
) -> Result<Blocks, PeftError> {
    let sizes = keys.need(size, WHOLE, whole)?;
    let counts = match count_default {
        Some(default) => keys.get(count, WHOLE, whole)?.unwrap_or(default),
        None => keys.need(count, WHOLE, whole)?,
    };
    match (sizes, counts) {
        (size, 0) if size > 0 => Ok(Blocks::Size(size)),
        (0, count) if count > 0 => Ok(Blocks::Count(count)),
        _ => Err(PeftError::EitherOr { first: size, second: count }),
    }
}

fn kept(value: &Value) -> Option<Vec<(String, Vec<bool>)>> {
    let choice = |value: &Value| value.as_array()?.iter().map(Value::as_bool).collect::<Option<Vec<_>>>();
    let named =
        |(key, value): (&String, &Value)| Some((key.strip_suffix(KEPT_END)?.to_owned(), choice(value)?));
    value.as_object()?.iter().map(named).collect()
}
