//! What an application reports: wrong usage (exit code 2) or failure (exit code 1).

/// Why an application stopped.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The user gave something that cannot be used; nothing was started.
    #[error("{0}")]
    Usage(String),
    /// The work failed; what was finished is kept.
    #[error("{0}")]
    Failed(String),
}

impl AppError {
    /// Wrong usage or input.
    pub fn usage(message: impl Into<String>) -> AppError {
        AppError::Usage(message.into())
    }

    /// A failure during the work.
    pub fn failed(message: impl Into<String>) -> AppError {
        AppError::Failed(message.into())
    }

    /// The process exit code: 2 for usage, 1 for failure.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            AppError::Usage(_) => 2,
            AppError::Failed(_) => 1,
        }
    }
}

/// Errors of the rooms below, as an input error: something the user handed in cannot be used.
pub trait Because<T> {
    /// Wrong input, with what was being done: "reading the model".
    fn input(self, doing: impl std::fmt::Display) -> Result<T, AppError>;
    /// A failure, with what was being done.
    fn while_doing(self, doing: impl std::fmt::Display) -> Result<T, AppError>;
}

impl<T, E: std::fmt::Display> Because<T> for Result<T, E> {
    fn input(self, doing: impl std::fmt::Display) -> Result<T, AppError> {
        self.map_err(|error| AppError::Usage(format!("{doing}: {error}")))
    }

    fn while_doing(self, doing: impl std::fmt::Display) -> Result<T, AppError> {
        self.map_err(|error| AppError::Failed(format!("{doing}: {error}")))
    }
}
