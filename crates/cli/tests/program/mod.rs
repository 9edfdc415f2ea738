//! The built program in a folder of its own.
#![allow(clippy::unwrap_used, dead_code)] // A failure here is a failure of the test; not every test uses every part.

pub mod directory;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

pub struct Folder(TempDir);

impl Folder {
    pub fn new() -> Folder {
        Folder(TempDir::new().unwrap())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file and returns its path.
    pub fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lowrank"));
        command.args(arguments).current_dir(self.path());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs and expects success; returns standard output.
    pub fn succeed(&self, arguments: &[&str]) -> String {
        self.tell(arguments).0
    }

    /// Runs and expects success; returns standard output and what was told beside it: nothing with `--quiet`.
    pub fn tell(&self, arguments: &[&str]) -> (String, String) {
        let output = self.run(arguments);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{arguments:?} failed:\n{errors}");
        assert!(
            errors.is_empty() || !arguments.contains(&"--quiet"),
            "{arguments:?} is not quiet:\n{errors}"
        );
        (String::from_utf8(output.stdout).unwrap(), errors)
    }

    /// Runs, and kills the program once its metrics have so many lines; it must not be over by then.
    #[allow(clippy::disallowed_methods)] // Tests may wait.
    pub fn kill(&self, arguments: &[&str], metrics: &str, lines: usize) {
        let metrics = self.path().join(metrics);
        let written = || std::fs::read_to_string(&metrics).map_or(0, |text| text.lines().count());
        let mut child = self.command(arguments).spawn().unwrap();
        while written() < lines && child.try_wait().unwrap().is_none() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        assert!(child.try_wait().unwrap().is_none(), "{arguments:?} was over before it was killed");
        // SIGKILL: no handler runs, nothing is flushed.
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Runs into the folder `whole`, and into `part` with a kill between; adapter and metrics must be the same bytes. `run` gives the
    /// arguments for a folder's name, to begin there or to resume.
    pub fn goes_on_as_if_never_stopped<'a>(&self, run: impl Fn(&'static str, bool) -> Vec<&'a str>) {
        self.succeed(&run("whole", false));
        self.kill(&run("part", false), "part/metrics.jsonl", 20);
        self.succeed(&run("part", true));
        for file in ["adapter/adapter_model.safetensors", "metrics.jsonl"] {
            let read = |run: &str| std::fs::read(self.path().join(run).join(file)).unwrap();
            assert!(read("whole") == read("part"), "{file} differs");
        }
    }

    /// Runs and expects this exit code, one error, and each of the words in it.
    pub fn refuse(&self, arguments: &[&str], code: i32, words: &[&str]) {
        let output = self.run(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?} said:\n{errors}");
        for word in words {
            assert!(errors.contains(word), "{arguments:?} should speak of {word:?}, said:\n{errors}");
        }
        assert!(!errors.contains("panicked"), "{arguments:?} panicked:\n{errors}");
        assert_eq!(errors.matches("error: ").count(), 1, "{arguments:?} should tell one error:\n{errors}");
    }
}

/// Options that make a run of the small decoder last a second.
pub const QUICK: [&str; 14] = [
    "--steps",
    "6",
    "--batch",
    "2",
    "--max-length",
    "32",
    "--limit",
    "24",
    "--eval-limit",
    "2",
    "--calibration",
    "2",
    "--rank",
    "2",
];

/// A few records.
pub fn records() -> String {
    let line =
        |i: usize| format!("{{\"prompt\": \"Number {i}?\\n\", \"completion\": \"It is {}.\"}}\n", i * i);
    (0..24).map(line).collect()
}

/// The bytes that base64 stands for; for images that a test holds as text.
pub fn decoded(base64: &str) -> Vec<u8> {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let values = base64.bytes().filter_map(|letter| LETTERS.iter().position(|&known| known == letter));
    let (mut bits, mut held, mut out) = (0_usize, 0, Vec::new());
    for value in values {
        (bits, held) = (bits << 6 | value, held + 6);
        if held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    out
}
