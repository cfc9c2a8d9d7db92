//! What the provider stores about a machine.

use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::provider::MachineOwner;

/// The content of `owner.json`: everything that the machine itself does not know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MachineRecord {
    /// The Server that the machine belongs to.
    pub(super) owner: MachineOwner,
    /// Its address, which never changes.
    pub(super) address: String,
    /// When it was first requested.
    pub(super) created_at: Timestamp,
}
