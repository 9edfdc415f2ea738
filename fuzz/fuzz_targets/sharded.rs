//! Any bytes as the index and two shards of a model: an error or a model whose every tensor can be read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lowrank_fuzz::in_folder;
use lowrank_store::TensorSource;
use lowrank_store::safetensors::{INDEX_NAME, ShardedModel};

fuzz_target!(|bytes: &[u8]| in_folder(bytes, &[INDEX_NAME, "1.safetensors", "2.safetensors"], |folder| {
    if let Ok(model) = ShardedModel::open(folder) {
        for name in model.names() {
            let _ = model.widened(name);
        }
    }
}));
