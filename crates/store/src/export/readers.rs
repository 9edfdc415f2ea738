//! What each reader makes of a PEFT adapter: refusals before the file is written, instead of wrong output after.
//!
//! Read in the readers' sources (PEFT 0.21, vLLM 0.33, llama.cpp and mistral.rs of August 2026, mlx-lm).

use std::fmt;

use crate::peft::{AdapterConfig, Factor, Matcher, Place};

/// A program that loads adapters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// Hugging Face PEFT.
    Peft,
    /// vLLM.
    Vllm,
    /// llama.cpp, by its `convert_lora_to_gguf.py` or by [`super::write_llama_cpp`].
    LlamaCpp,
    /// mistral.rs.
    MistralRs,
    /// mlx-lm, by [`super::write_mlx`].
    Mlx,
}

impl Reader {
    /// Every reader.
    pub const ALL: [Reader; 5] =
        [Reader::Peft, Reader::Vllm, Reader::LlamaCpp, Reader::MistralRs, Reader::Mlx];

    /// The name as typed by the user.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Reader::Peft => "peft",
            Reader::Vllm => "vllm",
            Reader::LlamaCpp => "llama.cpp",
            Reader::MistralRs => "mistral.rs",
            Reader::Mlx => "mlx",
        }
    }

    /// The reader of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Reader> {
        Reader::ALL.into_iter().find(|reader| reader.name() == name)
    }
}

/// Something that the user should know or do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note(pub String);

/// One thing that the reader would misread or refuse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// What.
    pub what: String,
    /// What to do about it.
    pub hint: &'static str,
}

/// Why an adapter is not exported for a reader: every reason at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The reader.
    pub reader: Reader,
    /// The reasons, at least one.
    pub reasons: Vec<Reason>,
}

impl std::error::Error for Refusal {}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} would not read this adapter rightly: ", self.reader.name())?;
        for (at, reason) in self.reasons.iter().enumerate() {
            let join = if at == 0 { "" } else { "; " };
            write!(f, "{join}{} ({})", reason.what, reason.hint)?;
        }
        Ok(())
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

const CONVERT: &str = "convert it to a plain adapter first: init_lora_weights true";
const MERGE: &str = "merge it into the base instead";
const FOLD_AND_PAD: &str = "fold and pad it first";
const VLLM_RANKS: [usize; 9] = [1, 8, 16, 32, 64, 128, 256, 320, 512];
const VLLM_DEFAULT_RANK: usize = 16;
/// What vLLM puts adapters on in every decoder: the linear layers of the blocks and the embedding, by the checkpoint's names.
const VLLM_MODULES: [&str; 8] =
    ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "embed_tokens"];
const VLLM_HEAD: &str = "lm_head";
const MISTRAL_RANK: usize = 256;
const MISTRAL_BYTES: usize = 8 << 30;

/// Whether a reader loads the adapter rightly, with what the user should know.
///
/// # Errors
/// [`Refusal`] with every reason.
pub fn check_reader(
    reader: Reader,
    config: &AdapterConfig,
    factors: &[Factor],
) -> Result<Vec<Note>, Refusal> {
    let mut seen = Seen { config, factors, notes: Vec::new(), reasons: Vec::new() };
    seen.everywhere();
    match reader {
        Reader::Peft => seen.peft(),
        Reader::Vllm => seen.vllm(),
        Reader::LlamaCpp => seen.llama_cpp(),
        Reader::MistralRs => seen.mistral_rs(),
        Reader::Mlx => seen.mlx(),
    }
    if seen.reasons.is_empty() { Ok(seen.notes) } else { Err(Refusal { reader, reasons: seen.reasons }) }
}

struct Seen<'a> {
    config: &'a AdapterConfig,
    factors: &'a [Factor],
    notes: Vec<Note>,
    reasons: Vec<Reason>,
}

impl Seen<'_> {
    fn no(&mut self, when: bool, what: &str, hint: &'static str) {
        if when {
            self.reasons.push(Reason { what: what.to_owned(), hint });
        }
    }

    fn note(&mut self, when: bool, text: String) {
        if when {
            self.notes.push(Note(text));
        }
    }

    fn most_rank(&self) -> usize {
        self.factors.iter().map(|factor| factor.rank).max().unwrap_or(self.config.rank)
    }

    fn has_embedding(&self) -> bool {
        self.factors.iter().any(|factor| factor.place == Place::Embedding)
    }

    /// Whether one α and one rank give every module its scale.
    fn is_uniform(&self) -> bool {
        self.config.rank_pattern.is_empty() && self.config.alpha_pattern.is_empty()
    }

    /// What no reader can know: the base was changed.
    fn everywhere(&mut self) {
        let init = self.config.init.text();
        self.no(
            self.config.init.changes_base(),
            &format!("init_lora_weights {init:?} belongs to a changed base"),
            CONVERT,
        );
        let unknown = self.config.unknown_keys().join(", ");
        self.note(!unknown.is_empty(), format!("keys that PEFT does not know, kept as they are: {unknown}"));
    }

    fn peft(&mut self) {
        if let Err(error) = Matcher::new(self.config) {
            self.no(true, &error.to_string(), "write patterns that both understand");
        }
    }

    fn vllm(&mut self) {
        let config = self.config;
        self.no(config.dora, "use_dora", MERGE);
        self.no(config.left_bias || config.bias != "none", "biases", MERGE);
        self.set_keys(&["alora_invocation_tokens", "layer_replication", "use_bdlora", "use_qalora"]);
        let other = config.modules_to_save.iter().find(|m| !matches!(m.as_str(), "classifier" | "score"));
        self.no(other.is_some(), &format!("modules_to_save {:?}", config.modules_to_save), MERGE);
        self.set_keys(&["trainable_token_indices"]);
        self.vllm_modules();
        let rank = self.most_rank();
        match VLLM_RANKS.into_iter().find(|&allowed| allowed >= rank) {
            None => self.no(true, &format!("rank {rank}, the most is 512"), "lower the rank, or recompress it"),
            Some(needed) => self.note(
                needed > VLLM_DEFAULT_RANK,
                format!("rank {rank}: start vLLM with --max-lora-rank {needed} (its default is {VLLM_DEFAULT_RANK})"),
            ),
        }
        self.note(
            !self.is_uniform(),
            "several ranks or scales: vLLM before 0.33 used the global ones; fold and pad for those"
                .to_owned(),
        );
    }

    fn vllm_modules(&mut self) {
        let last = |factor: &Factor| factor.module.rsplit('.').next().unwrap_or_default().to_owned();
        let names: Vec<String> = self.factors.iter().map(last).collect();
        let is_adapted = |name: &String| name == VLLM_HEAD || VLLM_MODULES.contains(&name.as_str());
        if let Some(at) = names.iter().position(|name| !is_adapted(name)) {
            let what = format!("module {:?}, on which it puts no adapter", self.factors[at].module);
            self.no(true, &what, "adapt the linear layers of the blocks only, or merge it into the base");
        }
        self.note(
            names.iter().any(|name| name == VLLM_HEAD),
            "lm_head has factors: vLLM loads them only where its class for the model adapts the head"
                .to_owned(),
        );
    }

    fn llama_cpp(&mut self) {
        let config = self.config;
        self.no(config.dora, "use_dora", MERGE);
        self.no(config.left_bias || config.bias != "none", "biases", MERGE);
        self.no(!config.modules_to_save.is_empty(), "modules_to_save", MERGE);
        self.set_keys(&["trainable_token_indices", "layer_replication", "use_bdlora", "use_qalora"]);
        self.no(config.rank_stabilised, "use_rslora, which it ignores (scale α/r)", FOLD_AND_PAD);
        self.no(!config.alpha_pattern.is_empty(), "alpha_pattern, which it ignores", FOLD_AND_PAD);
        // Its scale is α / (rank of the tensor).
        let several = self.factors.iter().any(|factor| factor.rank != config.rank);
        self.no(
            several && config.alpha_pattern.is_empty() && config.rank_pattern.is_empty(),
            "ranks unlike r",
            FOLD_AND_PAD,
        );
        let head = self.factors.iter().any(|factor| factor.module.ends_with("lm_head"));
        self.note(
            head,
            "lm_head has factors: llama.cpp refuses them when the base ties its embeddings".to_owned(),
        );
    }

    fn mistral_rs(&mut self) {
        let config = self.config;
        self.no(config.dora, "use_dora", MERGE);
        self.no(config.left_bias || config.bias != "none", "biases", MERGE);
        self.no(!config.modules_to_save.is_empty(), "modules_to_save", MERGE);
        self.no(self.has_embedding(), "factors of an embedding", MERGE);
        self.set_keys(&[
            "alora_invocation_tokens",
            "ensure_weight_tying",
            "trainable_token_indices",
            "use_bdlora",
            "use_qalora",
            "layer_replication",
        ]);
        let rank = self.most_rank();
        self.no(
            rank > MISTRAL_RANK,
            &format!("rank {rank}, the most is {MISTRAL_RANK}"),
            "lower it, or recompress",
        );
        let bytes: usize = self.factors.iter().map(|f| 4 * (f.left.len() + f.right.len())).sum();
        self.no(bytes > MISTRAL_BYTES, "more than 8 GiB", "store it as BF16, or lower the rank");
    }

    fn mlx(&mut self) {
        let config = self.config;
        self.no(config.dora, "use_dora", MERGE);
        self.no(config.left_bias || config.bias != "none", "biases", MERGE);
        self.no(!config.modules_to_save.is_empty(), "modules_to_save", MERGE);
        self.no(self.has_embedding(), "factors of an embedding", MERGE);
        self.no(config.fan_in_fan_out, "fan_in_fan_out", MERGE);
        self.set_keys(&["trainable_token_indices", "layer_replication", "use_bdlora", "use_qalora"]);
        self.note(!self.is_uniform(), "several ranks or scales: folded and padded on writing".to_owned());
        self.note(true, "mlx-lm reads its own layout (adapters.safetensors), not PEFT's".to_owned());
    }

    fn set_keys(&mut self, keys: &[&str]) {
        for key in keys {
            self.no(self.config.is_set(key), key, MERGE);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::reshape::tests::{factor, mixed};
    use super::super::{fold, pad};
    use super::{Note, Reader, check_reader};
    use crate::peft::{AdapterFolder, Init, Place};

    fn reasons(reader: Reader, adapter: &AdapterFolder) -> Vec<String> {
        match check_reader(reader, &adapter.config, &adapter.factors) {
            Ok(_) => Vec::new(),
            Err(refusal) => {
                assert!(refusal.to_string().contains(reader.name()) && refusal.to_string().contains('('));
                refusal.reasons.into_iter().map(|reason| reason.what).collect()
            }
        }
    }

    #[test]
    fn the_plain_adapter_is_read_by_all() {
        let plain = fold(&pad(&mixed(true)).unwrap()).unwrap();
        for reader in Reader::ALL {
            assert!(reasons(reader, &plain).is_empty(), "{reader:?}");
            assert_eq!(Reader::named(reader.name()), Some(reader));
        }
    }

    #[test]
    fn each_reader_refuses_its_own() {
        use Reader::{LlamaCpp, MistralRs, Mlx, Peft, Vllm};
        let plain = fold(&pad(&mixed(false)).unwrap()).unwrap();
        let check = |change: &dyn Fn(&mut AdapterFolder), refusing: &[Reader]| {
            let mut adapter = plain.clone();
            change(&mut adapter);
            for reader in Reader::ALL {
                let found = reasons(reader, &adapter);
                assert_eq!(!found.is_empty(), refusing.contains(&reader), "{reader:?}: {found:?}");
            }
        };
        check(&|a| a.config.dora = true, &[Vllm, LlamaCpp, MistralRs, Mlx]);
        check(&|a| a.config.left_bias = true, &[Vllm, LlamaCpp, MistralRs, Mlx]);
        check(&|a| a.config.modules_to_save = vec!["score".into()], &[LlamaCpp, MistralRs, Mlx]);
        check(&|a| a.config.modules_to_save = vec!["lm_head".into()], &[Vllm, LlamaCpp, MistralRs, Mlx]);
        check(&|a| a.config.rank_stabilised = true, &[LlamaCpp]);
        check(&|a| a.config.alpha_pattern = vec![("q_proj".into(), 1.0)], &[LlamaCpp]);
        check(&|a| a.factors[0].place = Place::Embedding, &[MistralRs, Mlx]);
        check(&|a| a.config.fan_in_fan_out = true, &[Mlx]);
        check(&|a| a.config.init = Init::Named("gaussian".into()), &[]);
        for offset in ["pissa", "lora_ga", "corda", "olora"] {
            check(&|a| a.config.init = Init::Named(offset.into()), &[Peft, Vllm, LlamaCpp, MistralRs, Mlx]);
        }
        let replicated = |a: &mut AdapterFolder| {
            a.config.other.insert("layer_replication".into(), json!([[0, 2]]));
        };
        check(&replicated, &[Vllm, LlamaCpp, MistralRs, Mlx]);
        check(&|a| a.factors.push(factor("a.up_proj", (1, 1, 300), 1)), &[LlamaCpp, MistralRs]);
        check(&|a| a.factors.push(factor("a.up_proj", (1, 1, 513), 1)), &[Vllm, LlamaCpp, MistralRs]);
        check(&|a| a.factors[0].module = "model.layers.0.mlp.router".into(), &[Vllm]);
        check(&|a| a.factors[0].module = "lm_head".into(), &[]);
        check(&|a| a.config.rank_pattern = vec![("(".into(), 1)], &[Peft]);
    }

    #[test]
    fn vllm_users_are_told_the_flag() {
        let mut adapter = mixed(false);
        let notes =
            |adapter: &AdapterFolder| check_reader(Reader::Vllm, &adapter.config, &adapter.factors).unwrap();
        assert!(!notes(&adapter).iter().any(|Note(text)| text.contains("--max-lora-rank")));
        adapter.factors.push(factor("a.up_proj", (1, 1, 33), 1));
        assert!(notes(&adapter).iter().any(|Note(text)| text.contains("--max-lora-rank 64")));
        assert!(!notes(&adapter).iter().any(|Note(text)| text.contains("lm_head")));
        adapter.factors[0].module = "lm_head".into();
        assert!(notes(&adapter).iter().any(|Note(text)| text.contains("lm_head")));
    }
}
