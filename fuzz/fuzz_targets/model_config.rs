//! Any bytes as the configuration of a model, in JSON and inside GGUF: an error, or one that is written and read again as
//! the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lowrank_models::Config;
use lowrank_store::GgufFile;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(value) = serde_json::from_slice(bytes)
        && let Ok(config) = Config::from_json(&value)
    {
        let _ = config.parameters();
        assert_eq!(Config::from_json(&config.to_json()).ok(), Some(config));
    }
    if let Ok(file) = GgufFile::from_bytes(bytes.to_vec())
        && let Ok(config) = Config::from_gguf(&file)
    {
        let _ = config.parameters();
    }
});
