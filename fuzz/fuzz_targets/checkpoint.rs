//! Any bytes as a checkpoint.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lowrank_store::checkpoint::Checkpoint;

fuzz_target!(|bytes: &[u8]| {
    let _ = Checkpoint::decode(bytes);
});
