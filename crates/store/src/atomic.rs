//! Writing that is all or nothing: to a sibling first, to the disk next, and only then under the real name.
//!
//! A write that fails leaves the old file or folder as it was and removes what it had begun. A process that is killed
//! may leave a hidden sibling `.NAME.partial-…` behind, never a half-written output.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::StoreError;

/// Where writes go. [`Disk::real`] is the disk; [`Disk::with_room`] is one that is full after so many bytes, so that
/// the tests of every crate can see what a full disk does.
#[derive(Debug, Default)]
pub struct Disk {
    room: Option<AtomicU64>,
}

impl Disk {
    /// The disk as it is.
    #[must_use]
    pub const fn real() -> Disk {
        Disk { room: None }
    }

    /// A disk that takes `bytes` more bytes, then answers "no space left".
    #[must_use]
    pub const fn with_room(bytes: u64) -> Disk {
        Disk { room: Some(AtomicU64::new(bytes)) }
    }
}

/// A file on a [`Disk`].
struct Metered<'a> {
    file: &'a File,
    disk: &'a Disk,
}

impl Write for Metered<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(room) = &self.disk.room else { return self.file.write(bytes) };
        let left = usize::try_from(room.load(Ordering::Relaxed)).unwrap_or(usize::MAX);
        if left == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let written = self.file.write(&bytes[..bytes.len().min(left)])?;
        room.fetch_sub(written as u64, Ordering::Relaxed);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Removes what was begun, unless it was finished.
struct Begun {
    path: PathBuf,
    finished: bool,
}

impl Drop for Begun {
    fn drop(&mut self) {
        if !self.finished {
            // Nothing more can be done about a file that cannot be removed; the first error is the one to tell.
            let _ =
                if self.path.is_dir() { fs::remove_dir_all(&self.path) } else { fs::remove_file(&self.path) };
        }
    }
}

/// A hidden sibling that no other process or thread uses.
fn sibling(path: &Path, what: &str) -> Result<PathBuf, StoreError> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let Some(name) = path.file_name() else { return Err(StoreError::BadName { path: path.to_owned() }) };
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{what}-{}-{count}", std::process::id()));
    Ok(path.with_file_name(hidden))
}

/// Makes a rename last: the folder that holds the name is written to the disk too.
fn sync_parent(path: &Path) -> Result<(), StoreError> {
    if cfg!(unix) {
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let folder = File::open(parent).map_err(StoreError::io(parent, "open"))?;
        folder.sync_all().map_err(StoreError::io(parent, "write to disk"))?;
    }
    Ok(())
}

/// Creates `path`, fills it and brings it to the disk.
fn fill(
    disk: &Disk,
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), StoreError> {
    let file =
        OpenOptions::new().write(true).create_new(true).open(path).map_err(StoreError::io(path, "create"))?;
    let mut sink = BufWriter::with_capacity(1 << 18, Metered { file: &file, disk });
    let done = write(&mut sink).and_then(|()| sink.flush());
    // Otherwise dropping the buffer would try to write its rest once more.
    let _ = sink.into_parts();
    done.map_err(StoreError::io(path, "write"))?;
    file.sync_all().map_err(StoreError::io(path, "write to disk"))
}

/// Writes a file, replacing one of the same name only when the new one is complete and on the disk.
///
/// # Errors
/// [`StoreError::Io`] with what `write` or the system says, [`StoreError::BadName`].
pub fn write_file(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), StoreError> {
    write_file_on(&Disk::real(), path, write)
}

/// [`write_file`] on a given disk.
///
/// # Errors
/// As [`write_file`].
pub fn write_file_on(
    disk: &Disk,
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), StoreError> {
    let mut begun = Begun { path: sibling(path, "partial")?, finished: false };
    fill(disk, &begun.path, write)?;
    fs::rename(&begun.path, path).map_err(StoreError::io(path, "put in place"))?;
    begun.finished = true;
    sync_parent(path)
}

/// What to do when the output folder exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Refuse.
    Refuse,
    /// Replace it, provided that the new folder has every entry that the old one has.
    Overwrite,
}

/// A folder being written.
#[derive(Debug)]
pub struct Folder<'a> {
    disk: &'a Disk,
    path: PathBuf,
}

impl Folder<'_> {
    /// Writes one file of the folder.
    ///
    /// # Errors
    /// As [`write_file`]; [`StoreError::BadName`] when `name` holds a folder.
    pub fn file(
        &self,
        name: &str,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), StoreError> {
        if Path::new(name).file_name() != Some(name.as_ref()) {
            return Err(StoreError::BadName { path: name.into() });
        }
        fill(self.disk, &self.path.join(name), write)
    }

    /// Writes a folder inside the folder.
    ///
    /// # Errors
    /// What `write` says; [`StoreError::BadName`] when `name` is not a single name.
    pub fn folder(
        &self,
        name: &str,
        write: impl FnOnce(&Folder<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        if Path::new(name).file_name() != Some(name.as_ref()) {
            return Err(StoreError::BadName { path: name.into() });
        }
        let path = self.path.join(name);
        fs::create_dir(&path).map_err(StoreError::io(&path, "create"))?;
        write(&Folder { disk: self.disk, path })
    }
}

/// Writes a folder of files: all of them, or none.
///
/// # Errors
/// [`StoreError::Exists`], [`StoreError::NotAFolder`], [`StoreError::WouldLose`], or what `write` says.
pub fn write_folder(
    path: &Path,
    existing: Existing,
    write: impl FnOnce(&Folder<'_>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    write_folder_on(&Disk::real(), path, existing, write)
}

/// [`write_folder`] on a given disk.
///
/// # Errors
/// As [`write_folder`].
pub fn write_folder_on(
    disk: &Disk,
    path: &Path,
    existing: Existing,
    write: impl FnOnce(&Folder<'_>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let there = fs::symlink_metadata(path).is_ok();
    if there && existing == Existing::Refuse {
        return Err(StoreError::Exists { path: path.to_owned() });
    }
    if there && !path.is_dir() {
        return Err(StoreError::NotAFolder { path: path.to_owned() });
    }
    let mut begun = Begun { path: sibling(path, "partial")?, finished: false };
    fs::create_dir(&begun.path).map_err(StoreError::io(&begun.path, "create"))?;
    write(&Folder { disk, path: begun.path.clone() })?;
    if cfg!(unix) {
        let folder = File::open(&begun.path).map_err(StoreError::io(&begun.path, "open"))?;
        folder.sync_all().map_err(StoreError::io(&begun.path, "write to disk"))?;
    }
    if there {
        replace(path, &begun.path)?;
    } else {
        fs::rename(&begun.path, path).map_err(StoreError::io(path, "put in place"))?;
    }
    begun.finished = true;
    sync_parent(path)
}

/// Gives a finished file or folder, written as a sibling, its name, replacing what has that name: a file by renaming
/// over it, a folder provided that the new one has every entry of the old.
///
/// # Errors
/// [`StoreError::WouldLose`], [`StoreError::NotAFolder`], [`StoreError::Io`].
pub fn put_in_place(new: &Path, path: &Path) -> Result<(), StoreError> {
    if new.is_dir() && fs::symlink_metadata(path).is_ok() {
        if !path.is_dir() {
            return Err(StoreError::NotAFolder { path: path.to_owned() });
        }
        replace(path, new)?;
    } else {
        fs::rename(new, path).map_err(StoreError::io(path, "put in place"))?;
    }
    sync_parent(path)
}

/// Swaps the new folder in; a folder with contents cannot be renamed over, so the old one steps aside first.
fn replace(path: &Path, new: &Path) -> Result<(), StoreError> {
    for entry in fs::read_dir(path).map_err(StoreError::io(path, "list"))? {
        let name = entry.map_err(StoreError::io(path, "list"))?.file_name();
        if !new.join(&name).exists() {
            let entry = name.to_string_lossy().into_owned();
            return Err(StoreError::WouldLose { path: path.to_owned(), entry });
        }
    }
    let old = sibling(path, "old")?;
    fs::rename(path, &old).map_err(StoreError::io(path, "move aside"))?;
    if let Err(cause) = fs::rename(new, path) {
        // Best effort: the error to tell is the first one.
        let _ = fs::rename(&old, path);
        return Err(StoreError::Io { path: path.to_owned(), action: "put in place", cause });
    }
    fs::remove_dir_all(&old).map_err(StoreError::io(&old, "remove"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::{Disk, Existing, put_in_place, write_file, write_file_on, write_folder, write_folder_on};
    use crate::StoreError;

    fn entries(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_full_disk_leaves_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        write_file(&path, |sink| sink.write_all(b"old")).unwrap();
        for room in 0..10 {
            let error = write_file_on(&Disk::with_room(room), &path, |sink| sink.write_all(b"brand new!"))
                .unwrap_err();
            let full = matches!(&error, StoreError::Io { cause, .. } if cause.kind() == std::io::ErrorKind::StorageFull);
            assert!(full, "{error}");
            assert_eq!(fs::read(&path).unwrap(), b"old");
            assert_eq!(entries(folder.path()), ["state"]);
        }
        write_file_on(&Disk::with_room(10), &path, |sink| sink.write_all(b"brand new!")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"brand new!");
    }

    #[test]
    fn a_folder_is_whole_or_absent() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("adapter");
        let write = |disk: &Disk, existing| {
            write_folder_on(disk, &path, existing, |out| {
                out.file("a", |sink| sink.write_all(b"12345"))?;
                out.folder("inside", |inside| inside.file("b", |sink| sink.write_all(b"67")))
            })
        };
        write(&Disk::with_room(6), Existing::Refuse).unwrap_err();
        assert!(entries(folder.path()).is_empty());
        write(&Disk::real(), Existing::Refuse).unwrap();
        assert!(matches!(write(&Disk::real(), Existing::Refuse), Err(StoreError::Exists { .. })));
        fs::write(path.join("a"), "old").unwrap();
        write(&Disk::with_room(6), Existing::Overwrite).unwrap_err();
        assert_eq!(fs::read(path.join("a")).unwrap(), b"old");
        write(&Disk::real(), Existing::Overwrite).unwrap();
        assert_eq!(fs::read(path.join("a")).unwrap(), b"12345");
        assert_eq!(entries(folder.path()), ["adapter"]);
    }

    #[test]
    fn overwriting_loses_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("adapter");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("thesis.txt"), "years of work").unwrap();
        let write =
            || write_folder(&path, Existing::Overwrite, |out| out.file("a", |sink| sink.write_all(b"1")));
        let lose = write();
        assert!(
            matches!(&lose, Err(StoreError::WouldLose { entry, .. }) if entry == "thesis.txt"),
            "{lose:?}"
        );
        assert_eq!(entries(&path), ["thesis.txt"]);
        fs::remove_dir_all(&path).unwrap();
        fs::write(&path, "a file").unwrap();
        assert!(matches!(write(), Err(StoreError::NotAFolder { .. })));
    }

    #[test]
    fn what_is_put_in_place_replaces_and_loses_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (new, path) = (folder.path().join("new"), folder.path().join("path"));
        for content in ["1", "2"] {
            fs::write(&new, content).unwrap();
            put_in_place(&new, &path).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
        fs::create_dir(&new).unwrap();
        assert!(matches!(put_in_place(&new, &path), Err(StoreError::NotAFolder { .. })));
        fs::remove_file(&path).unwrap();
        put_in_place(&new, &path).unwrap();
        fs::write(path.join("thesis.txt"), "years of work").unwrap();
        fs::create_dir(&new).unwrap();
        assert!(matches!(put_in_place(&new, &path), Err(StoreError::WouldLose { .. })));
        assert_eq!(entries(folder.path()), ["new", "path"]);
    }

    #[test]
    fn names_stay_inside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        for name in ["../a", "b/c", "..", "", "/d"] {
            let done =
                write_folder(&path, Existing::Refuse, |out| out.file(name, |sink| sink.write_all(b"1")));
            assert!(matches!(done, Err(StoreError::BadName { .. })), "{name}");
            let done = write_folder(&path, Existing::Refuse, |out| out.folder(name, |_| Ok(())));
            assert!(matches!(done, Err(StoreError::BadName { .. })), "{name}");
        }
        assert!(matches!(write_file(Path::new("/"), |_| Ok(())), Err(StoreError::BadName { .. })));
    }
}
