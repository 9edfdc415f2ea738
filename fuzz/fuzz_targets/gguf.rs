//! Any bytes as a GGUF file: an error or a file whose every tensor can be read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lowrank_store::TensorSource;
use lowrank_store::gguf::GgufFile;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(file) = GgufFile::from_bytes(bytes.to_vec()) {
        for name in file.names() {
            let _ = file.widened(name);
        }
    }
});
