//! How llama.cpp lays out a decoder of the Llama family: its tensor names, and its order of query and key rows.
//!
//! Hugging Face turns the pairs (i, i + d/2) of a head of d rows, llama.cpp neighbouring rows. For the architecture
//! `llama` (Mistral too) its converter therefore reorders the rows of every query and key head, weights and biases.
//!
//! Source: `gguf-py/gguf/tensor_mapping.py` and `LlamaModel.permute` in `convert_hf_to_gguf.py` of llama.cpp.

/// What decides the layout of a base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LlamaCppBase {
    /// `general.architecture`, such as `llama` (Mistral too) or `qwen2`.
    pub architecture: String,
    /// Attention heads.
    pub heads: usize,
    /// Heads of keys and values.
    pub kv_heads: usize,
}

impl LlamaCppBase {
    /// The heads whose rows llama.cpp has in another order, for a Hugging Face tensor or module name; `None` where the
    /// order is the same.
    #[must_use]
    pub fn reordered_heads(&self, name: &str) -> Option<usize> {
        let part = name.strip_suffix(".weight").or_else(|| name.strip_suffix(".bias")).unwrap_or(name);
        match part.rsplit('.').next() {
            _ if self.architecture != "llama" => None,
            Some("q_proj") => Some(self.heads),
            Some("k_proj") => Some(self.kv_heads),
            _ => None,
        }
    }
}

/// Hugging Face's names outside the layers, and llama.cpp's.
const OUTSIDE: [(&str, &str); 3] =
    [("model.embed_tokens", "token_embd"), ("model.norm", "output_norm"), ("lm_head", "output")];

/// The names inside a layer: the same for every architecture read here.
const INSIDE: [(&str, &str); 9] = [
    ("input_layernorm", "attn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("post_attention_layernorm", "ffn_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
];

/// llama.cpp's name of a Hugging Face tensor, which ends in `.weight` or `.bias`.
///
/// ```
/// use lowrank_store::gguf::llama_cpp_name;
/// assert_eq!(llama_cpp_name("model.layers.3.mlp.up_proj.weight").as_deref(), Some("blk.3.ffn_up.weight"));
/// assert_eq!(llama_cpp_name("model.layers.3.mlp.experts.up_proj.weight"), None);
/// ```
#[must_use]
pub fn llama_cpp_name(tensor: &str) -> Option<String> {
    let (module, kind) = tensor.rsplit_once('.')?;
    if let Some((_, name)) = OUTSIDE.iter().find(|(known, _)| *known == module) {
        return Some(format!("{name}.{kind}"));
    }
    let (layer, part) = module.strip_prefix("model.layers.")?.split_once('.')?;
    let layer: usize = layer.parse().ok()?;
    let (_, name) = INSIDE.iter().find(|(known, _)| *known == part)?;
    Some(format!("blk.{layer}.{name}.{kind}"))
}

/// The Hugging Face name of a llama.cpp tensor: the inverse of [`llama_cpp_name`].
#[must_use]
pub fn hugging_face_name(tensor: &str) -> Option<String> {
    let (stem, kind) = tensor.rsplit_once('.')?;
    if let Some((name, _)) = OUTSIDE.iter().find(|(_, known)| *known == stem) {
        return Some(format!("{name}.{kind}"));
    }
    let (layer, part) = stem.strip_prefix("blk.")?.split_once('.')?;
    let layer: usize = layer.parse().ok()?;
    let (name, _) = INSIDE.iter().find(|(_, known)| *known == part)?;
    Some(format!("model.layers.{layer}.{name}.{kind}"))
}

/// Rows of `width` values, head by head of `head` rows, from Hugging Face's halves to llama.cpp's pairs: new row
/// 2i + j is old row j · head/2 + i. `head` is even.
#[must_use]
pub fn halves_to_pairs<T: Copy>(rows: &[T], width: usize, head: usize) -> Vec<T> {
    reorder(rows, width, head, |new| (new % 2) * (head / 2) + new / 2)
}

/// The inverse of [`halves_to_pairs`].
#[must_use]
pub fn pairs_to_halves<T: Copy>(rows: &[T], width: usize, head: usize) -> Vec<T> {
    reorder(rows, width, head, |new| 2 * (new % (head / 2)) + new / (head / 2))
}

fn reorder<T: Copy>(rows: &[T], width: usize, head: usize, old: impl Fn(usize) -> usize) -> Vec<T> {
    let mut all = Vec::with_capacity(rows.len());
    for rows in rows.chunks_exact((head * width).max(1)) {
        for new in 0..head {
            all.extend_from_slice(&rows[old(new) * width..(old(new) + 1) * width]);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_there_and_back() {
        for (module, kind) in
            [("lm_head", "weight"), ("model.norm", "weight"), ("model.embed_tokens", "weight")]
                .into_iter()
                .map(|(module, kind)| (module.to_owned(), kind))
                .chain(INSIDE.iter().map(|(part, _)| (format!("model.layers.12.{part}"), "bias")))
        {
            let name = format!("{module}.{kind}");
            assert_eq!(hugging_face_name(&llama_cpp_name(&name).unwrap()).unwrap(), name);
        }
        for unknown in
            ["lm_head", "model.layers.x.mlp.up_proj.weight", "model.layers.0.mlp.experts.q_proj.weight"]
        {
            assert_eq!(llama_cpp_name(unknown), None, "{unknown}");
        }
        assert_eq!(hugging_face_name("blk.0.attn_qkv.weight"), None);
    }

    #[test]
    fn rows_are_reordered_as_by_the_converter() {
        // Two heads of four rows; NumPy's reshape(2, 2, 2).swapaxes(1, 2) of 0..8 is 0 2 1 3, 4 6 5 7.
        let rows: Vec<u8> = (0..8).collect();
        assert_eq!(halves_to_pairs(&rows, 1, 4), [0, 2, 1, 3, 4, 6, 5, 7]);
        // One head of six rows of two values: halves 0 1 2 and 3 4 5 become 0 3 1 4 2 5.
        let rows: Vec<f32> = (0..12_u8).map(f32::from).collect();
        let wanted = [0.0, 1.0, 6.0, 7.0, 2.0, 3.0, 8.0, 9.0, 4.0, 5.0, 10.0, 11.0];
        assert_eq!(halves_to_pairs(&rows, 2, 6), wanted);
        assert_eq!(pairs_to_halves(&wanted, 2, 6), rows);
        // Three heads of eight: there and back.
        let rows: Vec<u8> = (0..48).collect();
        assert_ne!(halves_to_pairs(&rows, 2, 8), rows);
        assert_eq!(pairs_to_halves(&halves_to_pairs(&rows, 2, 8), 2, 8), rows);
    }

    #[test]
    fn only_query_and_key_of_llama_are_reordered() {
        let base =
            |architecture: &str| LlamaCppBase { architecture: architecture.into(), heads: 6, kv_heads: 2 };
        let of = |name: &str| base("llama").reordered_heads(name);
        assert_eq!(of("model.layers.0.self_attn.q_proj"), Some(6));
        assert_eq!(of("model.layers.0.self_attn.k_proj.bias"), Some(2));
        assert_eq!(of("model.layers.0.self_attn.v_proj.weight"), None);
        assert_eq!(base("qwen2").reordered_heads("model.layers.0.self_attn.q_proj.weight"), None);
    }
}
