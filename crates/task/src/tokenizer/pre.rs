//! Pre-tokenizers by the names that GGUF files use (`tokenizer.ggml.pre`).
//!
//! A byte-level vocabulary is only half of a tokenizer; the other half is how text is split before merging. GGUF stores
//! that half as a name. The patterns are those of the models' own tokenizer files; each pattern splits the pieces that the
//! one before left, and both matches and gaps are kept.
//!
//! Source: the `pre` names and their grouping follow llama.cpp (`src/llama-vocab.cpp`, 2025).

use crate::error::TaskError;

/// How one family of models splits text before merging.
pub(crate) struct Pre {
    /// Names in `tokenizer.ggml.pre`.
    pub names: &'static [&'static str],
    /// Patterns, applied one after another.
    pub splits: &'static [&'static str],
    /// A piece that is a token as a whole is not merged step by step.
    pub whole_pieces: bool,
    /// The begin token is added unless the file says otherwise.
    pub add_bos: bool,
}

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const ALL: &[Pre] = &[
    Pre {
        names: &["gpt-2", "phi-2", "mpt", "olmo", "jais", "exaone4", "gigachat", "roberta-bpe"],
        splits: &[GPT2],
        whole_pieces: false,
        add_bos: false,
    },
    Pre {
        names: &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"],
        splits: &[r"\p{N}", GPT2],
        whole_pieces: false,
        add_bos: false,
    },
    Pre {
        names: &["llama-bpe", "llama3", "llama-v3", "falcon3"],
        splits: &[LLAMA3],
        whole_pieces: true,
        add_bos: true,
    },
    Pre {
        names: &["dbrx", "smaug-bpe", "chatglm-bpe", "glm4"],
        splits: &[LLAMA3],
        whole_pieces: false,
        add_bos: false,
    },
    Pre {
        names: &["qwen2", "stablelm2", "deepseek-r1-qwen", "hunyuan"],
        splits: &[QWEN2],
        whole_pieces: false,
        add_bos: false,
    },
    Pre { names: &["tekken"], splits: &[TEKKEN], whole_pieces: true, add_bos: true },
    Pre { names: &["gpt-4o", "llama4"], splits: &[GPT4O], whole_pieces: false, add_bos: false },
    Pre {
        names: &["falcon"],
        splits: &[r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]"],
        whole_pieces: false,
        add_bos: false,
    },
    Pre {
        names: &["default"],
        splits: &[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"],
        whole_pieces: false,
        add_bos: false,
    },
];

/// The family with this name.
pub(crate) fn find(name: &str) -> Result<&'static Pre, TaskError> {
    ALL.iter().find(|pre| pre.names.contains(&name)).ok_or_else(|| TaskError::UnknownPre {
        pre: name.to_owned(),
        known: ALL.iter().flat_map(|pre| pre.names).copied().collect::<Vec<_>>().join(", "),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_stands_twice() {
        let mut names: Vec<_> = ALL.iter().flat_map(|pre| pre.names).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        let said = find("smollm3").map(|_| ()).unwrap_err().to_string();
        assert!(said.contains("`smollm3`") && said.contains("smollm, starcoder"), "{said}");
    }
}
