//! Errors of the connection to a machine and of the operations on it.

use std::time::Duration;

/// The result of everything that happens on a machine.
pub type Result<T, E = MachineError> = std::result::Result<T, E>;

/// The part of an SSH connection's work that a time limit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SshPhase {
    /// The TCP connection is established, but the SSH server did not finish its handshake.
    Handshake,
    /// The machine did not answer the authentication.
    Authentication,
    /// The machine did not open a session for a command.
    Session,
    /// The command ran longer than its limit.
    Command,
}

impl std::fmt::Display for SshPhase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Handshake => "the SSH handshake",
            Self::Authentication => "the authentication",
            Self::Session => "opening a session",
            Self::Command => "the command",
        })
    }
}

/// Why an operation failed. The messages are for people: they appear in the Server's status.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum MachineError {
    /// No TCP connection: refused, no route, or no answer within the connect timeout.
    #[error("the machine at {address} cannot be reached: {reason}")]
    Unreachable {
        /// `address:port`.
        address: String,
        /// Why the connection attempt failed.
        reason: String,
    },
    /// The machine did not answer in time, although it accepted the connection.
    #[error("the machine at {address} did not finish {phase} within {after:?}")]
    Timeout {
        /// `address:port`.
        address: String,
        /// What did not finish in time.
        phase: SshPhase,
        /// The limit.
        after: Duration,
    },
    /// Another SSH server answers at the machine's address. Nothing was sent to it.
    #[error(
        "the machine at {address} shows another host key than the one pinned at its creation \
         (expected {expected}, got {actual}); if the machine was rebuilt on purpose, replace it through its Server"
    )]
    HostKeyMismatch {
        /// `address:port`.
        address: String,
        /// Fingerprint of the pinned key (`SHA256:...`).
        expected: String,
        /// Fingerprint of the key that was shown.
        actual: String,
    },
    /// The machine does not accept the key for this user.
    #[error("the machine at {address} refused the SSH key for user {user:?}")]
    AuthRefused {
        /// `address:port`.
        address: String,
        /// Login name.
        user: String,
    },
    /// The connection broke while a command ran, so it is unknown whether the command did its work.
    #[error("the connection to the machine at {address} broke while a command was running: {reason}")]
    ConnectionLost {
        /// `address:port`.
        address: String,
        /// Why it broke.
        reason: String,
    },
    /// SSH failed in another way (no common algorithm, a refused session).
    #[error("SSH to the machine at {address} failed: {reason}")]
    Ssh {
        /// `address:port`.
        address: String,
        /// What failed.
        reason: String,
    },
    /// A command ended with a status other than 0.
    #[error("the command failed with {}: {stderr}", ended(*.status, .signal.as_deref()))]
    Command {
        /// Exit status; 128 or more for a signal, as shells report it.
        status: u32,
        /// Name of the signal that ended the command, such as `KILL`.
        signal: Option<String>,
        /// The last lines of its standard error.
        stderr: String,
    },
    /// The artifact's digest is not the declared one. Nothing of it was unpacked.
    #[error("{url} has SHA-256 {actual}, but {expected} is declared; nothing was unpacked")]
    DigestMismatch {
        /// URL of the artifact.
        url: String,
        /// The declared digest.
        expected: String,
        /// The digest of what was downloaded.
        actual: String,
    },
    /// The artifact could not be downloaded completely.
    #[error("{url} could not be downloaded: {reason}")]
    Download {
        /// URL of the artifact.
        url: String,
        /// Error of the download program.
        reason: String,
    },
    /// The artifact is not an archive that the machine can unpack.
    #[error("{url} could not be unpacked (a tar archive, plain or with gzip or zstd, or a zip is needed): {reason}")]
    Unpack {
        /// URL of the artifact.
        url: String,
        /// Error of the unpacking program.
        reason: String,
    },
    /// A package's or application's own command failed.
    #[error("the {what} command failed: {reason}")]
    Hook {
        /// `install`, `remove` or `check`.
        what: String,
        /// The last lines of the command's standard error.
        reason: String,
    },
    /// The application was deployed, and did not start.
    #[error("{problem}{before}; it printed last: {}", or_nothing(.printed))]
    FailedStart {
        /// What went wrong.
        problem: String,
        /// What became of the release that ran before.
        before: EarlierRelease,
        /// The last lines of its output.
        printed: String,
    },
    /// A hook of the running application failed before anything was changed.
    #[error("{problem}; the application was not stopped and runs on; the hook printed last: {}", or_nothing(.printed))]
    FailedHook {
        /// What went wrong.
        problem: String,
        /// The last lines of its output.
        printed: String,
    },
    /// The machine cannot run the application.
    #[error("{0}")]
    CannotRun(String),
    /// The package manager does not know the declared version of a package, although it has just refreshed its index.
    #[error("{package} does not exist: {reason}")]
    NoSuchVersion {
        /// Name and version.
        package: String,
        /// The last lines of the package manager, and the versions that it offers.
        reason: String,
    },
    /// The package manager failed: unreachable repositories, dependencies that cannot be met, a package's own scripts.
    #[error("{name} failed: {reason}")]
    PackageManager {
        /// `apt` or `dnf`.
        name: String,
        /// Its last lines.
        reason: String,
    },
    /// The machine does not support packages of this kind.
    #[error("packages of this kind cannot be installed: {0}")]
    Unsuitable(String),
    /// The machine lacks a program that an operation needs.
    #[error("the machine lacks a program that is needed: {0}")]
    MissingTool(String),
    /// Another run of the same operation holds its lock on the machine.
    #[error("another run of this operation is still in progress on the machine: {0}")]
    Busy(String),
    /// A path that Berth would write exists already, and Berth did not create it.
    #[error("a path on the machine is already in use: {0}")]
    Conflict(String),
    /// A parameter cannot be used.
    #[error("{field}: {reason}")]
    Invalid {
        /// Name of the parameter.
        field: String,
        /// What is wrong with it and what is allowed.
        reason: String,
    },
    /// The output of an operation does not have the expected form.
    #[error("the machine's answer cannot be parsed: {0}")]
    Answer(String),
}

/// What became of the release that ran before one that did not start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EarlierRelease {
    /// There was none, so the new one is started again and again.
    None,
    /// This revision runs again.
    Runs(String),
    /// This revision was started again, and does not keep running either.
    Failed(String),
}

impl std::fmt::Display for EarlierRelease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => Ok(()),
            Self::Runs(revision) => write!(f, "; {revision}, which ran before, runs again"),
            Self::Failed(revision) => write!(f, "; {revision}, which ran before, does not keep running either"),
        }
    }
}

fn or_nothing(text: &str) -> &str {
    if text.is_empty() { "nothing" } else { text }
}

fn ended(status: u32, signal: Option<&str>) -> String {
    signal.map_or_else(|| format!("status {status}"), |signal| format!("signal {signal}"))
}

impl MachineError {
    /// Whether the error is about the connection to the machine and not about the operation: the machine is down, hangs or
    /// is cut off.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::ConnectionLost { .. } => true,
            Self::Timeout { phase, .. } => *phase != SshPhase::Command,
            _ => false,
        }
    }

    /// Whether another attempt is pointless until somebody changes the declaration or the machine.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        matches!(
            self,
            Self::HostKeyMismatch { .. }
                | Self::DigestMismatch { .. }
                | Self::NoSuchVersion { .. }
                | Self::Unsuitable(_)
                | Self::CannotRun(_)
                | Self::Invalid { .. }
        )
    }

    pub(crate) fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), reason: reason.into() }
    }
}
