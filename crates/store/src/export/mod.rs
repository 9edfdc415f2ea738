//! What an adapter must become for its readers: exact changes of shape, one check per reader, and the formats that are
//! not PEFT's.

mod llama_cpp;
mod mlx;
mod readers;
mod reshape;

use crate::peft::PeftError;

pub use llama_cpp::{look_llama_cpp, read_llama_cpp, write_llama_cpp};
pub use mlx::{MLX_TENSORS_NAME, read_mlx, write_mlx};
pub use readers::{Note, Reader, Reason, Refusal, check_reader};
pub use reshape::{fold, pad, stack};

/// The sides of a factor, of which one is known: the rank.
fn matrix(name: &str, shape: &[usize], wanted: [Option<usize>; 2]) -> Result<[usize; 2], PeftError> {
    let fits = |side: usize, wanted: Option<usize>| side > 0 && wanted.is_none_or(|wanted| wanted == side);
    match *shape {
        [rows, columns] if fits(rows, wanted[0]) && fits(columns, wanted[1]) => Ok([rows, columns]),
        _ => {
            let wanted = match wanted {
                [Some(rows), _] => format!("a matrix with {rows} rows"),
                [_, Some(columns)] => format!("a matrix with {columns} columns"),
                [None, None] => "a matrix that is not empty".to_owned(),
            };
            Err(PeftError::Misshaped { name: name.to_owned(), shape: shape.to_vec(), wanted })
        }
    }
}
