//! The small decoder and the small data set inside this binary; `assets/README.md` says where they come from and how
//! they were made.

/// A Llama-like decoder pretrained by `lowrank pretrain`, as GGUF with its tokenizer.
pub const MODEL: &[u8] = include_bytes!("../../../assets/model.gguf");

/// A text that the decoder was not trained on.
pub const TEXT: &str = include_str!("../../../assets/tune/tune.txt");
