//! The key with which Berth logs in to machines.

use std::path::Path;

use anyhow::{Context as _, Result};
use berth_machine::ssh::ClientKey;

/// Reads the key from a file.
pub(crate) fn read_key(path: &Path) -> Result<ClientKey> {
    let hint = "make one with: ssh-keygen -t ed25519 -N '' -f FILE";
    let pem =
        std::fs::read_to_string(path).with_context(|| format!("--ssh-key: cannot read {}; {hint}", path.display()))?;
    ClientKey::from_openssh(&pem).with_context(|| format!("--ssh-key: {}; {hint}", path.display()))
}
