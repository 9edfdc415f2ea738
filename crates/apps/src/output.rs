//! Where results go: never over what the user has, and under their name only once they are verified.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use lowrank_store::Format;
use lowrank_store::atomic::put_in_place;

use crate::AppError;
use crate::error::Because;

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
/// is left of it.
///
/// # Errors
/// Those of `write`; [`AppError::Failed`] when the name cannot be given.
pub(crate) fn verified<T>(
    out: &Path,
    write: impl FnOnce(&Path) -> Result<T, AppError>,
) -> Result<T, AppError> {
    let beside = beside(out)?;
    let written = write(&beside).and_then(|written| {
        put_in_place(&beside, out).while_doing(format!("giving {} its name", out.display()))?;
        Ok(written)
    });
    if written.is_err() {
        // The first error is the one to tell.
        let _ =
            if beside.is_dir() { std::fs::remove_dir_all(&beside) } else { std::fs::remove_file(&beside) };
    }
    written
}

/// A hidden sibling of the output, with the same extension.
fn beside(out: &Path) -> Result<PathBuf, AppError> {
    let name =
        out.file_name().ok_or_else(|| AppError::usage(format!("--out {}: not a name", out.display())))?;
    let mut hidden = OsString::from(format!(".unverified-{}-", std::process::id()));
    hidden.push(name);
    Ok(out.with_file_name(hidden))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_verified_gets_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("model.gguf");
        let refused: Result<(), _> = verified(&out, |beside| {
            std::fs::write(beside, "wrong").unwrap();
            Err(AppError::failed("other logits"))
        });
        assert!(refused.unwrap_err().to_string().contains("other logits"));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left");
        let kept = verified(&out, |beside| {
            assert_eq!(beside.extension(), out.extension());
            std::fs::write(beside, "right").unwrap();
            Ok(7)
        });
        assert_eq!((kept.unwrap(), std::fs::read_to_string(&out).unwrap().as_str()), (7, "right"));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(matches!(refuse_existing(&out, false), Err(AppError::Usage(_))));
        assert!(refuse_existing(&out, true).is_ok());
    }
}
