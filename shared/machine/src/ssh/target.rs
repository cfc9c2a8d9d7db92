//! Where a machine's SSH server is.

use berth_core::api::Server;
use russh::keys::PublicKey;

use crate::error::{MachineError, Result};

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
    /// The SSH server of this Server's machine, or `None` while the Server's status does not name it completely.
    #[must_use]
    pub fn of(server: &Server) -> Option<Self> {
        let machine = server.status.as_ref()?.machine.as_ref()?;
        let ssh = machine.ssh.as_ref()?;
        Some(Self {
            address: machine.address.clone()?,
            port: u16::try_from(ssh.port).ok()?,
            user: ssh.user.clone(),
            host_key: ssh.host_key.clone(),
        })
    }

    /// `address:port`, as it appears in messages.
    pub(crate) fn endpoint(&self) -> String {
        if self.address.contains(':') {
            format!("[{}]:{}", self.address, self.port)
        } else {
            format!("{}:{}", self.address, self.port)
        }
    }

    /// The pinned host key, parsed.
    pub(crate) fn pinned(&self) -> Result<PublicKey> {
        PublicKey::from_openssh(&self.host_key).map_err(|error| {
            MachineError::invalid("host key", format!("{:?} is not an OpenSSH public key line: {error}", self.host_key))
        })
    }
}
