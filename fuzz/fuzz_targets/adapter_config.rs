//! Any JSON as adapter_config.json: what is read is written and read again as the same; patterns compile or are refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lowrank_store::peft::{AdapterConfig, Matcher};

fuzz_target!(|bytes: &[u8]| {
    let Ok(value) = serde_json::from_slice(bytes) else { return };
    let Ok(config) = AdapterConfig::parse(&value) else { return };
    assert_eq!(AdapterConfig::parse(&config.to_value()).as_ref(), Ok(&config));
    if let Ok(matcher) = Matcher::new(&config) {
        let _ = matcher.is_target("model.layers.0.self_attn.q_proj");
        let _ = matcher.scale("model.layers.0.self_attn.q_proj");
    }
});
