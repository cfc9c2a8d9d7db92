//! What all tasks share.

use std::sync::Arc;

use berth_machine::Connector;

/// What all tasks share. Clones share the connections to machines.
#[derive(Clone)]
pub struct TaskContext {
    /// Finds the machine of a Server.
    pub connector: Arc<dyn Connector>,
    /// OpenSSH public key line that new machines are to accept.
    pub authorized_key: String,
    /// Name of this cluster.
    pub cluster: String,
}
