//! The bytes of a file without reading it: the one place of this crate with `unsafe`.

use std::borrow::Cow;
use std::fs::File;
use std::ops::Deref;
use std::path::Path;

use memmap2::Mmap;

use crate::StoreError;

/// The bytes of a file, mapped; or bytes that were in memory already.
#[derive(Debug)]
pub(crate) enum Mapped {
    File(Mmap),
    Memory(Cow<'static, [u8]>),
}

impl Mapped {
    /// Maps a whole file, read-only.
    #[allow(unsafe_code)]
    pub(crate) fn open(path: &Path) -> Result<Mapped, StoreError> {
        let file = File::open(path).map_err(StoreError::io(path, "open"))?;
        let data = file.metadata().map_err(StoreError::io(path, "read its size"))?;
        if data.is_dir() {
            let cause = std::io::Error::from(std::io::ErrorKind::IsADirectory);
            return Err(StoreError::Io { path: path.to_owned(), action: "open", cause });
        }
        // An empty mapping is an error on some systems.
        if data.len() == 0 {
            return Ok(Mapped::Memory(Cow::Borrowed(&[])));
        }
        // SAFETY: the map is read-only and private to this value. The bytes can change only if another process
        // writes into the same file while it is open; our own writers never do, they rename a new file over the old
        // one, and the map then keeps the old file. That remaining risk is the one of every mapped model file.
        let map = unsafe { Mmap::map(&file) }.map_err(StoreError::io(path, "map"))?;
        Ok(Mapped::File(map))
    }
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Mapped::File(map) => map,
            Mapped::Memory(bytes) => bytes,
        }
    }
}
