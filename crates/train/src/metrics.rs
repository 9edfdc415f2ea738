//! `metrics.jsonl`: one line a step, written as the run goes, equal for a resumed and an uninterrupted run.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::TrainError;

/// The file's name in a run's folder.
pub const METRICS_FILE: &str = "metrics.jsonl";

/// One line. Step 0 is the evaluation before training, and has no training numbers.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Line {
    /// Steps done.
    pub step: u64,
    /// Mean training loss of the step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// Learning rate of the step, without the LoRA+ ratio.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    /// Norm of the mean gradient before clipping.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub norm: Option<f64>,
    /// Tokens read since the beginning of the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Mean held-out loss, where it was measured after this step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval: Option<f64>,
}

/// Reads the lines of a run's folder, in order; a last line without its end (a run killed while writing) is left out.
///
/// # Errors
/// [`TrainError::Io`] where the file cannot be read, [`TrainError::Metrics`] where a line is not one of ours.
pub fn read(folder: &Path) -> Result<Vec<Line>, TrainError> {
    let path = folder.join(METRICS_FILE);
    let bytes = std::fs::read(&path).map_err(|source| io(&path, "reading", source))?;
    Ok(parse(&path, &bytes)?.into_iter().map(|(line, _)| line).collect())
}

/// Each line with where it ends in the file.
fn parse(path: &Path, bytes: &[u8]) -> Result<Vec<(Line, usize)>, TrainError> {
    let mut lines: Vec<(Line, usize)> = Vec::new();
    let mut end = 0;
    for (number, text) in bytes.split_inclusive(|&byte| byte == b'\n').enumerate() {
        if text.last() != Some(&b'\n') {
            break; // torn: the process ended while writing it
        }
        end += text.len();
        let bad = |reason: String| TrainError::Metrics { path: path.to_owned(), line: number + 1, reason };
        let line: Line = serde_json::from_slice(text).map_err(|error| bad(error.to_string()))?;
        if let Some((last, _)) = lines.last()
            && line.step <= last.step
        {
            return Err(bad(format!("step {} comes after step {}", line.step, last.step)));
        }
        lines.push((line, end));
    }
    Ok(lines)
}

/// The open file of a running run.
pub(crate) struct Log {
    path: PathBuf,
    file: File,
}

impl Log {
    /// A new file.
    pub(crate) fn fresh(folder: &Path) -> Result<Self, TrainError> {
        let path = folder.join(METRICS_FILE);
        let file = OpenOptions::new().append(true).create_new(true).open(&path);
        Ok(Log { file: file.map_err(|source| io(&path, "creating", source))?, path })
    }

    /// The file as it was when `step` steps were done: later lines are cut, so that they are not written twice. Also
    /// returns how many of the steps done have no line. With no checkpoint (`None`) the file starts anew.
    pub(crate) fn resume(folder: &Path, step: Option<u64>) -> Result<(Self, u64), TrainError> {
        let path = folder.join(METRICS_FILE);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(io(&path, "reading", error)),
        };
        let mut lines = parse(&path, &bytes)?;
        lines.retain(|(line, _)| step.is_some_and(|step| line.step <= step));
        let keep = lines.last().map_or(0, |&(_, end)| end);
        let present = lines.iter().filter(|(line, _)| line.step > 0).count() as u64;
        let file = OpenOptions::new().append(true).create(true).open(&path);
        let file = file.map_err(|source| io(&path, "opening", source))?;
        // Cutting the end off in place is atomic where rewriting is not: there is no moment without the earlier lines.
        file.set_len(keep as u64).map_err(|source| io(&path, "cutting", source))?;
        Ok((Log { path, file }, step.unwrap_or(0) - present))
    }

    /// Adds a line, in one write.
    pub(crate) fn append(&mut self, line: &Line) -> Result<(), TrainError> {
        let fail = |source: std::io::Error| io(&self.path, "writing", source);
        let mut text = serde_json::to_vec(line).map_err(|error| fail(error.into()))?;
        text.push(b'\n');
        self.file.write_all(&text).map_err(fail)
    }

    /// Waits until the lines are on the disk: called before a checkpoint, which must not outlive them.
    pub(crate) fn sync(&self) -> Result<(), TrainError> {
        self.file.sync_data().map_err(|source| io(&self.path, "writing", source))
    }
}

fn io(path: &Path, doing: &'static str, source: std::io::Error) -> TrainError {
    TrainError::Io { path: path.to_owned(), doing, source: source.into() }
}

#[cfg(test)]
mod tests {
    use super::{Line, Log, METRICS_FILE, read};

    fn line(step: u64) -> Line {
        Line { step, loss: Some(1.0 / step as f64), tokens: Some(7 * step), ..Line::default() }
    }

    fn check(text: &str, step: Option<u64>, kept: &str, missing: u64) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(METRICS_FILE), text).unwrap();
        let (mut log, got) = Log::resume(folder.path(), step).unwrap();
        assert_eq!(got, missing, "{text:?} at {step:?}");
        log.append(&Line { step: 90, ..Line::default() }).unwrap();
        let after = std::fs::read_to_string(folder.path().join(METRICS_FILE)).unwrap();
        assert_eq!(after, format!("{kept}{{\"step\":90}}\n"), "{text:?} at {step:?}");
    }

    #[test]
    fn lines_after_the_checkpoint_are_cut() {
        let all = "{\"step\":0,\"eval\":2.0}\n{\"step\":1}\n{\"step\":2}\n{\"step\":3}\n";
        check(all, Some(2), "{\"step\":0,\"eval\":2.0}\n{\"step\":1}\n{\"step\":2}\n", 0);
        check(all, Some(3), all, 0);
        check(all, None, "", 0);
        // A torn last line, and a run whose last lines never reached the disk.
        check("{\"step\":1}\n{\"st", Some(1), "{\"step\":1}\n", 0);
        check("{\"step\":1}\n{\"st", Some(3), "{\"step\":1}\n", 2);
    }

    #[test]
    fn a_file_that_was_removed_starts_anew_and_the_gap_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Log::resume(folder.path(), Some(5)).unwrap().1, 5);
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::fresh(folder.path()).unwrap();
        for step in 1..4 {
            log.append(&line(step)).unwrap();
        }
        log.sync().unwrap();
        assert_eq!(read(folder.path()).unwrap(), [line(1), line(2), line(3)]);
        assert!(Log::fresh(folder.path()).is_err(), "an old file is never overwritten");
    }

    #[test]
    fn foreign_lines_are_named_by_number() {
        for (text, number) in
            [("{\"step\":1}\nhello\n", "line 2"), ("{\"step\":2}\n{\"step\":2}\n", "line 2")]
        {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join(METRICS_FILE), text).unwrap();
            let message = read(folder.path()).unwrap_err().to_string();
            assert!(message.contains(number), "{message}");
            assert!(Log::resume(folder.path(), Some(1)).is_err());
            assert_eq!(
                std::fs::read_to_string(folder.path().join(METRICS_FILE)).unwrap(),
                text,
                "nothing is cut"
            );
        }
    }
}
