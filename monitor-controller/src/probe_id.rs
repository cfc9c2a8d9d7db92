//! Names a probe: of which Server, and of what.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

/// What a probe of a Server checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ProbeKind {
    /// Whether the machine answers on its SSH port.
    Reachability,
    /// Whether the application answers its health check.
    Health,
}

impl ProbeKind {
    /// Both kinds.
    pub(crate) const ALL: [Self; 2] = [Self::Reachability, Self::Health];
}

/// One of the probes of one Server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ProbeId {
    /// The Server's UID.
    pub(crate) uid: Arc<str>,
    pub(crate) kind: ProbeKind,
}

impl ProbeId {
    /// A number that depends on the UID and the kind alone: a probe keeps its place in its period over restarts, and the
    /// probes of thousands of Servers spread evenly over it.
    pub(crate) fn stable_hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }
}
