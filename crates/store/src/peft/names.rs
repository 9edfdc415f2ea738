//! Tensor names of PEFT.

use super::{PREFIX, PeftError};

/// What a tensor of an adapter is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    Right,
    Left,
    Bias,
    EmbeddingRight,
    EmbeddingLeft,
    Magnitude,
    /// The frozen weight that PEFT stores beside an adapted embedding.
    Base,
}

/// Ends of names. Embeddings and magnitudes have no `.weight`.
pub(super) const ENDS: [(Part, &str); 7] = [
    (Part::Right, ".lora_A.weight"),
    (Part::Left, ".lora_B.weight"),
    (Part::Bias, ".lora_B.bias"),
    (Part::EmbeddingRight, ".lora_embedding_A"),
    (Part::EmbeddingLeft, ".lora_embedding_B"),
    (Part::Magnitude, ".lora_magnitude_vector"),
    (Part::Base, ".base_layer.weight"),
];

/// The module and the part that a name means; `None` for the part when it is no tensor of a LoRA.
pub(super) fn split(name: &str) -> Result<(&str, Option<Part>), PeftError> {
    let misnamed = |why| Err(PeftError::Misnamed { name: name.to_owned(), why });
    let Some(rest) = name.strip_prefix(PREFIX) else {
        return misnamed(
            "names begin with \"base_model.model.\"; PEFT would pass over it and leave the base as it is",
        );
    };
    for (part, end) in ENDS {
        if let Some(module) = rest.strip_suffix(end) {
            return if module.is_empty() { misnamed("it names no module") } else { Ok((module, Some(part))) };
        }
    }
    if rest.contains(".lora_A.") || rest.contains(".lora_B.") || rest.contains(".lora_embedding_") {
        return misnamed(
            "remove the adapter's name from the end; only an adapter of that very name would load it",
        );
    }
    if rest.contains(".lora_a") || rest.contains(".lora_b") {
        return misnamed(
            "PEFT spells lora_A and lora_B; it would pass over this and leave the base as it is",
        );
    }
    Ok((rest, None))
}

/// The full name of a part.
pub(super) fn join(module: &str, part: Part) -> String {
    let end = ENDS.iter().find(|(known, _)| *known == part).map_or("", |(_, end)| end);
    format!("{PREFIX}{module}{end}")
}

/// The part as messages name it.
pub(super) fn label(part: Part) -> &'static str {
    ENDS.iter().find(|(known, _)| *known == part).map_or("", |(_, end)| &end[1..])
}

#[cfg(test)]
mod tests {
    use super::{ENDS, Part, PeftError, join, split};

    #[test]
    fn names_come_apart_and_together() {
        for (part, _) in ENDS {
            assert_eq!(split(&join("model.layers.0.q", part)), Ok(("model.layers.0.q", Some(part))));
        }
        assert_eq!(join("lm_head", Part::Left), "base_model.model.lm_head.lora_B.weight");
        assert_eq!(split("base_model.model.lm_head.weight"), Ok(("lm_head.weight", None)));
        for bad in [
            "model.layers.0.q.lora_A.weight",
            "base_model.model.q.lora_A.default.weight",
            "base_model.model.q.lora_a.weight",
        ] {
            let found = split(bad);
            assert!(matches!(found, Err(PeftError::Misnamed { .. })), "{bad}: {found:?}");
        }
    }
}
