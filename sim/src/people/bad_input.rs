//! What must be refused, with words that name the field.

use serde::{Deserialize, Serialize};

/// Something that must be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum BadInput {
    /// Fewer Servers than none.
    NegativeReplicas,
    /// A gate that there is not.
    UnknownGate,
    /// Another selector.
    OtherSelector,
    /// A state that there is not.
    UnknownState,
    /// Another machine for a Server.
    OtherMachine,
    /// A Server's object without its finalizer, while its machine is there.
    NoFinalizer,
    /// A state that a person writes into a Server's status.
    StateByHand,
    /// An Approval of a Server's gate that does not say which.
    NoTask,
    /// An Approval that lets every later machine be destroyed.
    BlankCheque,
    /// A Service's name that is none.
    BadPort,
}

impl BadInput {
    pub(super) const ALL: [Self; 10] = [
        Self::NegativeReplicas,
        Self::UnknownGate,
        Self::OtherSelector,
        Self::UnknownState,
        Self::OtherMachine,
        Self::NoFinalizer,
        Self::StateByHand,
        Self::NoTask,
        Self::BlankCheque,
        Self::BadPort,
    ];

    /// What the refusal has to say.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::NegativeReplicas => "spec.replicas",
            Self::UnknownGate => "gates[0].before",
            Self::OtherSelector => "spec.selector is immutable",
            Self::UnknownState => "spec.force.state",
            Self::OtherMachine => "spec.machine is immutable",
            Self::NoFinalizer => "berth.dev/retire stays until nothing is left of the Server",
            Self::StateByHand => "status.state: only the webhook writes this field",
            Self::NoTask => "spec.taskID is required",
            Self::BlankCheque => "spec.servers or spec.maxServers is required",
            Self::BadPort => "backends[0].port",
        }
    }
}
