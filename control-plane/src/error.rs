//! Errors of the control plane.

use std::{io, path::PathBuf, time::Duration};

/// An error of the control plane, or of what runs beside it in tests.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlPlaneError {
    /// An operation on a file, folder or process failed.
    #[error("could not {doing}: {source}")]
    Io {
        /// The operation and its path.
        doing: String,
        /// The error of the operating system.
        source: io::Error,
    },
    /// No source has the programs of a control plane.
    #[error("found no programs of a Kubernetes control plane; every source was tried:\n{}", .reasons.iter().map(|r| format!("  - {r}")).collect::<Vec<_>>().join("\n"))]
    Acquire {
        /// One line for each source, in order: the source, and why it did not work.
        reasons: Vec<String>,
    },
    /// A process ended unexpectedly.
    #[error("{name} ended ({status}); the end of its log {}:\n{tail}", .log.display())]
    Died {
        /// The name of the process.
        name: String,
        /// Its exit status.
        status: String,
        /// Its log file, which is removed together with the folder.
        log: PathBuf,
        /// The last lines of its log.
        tail: String,
    },
    /// A condition did not become true in time.
    #[error("{what} within {} s: {last}", .timeout.as_secs_f32())]
    Timeout {
        /// The condition, as in `etcd was not ready`.
        what: String,
        /// How long the caller waited.
        timeout: Duration,
        /// The last observation, such as the end of a log.
        last: String,
    },
    /// The guardian process did not start, or did not clean up.
    #[error("guardian of {}: {reason}", .dir.display())]
    Guard {
        /// The guarded folder.
        dir: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A key or certificate could not be created.
    #[error("could not create a certificate: {0}")]
    Pki(#[from] rcgen::Error),
    /// A request to the kube-apiserver failed.
    #[error("could not {doing}: {source}")]
    Kube {
        /// The request and its object.
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
    #[error("kubeconfig for {user}: {reason}")]
    Kubeconfig {
        /// The user of the kubeconfig.
        user: String,
        /// What is wrong.
        reason: String,
    },
}

/// A result with [`ControlPlaneError`].
pub type Result<T, E = ControlPlaneError> = std::result::Result<T, E>;

/// Adds the operation to an error of the operating system.
pub(crate) trait IoContext<T> {
    /// Names the operation; `doing` completes "could not ...".
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| ControlPlaneError::Io { doing: doing(), source })
    }
}

/// Adds the request to an error of the Kubernetes client.
pub(crate) trait KubeContext<T> {
    /// Names the request; `doing` completes "could not ...".
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T>;
}

impl<T> KubeContext<T> for kube::Result<T> {
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| ControlPlaneError::Kube { doing: doing(), source: Box::new(source) })
    }
}
