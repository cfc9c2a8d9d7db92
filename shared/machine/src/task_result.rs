//! What an error on a machine means for the task that met it.

use berth_core::protocol::TaskResult;

use crate::{MachineError, NotConnectable};

/// Another attempt is made unless it would be pointless.
impl From<MachineError> for TaskResult {
    fn from(error: MachineError) -> Self {
        if error.is_permanent() { Self::failed(error.to_string()) } else { Self::retry(error.to_string()) }
    }
}

/// Another attempt is made: the Server may have got a machine in the meantime.
impl From<NotConnectable> for TaskResult {
    fn from(error: NotConnectable) -> Self {
        Self::retry(error.to_string())
    }
}
