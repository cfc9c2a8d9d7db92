//! What can go wrong, said so that a person knows where to look.

use std::{io, path::PathBuf, time::Duration};

/// An error of the control plane or of its fixtures.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file, folder or process operation failed.
    #[error("could not {doing}: {source}")]
    Io {
        /// The operation, with the path it was about.
        doing: String,
        /// The operating system's answer.
        source: io::Error,
    },
    /// No way of getting the binaries worked.
    #[error("no Kubernetes control plane binaries; every way was tried:\n{}", .reasons.iter().map(|r| format!("  - {r}")).collect::<Vec<_>>().join("\n"))]
    Acquire {
        /// One line for each way that was tried, in order: the way, and why it did not work.
        reasons: Vec<String>,
    },
    /// A process ended though it should run.
    #[error("{name} ended ({status}); the end of its log {}:\n{tail}", .log.display())]
    Died {
        /// The name of the process.
        name: String,
        /// How it ended.
        status: String,
        /// Its log file; gone once the folder is.
        log: PathBuf,
        /// The last lines of its log.
        tail: String,
    },
    /// A condition was not met in time.
    #[error("{what} within {} s: {last}", .timeout.as_secs_f32())]
    Timeout {
        /// What did not happen.
        what: String,
        /// How long was waited.
        timeout: Duration,
        /// What was seen last, such as the end of a log.
        last: String,
    },
    /// The guardian process did not start, or does not do its work.
    #[error("guardian of {}: {reason}", .dir.display())]
    Guard {
        /// The guarded folder.
        dir: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A key or certificate could not be made.
    #[error("could not make a certificate: {0}")]
    Pki(#[from] rcgen::Error),
    /// A request to the kube-apiserver failed.
    #[error("could not {doing}: {source}")]
    Kube {
        /// The request, with the object it was about.
        doing: String,
        /// The client's error.
        source: Box<kube::Error>,
    },
    /// The kube-apiserver refused a manifest.
    #[error("{object} from {}: refused by kube-apiserver: {message}", .file.display())]
    Refused {
        /// Kind and name of the object.
        object: String,
        /// The manifest's file.
        file: PathBuf,
        /// The apiserver's message.
        message: String,
    },
    /// A manifest cannot be read as Kubernetes objects.
    #[error("manifest {}: {reason}", .file.display())]
    Manifest {
        /// The manifest's file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A client or kubeconfig could not be built.
    #[error("kubeconfig for {who}: {reason}")]
    Kubeconfig {
        /// Whose kubeconfig.
        who: String,
        /// What is wrong.
        reason: String,
    },
}

/// Short for a result with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Says what was being done when an operating system call failed.
pub(crate) trait IoContext<T> {
    /// Names the operation; `doing` completes "could not ...".
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Io { doing: doing(), source })
    }
}

/// Says what was being asked of the kube-apiserver when it failed.
pub(crate) trait KubeContext<T> {
    /// Names the request; `doing` completes "could not ...".
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T>;
}

impl<T> KubeContext<T> for kube::Result<T> {
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Kube { doing: doing(), source: Box::new(source) })
    }
}
