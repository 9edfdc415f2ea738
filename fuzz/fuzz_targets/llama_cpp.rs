//! Any bytes as an adapter of llama.cpp: an error, or an adapter that holds what every adapter must.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lowrank_fuzz::in_folder;
use lowrank_store::export::read_llama_cpp;
use lowrank_store::gguf::LlamaCppBase;

fuzz_target!(|bytes: &[u8]| in_folder(bytes, &["adapter.gguf"], |folder| {
    let base = LlamaCppBase { architecture: "llama".into(), heads: 2, kv_heads: 1 };
    if let Ok(adapter) = read_llama_cpp(&folder.join("adapter.gguf"), &base) {
        assert_eq!(adapter.check(), Ok(()));
    }
}));
