//! Writes adapters of every kind for `tests/interop/typed_peft.py`, which has PEFT load them.
//!
//!     typed_folders write DIR          a random adapter of every kind, each in a folder of its own
//!     typed_folders again FROM TO      reads an adapter that PEFT wrote and writes it again

#[path = "../tests/typed_peft/folders.rs"]
mod folders;

use std::error::Error;
use std::path::Path;

use lowrank_store::atomic::Existing;
use lowrank_store::peft::{AdapterFolder, Kind, TypedFolder, kind_of};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["write", folder] => {
            std::fs::create_dir_all(folder)?;
            for (name, typed) in folders::typed() {
                typed.write(&Path::new(folder).join(name), Existing::Refuse)?;
            }
            folders::dora().write(&Path::new(folder).join("dora"), Existing::Refuse)?;
            Ok(())
        }
        ["again", from, to] => {
            let (from, to) = (Path::new(from), Path::new(to));
            match kind_of(from)? {
                Kind::Lora => AdapterFolder::read(from)?.write(to, Existing::Refuse)?,
                _ => TypedFolder::read(from)?.write(to, Existing::Refuse)?,
            }
            Ok(())
        }
        _ => Err("usage: typed_folders write DIR, or typed_folders again FROM TO".into()),
    }
}
