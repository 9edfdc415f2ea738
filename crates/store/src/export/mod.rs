//! What an adapter must become for its readers: exact changes of shape, one check per reader, and the formats that are
//! not PEFT's.

mod llama_cpp;
mod mlx;
mod readers;
mod reshape;

pub use llama_cpp::{read_llama_cpp, write_llama_cpp};
pub use mlx::{read_mlx, write_mlx};
pub use readers::{Note, Reader, Reason, Refusal, check_reader};
pub use reshape::{fold, pad, stack};
