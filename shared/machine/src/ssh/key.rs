//! The private key that Berth logs in to machines with.

use std::{path::Path, sync::Arc};

use russh::keys::{Algorithm, HashAlg, PrivateKey, key::safe_rng, ssh_key::LineEnding};

use crate::error::{MachineError, Result};

/// The private key that Berth logs in to machines with.
#[derive(Clone)]
pub struct ClientKey(Arc<PrivateKey>);

impl ClientKey {
    /// Parses an unencrypted OpenSSH private key (`-----BEGIN OPENSSH PRIVATE KEY-----`).
    pub fn from_openssh(pem: &str) -> Result<Self> {
        let key = PrivateKey::from_openssh(pem)
            .map_err(|error| invalid(format!("is not an OpenSSH private key: {error}")))?;
        if key.is_encrypted() {
            return Err(invalid("is protected by a passphrase; provide it unencrypted"));
        }
        Ok(Self(Arc::new(key)))
    }

    /// Reads the key from a file.
    pub fn from_file(path: &Path) -> Result<Self> {
        let hint = "create one with: ssh-keygen -t ed25519 -N '' -f FILE";
        let place = path.display();
        let pem =
            std::fs::read_to_string(path).map_err(|error| invalid(format!("cannot read {place}: {error}; {hint}")))?;
        Self::from_openssh(&pem).map_err(|error| invalid(format!("{place}: {error}; {hint}")))
    }

    /// Generates a new ed25519 key.
    pub fn generate() -> Result<Self> {
        PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519)
            .map(|key| Self(Arc::new(key)))
            .map_err(|error| invalid(format!("could not be generated: {error}")))
    }

    /// The private key in OpenSSH's format. A secret.
    pub fn to_openssh(&self) -> Result<String> {
        self.0
            .to_openssh(LineEnding::LF)
            .map(|pem| pem.to_string())
            .map_err(|error| invalid(format!("could not be written: {error}")))
    }

    /// The public key line for the machines' `authorized_keys`.
    pub fn public_openssh(&self) -> Result<String> {
        self.0.public_key().to_openssh().map_err(|error| invalid(format!("could not be written: {error}")))
    }

    pub(super) fn private(&self) -> Arc<PrivateKey> {
        Arc::clone(&self.0)
    }
}

fn invalid(reason: impl Into<String>) -> MachineError {
    MachineError::invalid("SSH client key", reason)
}

impl std::fmt::Debug for ClientKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ClientKey({})", self.0.fingerprint(HashAlg::Sha256))
    }
}
