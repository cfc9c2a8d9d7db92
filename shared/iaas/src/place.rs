//! Where machines are.

use std::fmt;

use berth_core::api::{MachinePhase, Server};

/// Where machines are: two classes have the same place exactly if they see the same machines.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Name of the provider.
    pub provider: String,
    /// What the provider says: see [`crate::Provider::place`].
    pub place: String,
}

impl Place {
    /// Where the machine of the Server is, or is being created; none if no machine may exist.
    #[must_use]
    pub fn of_machine(server: &Server) -> Option<Self> {
        let machine = server.machine().filter(|machine| machine.phase != MachinePhase::Gone)?;
        Some(Self { provider: machine.provider.clone()?, place: machine.place.clone()? })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.provider, self.place)
    }
}
