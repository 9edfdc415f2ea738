//! Where results go: never over what the user has, and under their name only once they are verified.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use lowrank_store::atomic::{Existing, can_begin, nothing_but, put_in_place, resolved};
use lowrank_store::export::MLX_TENSORS_NAME;
use lowrank_store::peft::{CONFIG_NAME, TENSORS_NAME};
use lowrank_store::{Format, StoreError};

use crate::{AppError, Progress};
use lowrank_command::Because;

/// What will be written, as far as it is known before the work.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Writes<'a> {
    /// One file.
    File,
    /// A folder of these files; `/` stands between the parts of those in folders inside.
    Folder(&'a [&'a str]),
}

/// A PEFT folder.
pub(crate) const ADAPTER_FILES: [&str; 2] = [CONFIG_NAME, TENSORS_NAME];
/// A PEFT folder with the factors that the training began with.
pub(crate) const STARTED_FILES: [&str; 4] =
    [CONFIG_NAME, TENSORS_NAME, "initial/adapter_config.json", "initial/adapter_model.safetensors"];
/// A folder for mlx-lm.
pub(crate) const MLX_FILES: [&str; 2] = [CONFIG_NAME, MLX_TENSORS_NAME];

/// Finds what can stop the writing of an output, before any work is done for it: a name that is none, a folder that is
/// not there or cannot be written into, an output that exists and is not to be overwritten, or that overwriting would
/// lose more than the work replaces. Leaves nothing behind. (The disk may still fill up meanwhile.)
///
/// # Errors
/// [`AppError::Usage`] with what to do about it.
pub(crate) fn admit(out: &Path, overwrite: bool, writes: Writes<'_>) -> Result<(), AppError> {
    if out.file_name().is_none() {
        return Err(StoreError::BadName { path: out.to_owned() }).input("the output");
    }
    refuse_existing(out, overwrite)?;
    let path = &resolved(out).input("the output")?;
    if path.exists() {
        match writes {
            Writes::File if path.is_dir() => {
                return Err(StoreError::IsAFolder { path: out.to_owned() }).input("the output");
            }
            Writes::Folder(_) if !path.is_dir() => {
                return Err(StoreError::NotAFolder { path: out.to_owned() }).input("the output");
            }
            Writes::Folder(names) => nothing_but(path, names).input("the output")?,
            Writes::File => {}
        }
    }
    can_begin(path).map_err(|error| match error {
        StoreError::Io { cause, .. } => {
            let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            let folder = folder.unwrap_or(Path::new(".")).display();
            AppError::usage(format!(
                "the output {}: cannot write into {folder} ({cause}); create that folder, or choose another",
                out.display()
            ))
        }
        other => AppError::usage(format!("the output {other}")),
    })
}

/// What to do with an output of that name.
pub(crate) fn existing(overwrite: bool) -> Existing {
    if overwrite { Existing::Overwrite } else { Existing::Refuse }
}

/// A command's run folder: as given; otherwise the first of `stem`, `stem-2`, … that is free, or on `--resume` the last that
/// is not. Whether it holds a run is told by its marks, names of files.
///
/// # Errors
/// [`AppError::Usage`] when there is a run already, or none to go on with.
pub(crate) fn run_folder(
    given: Option<&Path>,
    stem: &str,
    resume: bool,
    marks: &[&str],
) -> Result<PathBuf, AppError> {
    let has_run = |folder: &Path| marks.iter().any(|mark| folder.join(mark).exists());
    if let Some(run) = given {
        if !resume && has_run(run) {
            return Err(AppError::usage(format!(
                "{} holds a run already: go on with it by --resume, or give another --run",
                run.display()
            )));
        }
        return Ok(run.to_owned());
    }
    let numbered =
        |number: usize| PathBuf::from(if number == 1 { stem.to_owned() } else { format!("{stem}-{number}") });
    let free = (1..).map(numbered).find(|folder| !folder.exists()).unwrap_or_default();
    if !resume {
        return Ok(free);
    }
    let last = (1..).map(numbered).take_while(|folder| folder.exists()).last();
    last.filter(|folder| has_run(folder)).ok_or_else(|| {
        AppError::usage("--resume: there is no run here to go on with; give its folder as --run")
    })
}

/// Stops between two parts of the work where the user asked for it; what was begun under a hidden name goes.
///
/// # Errors
/// [`AppError::Failed`] after Ctrl-C.
pub(crate) fn go_on(progress: &dyn Progress) -> Result<(), AppError> {
    if progress.stopping() {
        return Err(AppError::failed("stopped; nothing was written"));
    }
    Ok(())
}

/// Refuses an output that exists.
///
/// # Errors
/// [`AppError::Usage`] unless the user asked to overwrite.
pub(crate) fn refuse_existing(out: &Path, overwrite: bool) -> Result<(), AppError> {
    if out.exists() && !overwrite {
        let out = out.display();
        return Err(AppError::usage(format!("{out} exists already; give another --out, or --overwrite")));
    }
    Ok(())
}

/// What the weights of a GGUF file can be written as.
pub(crate) const GGUF_FORMATS: [Format; 4] = [Format::F32, Format::F16, Format::BF16, Format::Q8_0];
/// What the weights of a Hugging Face directory can be written as.
pub(crate) const DIRECTORY_FORMATS: [Format; 3] = [Format::F32, Format::F16, Format::BF16];

/// A number format by name.
///
/// # Errors
/// [`AppError::Usage`] when it is not one of `allowed`.
pub(crate) fn number_format(name: &str, allowed: &[Format]) -> Result<Format, AppError> {
    Format::named(name).filter(|format| allowed.contains(format)).ok_or_else(|| {
        let known: Vec<String> = allowed.iter().map(ToString::to_string).collect();
        AppError::usage(format!("--format {name}: here one of {}", known.join(", ")))
    })
}

/// Lets `write` make and check a file or folder beside `out`, and gives it that name when it succeeds; otherwise nothing
/// is left of it, and what has the name keeps it.
///
/// # Errors
/// Those of `write`; [`AppError::Failed`] when the name cannot be given.
pub(crate) fn verified<T>(
    out: &Path,
    existing: Existing,
    write: impl FnOnce(&Path) -> Result<T, AppError>,
) -> Result<T, AppError> {
    let beside = beside(&resolved(out).input("the output")?)?;
    let written = write(&beside).and_then(|written| {
        put_in_place(&beside, out, existing).while_doing(format!("giving {} its name", out.display()))?;
        Ok(written)
    });
    if written.is_err() {
        // The first error is the one to tell.
        let _ =
            if beside.is_dir() { std::fs::remove_dir_all(&beside) } else { std::fs::remove_file(&beside) };
    }
    written
}

/// A hidden sibling of the output that is not there, with the same extension.
fn beside(out: &Path) -> Result<PathBuf, AppError> {
    let name =
        out.file_name().ok_or_else(|| AppError::usage(format!("--out {}: not a name", out.display())))?;
    let hidden = |count: u64| {
        let mut hidden = OsString::from(format!(".unverified-{}-{count}-", std::process::id()));
        hidden.push(name);
        out.with_file_name(hidden)
    };
    // One that is there was left by a process that was killed; it is not ours to remove.
    Ok((0..).map(hidden).find(|path| std::fs::symlink_metadata(path).is_err()).unwrap_or_else(|| hidden(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_verified_gets_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("model.gguf");
        let refused: Result<(), _> = verified(&out, Existing::Refuse, |beside| {
            std::fs::write(beside, "wrong").unwrap();
            Err(AppError::failed("other logits"))
        });
        assert!(refused.unwrap_err().to_string().contains("other logits"));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left");
        let keep = |content: &str, existing| {
            verified(&out, existing, |beside| {
                assert_eq!(beside.extension(), out.extension());
                std::fs::write(beside, content).unwrap();
                Ok(7)
            })
        };
        assert_eq!(keep("right", Existing::Refuse).unwrap(), 7);
        assert!(keep("came later", Existing::Refuse).is_err());
        assert_eq!(std::fs::read_to_string(&out).unwrap(), "right");
        assert_eq!(keep("better", Existing::Overwrite).unwrap(), 7);
        assert_eq!(std::fs::read_to_string(&out).unwrap(), "better");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_can_stop_the_writing_is_found_before() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let adapter = Writes::Folder(&STARTED_FILES);
        let refused = |name: &str, overwrite, writes| match admit(&at(name), overwrite, writes) {
            Err(AppError::Usage(message)) => message,
            other => panic!("{other:?}"),
        };
        admit(&at("new"), false, adapter).unwrap();
        admit(&at("new.gguf"), false, Writes::File).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left");
        let message = refused("missing/new", false, adapter);
        assert!(message.contains("missing") && message.contains("create that folder"), "{message}");
        assert!(refused("..", true, adapter).contains("not a usable name"));
        std::fs::create_dir_all(at("old/initial")).unwrap();
        for file in STARTED_FILES {
            std::fs::write(at("old").join(file), "x").unwrap();
        }
        std::fs::write(at("file"), "x").unwrap();
        assert!(refused("old", false, adapter).contains("exists already"));
        admit(&at("old"), true, adapter).unwrap();
        let message = refused("old", true, Writes::Folder(&ADAPTER_FILES));
        assert!(message.contains("\"initial\""), "an export has no initial factors: {message}");
        std::fs::write(at("old/initial/thesis.txt"), "x").unwrap();
        assert!(refused("old", true, adapter).contains("initial/thesis.txt"));
        assert!(refused("old", true, Writes::File).contains("is a folder"));
        assert!(refused("file", true, adapter).contains("is not a folder"));
        admit(&at("file"), true, Writes::File).unwrap();
    }
}
