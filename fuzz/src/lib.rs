//! What the targets share: any bytes as the files of a folder.

use std::path::Path;

/// Cuts the bytes into one part for each name and hands over a folder with these files. The first bytes say, in two
/// bytes each, how long all parts but the last are, so that a fuzzer can let one grow without moving the others.
pub fn in_folder(bytes: &[u8], names: &[&str], read: impl FnOnce(&Path)) {
    let Some((lengths, mut rest)) = bytes.split_at_checked(2 * (names.len() - 1)) else { return };
    let folder = tempfile::tempdir().expect("a folder for the files");
    for (at, name) in names.iter().enumerate() {
        let length = match lengths.chunks_exact(2).nth(at) {
            Some(two) => usize::from(u16::from_le_bytes([two[0], two[1]])).min(rest.len()),
            None => rest.len(),
        };
        let (part, after) = rest.split_at(length);
        std::fs::write(folder.path().join(name), part).expect("a file in the folder");
        rest = after;
    }
    read(folder.path());
}
