//! Names of the blocks and of their linear layers.
//!
//! Since version 5 the modules of `transformers` have other names than the tensors in its files: `save_pretrained` writes
//! `vit.encoder.layer.0.attention.attention.query.weight` and the module is `vit.layers.0.attention.q_proj`. PEFT knows
//! modules, so our sites have their names; files are read by either.

use super::Family;

/// The linear layers of a block by the names of their modules, in the order in which they run.
pub const LINEARS: [&str; 6] =
    ["attention.q_proj", "attention.k_proj", "attention.v_proj", "attention.o_proj", "mlp.fc1", "mlp.fc2"];

/// How files call the blocks; modules of version 4 had these names too.
const BLOCKS_OF_FILES: &str = "encoder.layer.";

/// Under which names blocks and layers stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Naming {
    /// Those of files and of `transformers` 4.
    Files,
    /// Those of the modules in `transformers` 5.
    Modules,
}

/// How the modules of a family call their blocks.
fn blocks_of_modules(family: Family) -> &'static str {
    match family {
        Family::Vit | Family::Deit => "layers.",
        Family::Dinov2 => BLOCKS_OF_FILES,
    }
}

/// The layers of [`LINEARS`] as files call them.
fn linears_of_files(family: Family) -> [&'static str; 6] {
    let (inner, outer) = match family {
        Family::Vit | Family::Deit => ("intermediate.dense", "output.dense"),
        Family::Dinov2 => ("mlp.fc1", "mlp.fc2"),
    };
    let [query, key, value] =
        ["attention.attention.query", "attention.attention.key", "attention.attention.value"];
    [query, key, value, "attention.output.dense", inner, outer]
}

impl Naming {
    /// What stands before the names in a block: `encoder.layer.3.`.
    pub(super) fn block(self, family: Family, layer: usize) -> String {
        let blocks = match self {
            Naming::Files => BLOCKS_OF_FILES,
            Naming::Modules => blocks_of_modules(family),
        };
        format!("{blocks}{layer}.")
    }

    /// The layers of a block.
    pub(super) fn linears(self, family: Family) -> [&'static str; 6] {
        match self {
            Naming::Files => linears_of_files(family),
            Naming::Modules => LINEARS,
        }
    }
}

/// The module of today for a layer that an adapter names as `transformers` 4 did (`vit.encoder.layer.0.intermediate.dense`);
/// `None` where the name is none of those.
#[must_use]
pub fn of_version_5(family: Family, name: &str) -> Option<String> {
    let (prefix, rest) = name.split_once(BLOCKS_OF_FILES)?;
    let (layer, linear) = rest.split_once('.')?;
    let layer = layer.parse().ok()?;
    let which = linears_of_files(family).iter().position(|&old| old == linear)?;
    Some(format!("{prefix}{}{}", Naming::Modules.block(family, layer), LINEARS[which]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_version_4_are_translated_and_others_are_not() {
        for (family, old, new) in [
            (
                Family::Vit,
                "vit.encoder.layer.0.attention.attention.query",
                Some("vit.layers.0.attention.q_proj"),
            ),
            (
                Family::Vit,
                "vit.encoder.layer.11.attention.output.dense",
                Some("vit.layers.11.attention.o_proj"),
            ),
            (Family::Deit, "encoder.layer.2.output.dense", Some("layers.2.mlp.fc2")),
            (
                Family::Dinov2,
                "dinov2.encoder.layer.1.attention.attention.value",
                Some("dinov2.encoder.layer.1.attention.v_proj"),
            ),
            (Family::Vit, "vit.layers.0.attention.q_proj", None),
            (Family::Vit, "vit.encoder.layer.x.output.dense", None),
            (Family::Vit, "classifier", None),
        ] {
            assert_eq!(of_version_5(family, old).as_deref(), new, "{old}");
        }
    }
}
