//! SSH with pinned host keys and a small pool of connections.

mod connect;
mod exec;
mod pool;

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt as _};
use russh::keys::{Algorithm, PrivateKey, PublicKey, key::safe_rng, ssh_key::LineEnding};

pub use self::pool::{PoolConfig, SshPool};
use crate::{Error, Machine, Output, Result};

/// Where a machine's SSH server is, and which host key it must show.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SshTarget {
    /// IP address or host name.
    pub address: String,
    /// TCP port.
    pub port: u16,
    /// Login name.
    pub user: String,
    /// The pinned host key as an OpenSSH public key line (`ssh-ed25519 AAAA...`).
    pub host_key: String,
}

impl SshTarget {
    pub(crate) fn endpoint(&self) -> String {
        if self.address.contains(':') {
            format!("[{}]:{}", self.address, self.port)
        } else {
            format!("{}:{}", self.address, self.port)
        }
    }

    pub(crate) fn pinned(&self) -> Result<PublicKey> {
        PublicKey::from_openssh(&self.host_key).map_err(|error| {
            Error::invalid("host key", format!("{:?} is no OpenSSH public key line: {error}", self.host_key))
        })
    }
}

/// The private key that machines accept.
#[derive(Clone)]
pub struct ClientKey(Arc<PrivateKey>);

impl ClientKey {
    /// Reads an unencrypted OpenSSH private key (`-----BEGIN OPENSSH PRIVATE KEY-----`).
    pub fn from_openssh(pem: &str) -> Result<Self> {
        let key = PrivateKey::from_openssh(pem)
            .map_err(|error| Error::invalid("SSH client key", format!("is no OpenSSH private key: {error}")))?;
        if key.is_encrypted() {
            return Err(Error::invalid("SSH client key", "is protected by a passphrase; give it unencrypted"));
        }
        Ok(Self(Arc::new(key)))
    }

    /// Reads the key from a file.
    pub fn from_file(path: &Path) -> Result<Self> {
        let hint = "make one with: ssh-keygen -t ed25519 -N '' -f FILE";
        let place = path.display();
        let pem = std::fs::read_to_string(path)
            .map_err(|error| Error::invalid("SSH client key", format!("cannot read {place}: {error}; {hint}")))?;
        Self::from_openssh(&pem).map_err(|error| Error::invalid("SSH client key", format!("{place}: {error}; {hint}")))
    }

    /// Makes a new ed25519 key.
    pub fn generate() -> Result<Self> {
        PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519)
            .map(|key| Self(Arc::new(key)))
            .map_err(|error| Error::invalid("SSH client key", format!("could not be made: {error}")))
    }

    /// The private key in OpenSSH's format. A secret.
    pub fn to_openssh(&self) -> Result<String> {
        self.0
            .to_openssh(LineEnding::LF)
            .map(|pem| pem.to_string())
            .map_err(|error| Error::invalid("SSH client key", format!("could not be written: {error}")))
    }

    /// The public key line for the machines' authorized keys.
    pub fn public_openssh(&self) -> Result<String> {
        self.0
            .public_key()
            .to_openssh()
            .map_err(|error| Error::invalid("SSH client key", format!("could not be written: {error}")))
    }
}

impl std::fmt::Debug for ClientKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ClientKey({})", self.0.fingerprint(russh::keys::HashAlg::Sha256))
    }
}

/// A machine behind SSH. Cheap to make and to clone: the connections belong to its pool.
#[derive(Clone, Debug)]
pub struct SshMachine {
    pool: SshPool,
    target: Arc<SshTarget>,
}

impl SshMachine {
    /// The machine at `target`, over the connections of `pool`. Does not connect yet.
    #[must_use]
    pub fn new(pool: &SshPool, target: SshTarget) -> Self {
        Self { pool: pool.clone(), target: Arc::new(target) }
    }

    async fn exec_once(&self, script: &str, stdin: Option<Bytes>) -> Result<Output> {
        let (connection, channel) = self.pool.session(&self.target).await?;
        let output = exec::run(channel, &self.target.endpoint(), script, stdin).await?;
        // A connection on which anything went wrong is dropped instead, and closed by that.
        self.pool.give_back(&self.target, connection);
        Ok(output)
    }
}

impl Machine for SshMachine {
    fn exec<'a>(&'a self, script: &'a str, stdin: Option<Bytes>, timeout: Duration) -> BoxFuture<'a, Result<Output>> {
        async move {
            // Giving up drops the connection, and with it the server ends the command.
            tokio::time::timeout(timeout, self.exec_once(script, stdin)).await.unwrap_or_else(|_| {
                let address = self.target.endpoint();
                Err(Error::Timeout { address, phase: crate::Phase::Command, after: timeout })
            })
        }
        .boxed()
    }
}
