//! Writing that is all or nothing: to a sibling first, to the disk next, and only then under the real name.
//!
//! A write that fails leaves the old file or folder as it was and removes what it had begun. A process that is killed
//! may leave a hidden sibling `.NAME.partial-…` behind, never a half-written output.
//!
//! A file takes its name in one step. A folder that replaces another cannot: the old one steps aside as `.NAME.old-…`
//! and the new one takes its place. A process killed right between the two leaves no `NAME`, but both folders whole
//! beside it; rename the one that is wanted.
//!
//! Where the name of an output is a symbolic link, what it leads to is replaced, and the link stays ([`resolved`]).

mod replace;

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::StoreError;

pub use replace::{Existing, nothing_but, put_in_place, resolved};

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

impl Begun {
    /// Creates a hidden sibling of `path`. The names of other threads differ by a count; one that is there already
    /// belongs to another process, perhaps one of the same number before a restart, and is left alone.
    fn sibling<T>(path: &Path, create: impl Fn(&Path) -> io::Result<T>) -> Result<(Begun, T), StoreError> {
        loop {
            let hidden = hidden(path, "partial")?;
            match create(&hidden) {
                Ok(made) => return Ok((Begun { path: hidden, finished: false }, made)),
                Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => {}
                Err(cause) => return Err(StoreError::Io { path: hidden, action: "create", cause }),
            }
        }
    }
}

/// Tells the siblings of one process apart.
static COUNTER: AtomicU64 = AtomicU64::new(0);

/// The next name of a hidden sibling.
fn hidden(path: &Path, what: &str) -> Result<PathBuf, StoreError> {
    let Some(name) = path.file_name() else { return Err(StoreError::BadName { path: path.to_owned() }) };
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{what}-{}-{count}", std::process::id()));
    Ok(path.with_file_name(hidden))
}

/// Brings the entries of a folder to the disk.
fn sync_folder(path: &Path) -> Result<(), StoreError> {
    if cfg!(unix) {
        let folder = File::open(path).map_err(StoreError::io(path, "open"))?;
        folder.sync_all().map_err(StoreError::io(path, "write to disk"))?;
    }
    Ok(())
}

/// Makes a rename last: the folder that holds the name is written to the disk too.
fn sync_parent(path: &Path) -> Result<(), StoreError> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_folder(parent),
        _ => sync_folder(Path::new(".")),
    }
}

/// Creates a file that is not there yet.
fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).open(path)
}

/// Fills a new file and brings it to the disk.
fn fill(
    disk: &Disk,
    path: &Path,
    file: &File,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), StoreError> {
    let mut sink = BufWriter::with_capacity(1 << 18, Metered { file, disk });
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
    let path = &resolved(path)?;
    let (mut begun, file) = Begun::sibling(path, create)?;
    fill(disk, &begun.path, &file, write)?;
    fs::rename(&begun.path, path).map_err(StoreError::io(path, "put in place"))?;
    begun.finished = true;
    sync_parent(path)
}

/// Tries whether something can be created beside `path`, as every write here begins; nothing is left of it.
///
/// # Errors
/// [`StoreError::BadName`], or [`StoreError::Io`] with the system's answer.
pub fn can_begin(path: &Path) -> Result<(), StoreError> {
    Begun::sibling(&resolved(path)?, create).map(|_| ())
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
        let path = self.path.join(name);
        let file = create(&path).map_err(StoreError::io(&path, "create"))?;
        fill(self.disk, &path, &file, write)
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
        let folder = Folder { disk: self.disk, path };
        write(&folder)?;
        sync_folder(&folder.path)
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
    let path = &resolved(path)?;
    let there = path.exists();
    if there && existing == Existing::Refuse {
        return Err(StoreError::Exists { path: path.to_owned() });
    }
    if there && !path.is_dir() {
        return Err(StoreError::NotAFolder { path: path.to_owned() });
    }
    let (mut begun, ()) = Begun::sibling(path, |path| fs::create_dir(path))?;
    write(&Folder { disk, path: begun.path.clone() })?;
    sync_folder(&begun.path)?;
    put_in_place(&begun.path, path, existing)?;
    begun.finished = true;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::{
        COUNTER, Disk, Existing, can_begin, hidden, write_file, write_file_on, write_folder, write_folder_on,
    };
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
    fn a_sibling_of_another_process_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (file, path) = (folder.path().join("state"), folder.path().join("adapter"));
        // Names that a process of this number has left; other tests take some from between.
        let mut left = Vec::new();
        for _ in 0..300 {
            let name = hidden(&file, "partial").unwrap();
            let other = name.file_name().unwrap().to_string_lossy().replace("state", "adapter");
            left.extend([name.with_file_name(other), name]);
        }
        left.iter().for_each(|name| fs::write(name, "another's").unwrap());
        COUNTER.fetch_sub(300, std::sync::atomic::Ordering::Relaxed);
        write_file(&file, |sink| sink.write_all(b"1")).unwrap();
        write_folder(&path, Existing::Refuse, |out| out.file("a", |sink| sink.write_all(b"1"))).unwrap();
        write_file_on(&Disk::with_room(0), &file, |sink| sink.write_all(b"2")).unwrap_err();
        for name in left {
            assert_eq!(fs::read_to_string(&name).unwrap(), "another's");
        }
    }

    #[cfg(unix)]
    #[test]
    fn links_stay_and_what_they_lead_to_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let link = |to: &str, name: &str| std::os::unix::fs::symlink(at(to), at(name)).unwrap();
        fs::write(at("file"), "old").unwrap();
        fs::create_dir(at("folder")).unwrap();
        link("file", "to-file");
        link("folder", "to-folder");
        link("nothing", "nowhere");
        write_file(&at("to-file"), |sink| sink.write_all(b"new")).unwrap();
        let fill = |existing| {
            write_folder(&at("to-folder"), existing, |out| out.file("a", |sink| sink.write_all(b"1")))
        };
        assert!(matches!(fill(Existing::Refuse), Err(StoreError::Exists { .. })));
        fill(Existing::Overwrite).unwrap();
        assert_eq!(fs::read_to_string(at("file")).unwrap(), "new");
        assert_eq!(entries(&at("folder")), ["a"]);
        assert!(at("to-file").is_symlink() && at("to-folder").is_symlink());
        let lost = write_file(&at("nowhere"), |_| Ok(()));
        assert!(matches!(lost, Err(StoreError::Io { action: "follow the link", .. })), "{lost:?}");
        assert_eq!(entries(folder.path()), ["file", "folder", "nowhere", "to-file", "to-folder"]);
    }

    #[test]
    fn whether_a_write_can_begin_is_known_before_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        can_begin(&folder.path().join("out")).unwrap();
        assert!(entries(folder.path()).is_empty());
        let missing = can_begin(&folder.path().join("missing/out"));
        assert!(
            matches!(&missing, Err(StoreError::Io { cause, .. }) if cause.kind() == std::io::ErrorKind::NotFound)
        );
        assert!(matches!(can_begin(Path::new("..")), Err(StoreError::BadName { .. })));
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
