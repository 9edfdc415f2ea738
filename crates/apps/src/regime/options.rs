//! Everything that `lowrank regime` can be told.

use std::path::PathBuf;

use lowrank_command::Because;

use crate::AppError;
use crate::tune::Tune;

/// Which run is looked at, and on how much of its data.
#[derive(Debug, Clone, clap::Args)]
pub struct Regime {
    /// Folder of a finished `lowrank tune`: its recipe.toml says model and data, its adapter folder what was learned
    #[arg(long, value_name = "DIR")]
    pub run: PathBuf,
    /// Adapter to look at instead of the run's own
    #[arg(long, value_name = "DIR")]
    pub adapter: Option<PathBuf>,
    /// Records of the training data, drawn by the run's seed, whose way through the network is compared before and after
    #[arg(long, default_value_t = 16, value_name = "N")]
    pub calibration: usize,
    /// Tokens (or patches) of them that are kept for each layer: memory is 8·N·in bytes a layer
    #[arg(long, default_value_t = 512, value_name = "N")]
    pub tokens: usize,
}

impl Regime {
    /// Refuses numbers that cannot be.
    ///
    /// # Errors
    /// [`AppError::Usage`] naming the flag.
    pub(super) fn check(&self) -> Result<(), AppError> {
        for (flag, number) in [("--calibration", self.calibration), ("--tokens", self.tokens)] {
            if number < 1 {
                return Err(AppError::usage(format!("{flag} 0: give at least 1")));
            }
        }
        Ok(())
    }

    /// The options of the run.
    ///
    /// # Errors
    /// [`AppError::Usage`] for a folder that holds none.
    pub(super) fn tuned(&self) -> Result<Tune, AppError> {
        let path = self.run.join("recipe.toml");
        if !path.is_file() {
            return Err(AppError::usage(format!(
                "{} holds no recipe.toml: give the folder of a `lowrank tune` as --run",
                self.run.display()
            )));
        }
        let text = lowrank_store::text::read(&path).input("reading the recipe")?;
        toml::from_str(&text).input(format!("{}: not the recipe of a `lowrank tune`", path.display()))
    }

    /// Where the adapter is: as given, or as the run wrote it.
    pub(super) fn adapter_of(&self, tune: &Tune) -> PathBuf {
        let own = || tune.out.clone().unwrap_or_else(|| self.run.join("adapter"));
        self.adapter.clone().unwrap_or_else(own)
    }
}
