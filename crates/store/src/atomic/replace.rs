//! What becomes of an output that is there already.

use std::fs;
use std::path::{Path, PathBuf};

use super::{hidden, sync_parent};
use crate::StoreError;

/// What to do when the output folder exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Refuse.
    Refuse,
    /// Replace it, provided that the new folder has every entry that the old one has, at every depth.
    Overwrite,
}

/// Where an output named `path` really goes: what a symbolic link leads to, otherwise `path` itself.
///
/// # Errors
/// [`StoreError::Io`] for a link that leads nowhere.
pub fn resolved(path: &Path) -> Result<PathBuf, StoreError> {
    if fs::symlink_metadata(path).is_ok_and(|data| data.is_symlink()) {
        return fs::canonicalize(path).map_err(StoreError::io(path, "follow the link"));
    }
    Ok(path.to_owned())
}

/// Gives a finished file or folder, written as a sibling, its name. What has that name already is replaced only if
/// `existing` allows it: a file by renaming over it, a folder provided that the new one has every entry of the old.
///
/// # Errors
/// [`StoreError::Exists`], [`StoreError::WouldLose`], [`StoreError::NotAFolder`], [`StoreError::IsAFolder`],
/// [`StoreError::Io`].
pub fn put_in_place(new: &Path, path: &Path, existing: Existing) -> Result<(), StoreError> {
    let path = &resolved(path)?;
    if path.exists() {
        let owned = || path.to_owned();
        match (existing, new.is_dir(), path.is_dir()) {
            (Existing::Refuse, _, _) => return Err(StoreError::Exists { path: owned() }),
            (_, true, false) => return Err(StoreError::NotAFolder { path: owned() }),
            (_, false, true) => return Err(StoreError::IsAFolder { path: owned() }),
            (_, true, true) => {
                nothing_lost(path, &|entry| {
                    let entry = new.join(entry);
                    if entry.is_dir() { Held::Folder } else { Held::file(entry.exists()) }
                })?;
                replace(path, new)?;
                return sync_parent(path);
            }
            (_, false, false) => {}
        }
    }
    fs::rename(new, path).map_err(StoreError::io(path, "put in place"))?;
    sync_parent(path)
}

/// Refuses to overwrite a folder that holds more than what will be written: `names` are the files, with `/` between
/// the parts of those in folders inside. For asking before the work is done; [`put_in_place`] looks at what was written.
///
/// # Errors
/// [`StoreError::WouldLose`] with the first other entry, [`StoreError::Io`].
pub fn nothing_but(path: &Path, names: &[&str]) -> Result<(), StoreError> {
    nothing_lost(path, &|entry| {
        let is_folder =
            |name: &&str| Path::new(name).parent().is_some_and(|parent| parent.starts_with(entry));
        if names.iter().any(is_folder) {
            Held::Folder
        } else {
            Held::file(names.iter().any(|name| Path::new(name) == entry))
        }
    })
}

/// What a new folder has under the name of an entry of the old.
#[derive(PartialEq, Eq)]
enum Held {
    Nothing,
    File,
    Folder,
}

impl Held {
    fn file(there: bool) -> Held {
        if there { Held::File } else { Held::Nothing }
    }
}

/// Every entry of the folder, at every depth, is in the new one, a folder as a folder.
fn nothing_lost(old: &Path, held: &dyn Fn(&Path) -> Held) -> Result<(), StoreError> {
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let inside = old.join(&folder);
        for entry in fs::read_dir(&inside).map_err(StoreError::io(&inside, "list"))? {
            let entry = entry.map_err(StoreError::io(&inside, "list"))?;
            let name = folder.join(entry.file_name());
            // Of a symbolic link only the link would go, not what it leads to.
            let is_folder = entry.file_type().map_err(StoreError::io(&inside, "list"))?.is_dir();
            match held(&name) {
                Held::Folder if is_folder => folders.push(name),
                Held::File if !is_folder => {}
                _ => {
                    let entry = name.to_string_lossy().into_owned();
                    return Err(StoreError::WouldLose { path: old.to_owned(), entry });
                }
            }
        }
    }
    Ok(())
}

/// Swaps the new folder in; a folder with contents cannot be renamed over, so the old one steps aside first.
fn replace(path: &Path, new: &Path) -> Result<(), StoreError> {
    let mut old = hidden(path, "old")?;
    while fs::symlink_metadata(&old).is_ok() {
        old = hidden(path, "old")?;
    }
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

    use super::{Existing, nothing_but, put_in_place};
    use crate::StoreError;
    use crate::atomic::write_folder;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn lost<T: std::fmt::Debug>(result: Result<T, StoreError>) -> String {
        match result {
            Err(StoreError::WouldLose { entry, .. }) => entry,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn overwriting_loses_nothing_at_any_depth() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("adapter");
        let write = || {
            write_folder(&path, Existing::Overwrite, |out| {
                out.file("a", |sink| sink.write_all(b"1"))?;
                out.folder("inside", |inside| inside.file("b", |sink| sink.write_all(b"2")))
            })
        };
        write().unwrap();
        write().unwrap();
        let check = |thesis: &str| {
            fs::write(path.join(thesis), "years of work").unwrap();
            assert_eq!(lost(write()), thesis);
            assert_eq!(lost(nothing_but(&path, &["a", "inside/b"])), thesis);
            assert_eq!(fs::read_to_string(path.join(thesis)).unwrap(), "years of work");
            fs::remove_file(path.join(thesis)).unwrap();
        };
        check("thesis.txt");
        check("inside/thesis.txt");
        fs::create_dir_all(path.join("inside/deep")).unwrap();
        assert_eq!(lost(write()), "inside/deep", "an empty folder, too");
        fs::remove_dir(path.join("inside/deep")).unwrap();
        assert!(nothing_but(&path, &["a", "inside/b", "c"]).is_ok());
        assert_eq!(lost(nothing_but(&path, &["a", "b"])), "inside");
        // A folder where the new one has a file, and the other way round.
        fs::remove_file(path.join("a")).unwrap();
        fs::create_dir(path.join("a")).unwrap();
        assert_eq!(lost(write()), "a");
        assert_eq!(lost(nothing_but(&path, &["a", "inside/b"])), "a");
        fs::remove_dir(path.join("a")).unwrap();
        fs::remove_dir_all(path.join("inside")).unwrap();
        fs::write(path.join("inside"), "a file").unwrap();
        assert_eq!(lost(write()), "inside");
        assert_eq!(names(folder.path()), ["adapter"]);
        fs::remove_dir_all(&path).unwrap();
        fs::write(&path, "a file").unwrap();
        assert!(matches!(write(), Err(StoreError::NotAFolder { .. })));
    }

    #[test]
    fn what_is_put_in_place_replaces_only_when_asked_and_loses_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (new, path) = (folder.path().join("new"), folder.path().join("path"));
        let put = |existing| put_in_place(&new, &path, existing);
        for content in ["1", "2"] {
            fs::write(&new, content).unwrap();
            put(Existing::Overwrite).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
        fs::create_dir(&new).unwrap();
        assert!(matches!(put(Existing::Refuse), Err(StoreError::Exists { .. })));
        assert!(matches!(put(Existing::Overwrite), Err(StoreError::NotAFolder { .. })));
        fs::remove_file(&path).unwrap();
        put(Existing::Refuse).unwrap();
        fs::write(path.join("thesis.txt"), "years of work").unwrap();
        fs::create_dir(&new).unwrap();
        assert_eq!(lost(put(Existing::Overwrite)), "thesis.txt");
        fs::remove_dir(&new).unwrap();
        fs::write(&new, "a file").unwrap();
        assert!(matches!(put(Existing::Overwrite), Err(StoreError::IsAFolder { .. })));
        assert_eq!(names(folder.path()), ["new", "path"]);
    }
}
