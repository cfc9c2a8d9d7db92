//! Why a write is refused.

use std::fmt;

/// A refused write: which field was wrong, and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct Refusal {
    /// Path of the field.
    pub field: String,
    /// Kind of refusal, for metrics.
    pub reason: RefusalReason,
    /// What was wrong and what is allowed.
    pub message: String,
}

impl Refusal {
    /// A refusal for this reason.
    #[must_use]
    pub fn new(reason: RefusalReason, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), reason, message: message.into() }
    }
}

/// Why a write was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefusalReason {
    /// The writer does not own the field.
    Field,
    /// The task belongs to another executor.
    WrongExecutor,
    /// Another holder has the lock.
    Locked,
    /// The writer does not hold the lock.
    NotHolder,
    /// The task must not be worked on now.
    NotOpen,
    /// There is no such task.
    UnknownTask,
    /// The value is not allowed.
    Malformed,
    /// The Server still has traffic, monitoring or a machine.
    CleanupIncomplete,
    /// Only a person may do this.
    NotAPerson,
}

impl RefusalReason {
    /// Name of the reason, for metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Field => "Field",
            Self::WrongExecutor => "WrongExecutor",
            Self::Locked => "Locked",
            Self::NotHolder => "NotHolder",
            Self::NotOpen => "NotOpen",
            Self::UnknownTask => "UnknownTask",
            Self::Malformed => "Malformed",
            Self::CleanupIncomplete => "CleanupIncomplete",
            Self::NotAPerson => "NotAPerson",
        }
    }
}

impl fmt::Display for RefusalReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
