//! What can go wrong on the way to a machine and on it.

use std::time::Duration;

/// The part of a conversation with a machine that a time limit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The TCP connection stands, but the SSH server did not finish its handshake.
    Handshake,
    /// The machine did not answer the authentication.
    Authentication,
    /// The machine did not open a session for a command.
    Session,
    /// The command ran longer than it may.
    Command,
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Handshake => "the SSH handshake",
            Self::Authentication => "the authentication",
            Self::Session => "opening a session",
            Self::Command => "the command",
        })
    }
}

/// Why something could not be done on a machine. The messages are for people: they end up in a Server's conditions.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// No TCP connection: refused, no route, or no answer within the connect timeout.
    #[error("the machine at {address} cannot be reached: {reason}")]
    Unreachable {
        /// `address:port`.
        address: String,
        /// What the connection attempt met.
        reason: String,
    },
    /// The machine did not answer in time, although it accepted the connection.
    #[error("the machine at {address} did not finish {phase} within {after:?}")]
    Timeout {
        /// `address:port`.
        address: String,
        /// What was waited for.
        phase: Phase,
        /// The limit that passed.
        after: Duration,
    },
    /// Somebody else answers at the machine's address. Nothing was sent to them.
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
    /// The connection ended while a command ran: whether the command did its work is not known.
    #[error("the connection to the machine at {address} broke while a command was running: {reason}")]
    ConnectionLost {
        /// `address:port`.
        address: String,
        /// What ended it.
        reason: String,
    },
    /// The SSH conversation failed in another way (no common algorithm, a refused session).
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
        /// Exit status; 128 and more for a signal, as shells report it.
        status: u32,
        /// Name of the signal that ended the command, such as `KILL`.
        signal: Option<String>,
        /// The end of what it wrote to standard error.
        stderr: String,
    },
    /// The artifact is not what was declared. Nothing of it was unpacked.
    #[error("{url} has SHA-256 {actual}, but {expected} is declared; nothing was unpacked")]
    DigestMismatch {
        /// Where the artifact came from.
        url: String,
        /// The declared digest.
        expected: String,
        /// The digest of what was downloaded.
        actual: String,
    },
    /// The artifact could not be downloaded completely.
    #[error("{url} could not be downloaded: {reason}")]
    Download {
        /// Where the artifact should have come from.
        url: String,
        /// What the download program said.
        reason: String,
    },
    /// The artifact is no archive that the machine can unpack.
    #[error("{url} could not be unpacked (a tar archive, plain or gzip, is needed): {reason}")]
    Unpack {
        /// Where the artifact came from.
        url: String,
        /// What the unpacking program said.
        reason: String,
    },
    /// A package's or application's own command failed.
    #[error("the {what} command failed: {reason}")]
    Hook {
        /// `install`, `remove` or `check`.
        what: String,
        /// The end of what the command wrote.
        reason: String,
    },
    /// The package manager does not know a package in the declared version, although all its sources were just read.
    #[error("{package} does not exist: {reason}")]
    NoSuchVersion {
        /// Name and version.
        package: String,
        /// The last lines of the package manager, and which versions there are.
        reason: String,
    },
    /// The package manager failed: sources that cannot be reached, dependencies that cannot be met, a package's scripts.
    #[error("{name} failed: {reason}")]
    PackageManager {
        /// `apt` or `dnf`.
        name: String,
        /// Its last lines.
        reason: String,
    },
    /// The machine is not one for packages of this kind.
    #[error("packages of this kind cannot be installed: {0}")]
    Unsuitable(String),
    /// The machine lacks a program that a step needs.
    #[error("the machine lacks a program that is needed: {0}")]
    MissingTool(String),
    /// Another run of the same step holds its lock on the machine.
    #[error("another run of this step is still at work on the machine: {0}")]
    Busy(String),
    /// Something that Berth did not put there is in the way.
    #[error("something is in the way on the machine: {0}")]
    Conflict(String),
    /// A parameter cannot be used.
    #[error("{field}: {reason}")]
    Invalid {
        /// Which parameter.
        field: String,
        /// What is wrong with it and what is allowed.
        reason: String,
    },
    /// A step answered something that its reader does not understand.
    #[error("the machine's answer is not understood: {0}")]
    Answer(String),
}

fn ended(status: u32, signal: Option<&str>) -> String {
    signal.map_or_else(|| format!("status {status}"), |signal| format!("signal {signal}"))
}

impl Error {
    /// Whether this speaks about the way to the machine and not about what was asked of it: the machine is down, hung
    /// or cut off.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::ConnectionLost { .. } => true,
            Self::Timeout { phase, .. } => *phase != Phase::Command,
            _ => false,
        }
    }

    /// Whether trying again without a change of the declaration or the machine is pointless.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        matches!(
            self,
            Self::HostKeyMismatch { .. }
                | Self::DigestMismatch { .. }
                | Self::NoSuchVersion { .. }
                | Self::Unsuitable(_)
                | Self::Invalid { .. }
        )
    }

    pub(crate) fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), reason: reason.into() }
    }
}
