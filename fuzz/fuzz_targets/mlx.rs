//! Any bytes as an adapter of mlx-lm: an error, or an adapter that holds what every adapter must.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lowrank_fuzz::in_folder;
use lowrank_store::export::{MLX_TENSORS_NAME, read_mlx};
use lowrank_store::peft::CONFIG_NAME;

fuzz_target!(|bytes: &[u8]| in_folder(bytes, &[CONFIG_NAME, MLX_TENSORS_NAME], |folder| {
    if let Ok(adapter) = read_mlx(folder) {
        assert_eq!(adapter.check(), Ok(()));
    }
}));
