//! What is published: one occurrence of something that happened to an object.

use k8s_openapi::{api::core::v1::ObjectReference, jiff::Timestamp};

/// Type of an Event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    /// Something happened as it should.
    Normal,
    /// Somebody may have to look at it.
    Warning,
}

impl EventType {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// One occurrence of something that happened to an object.
#[derive(Clone, Debug)]
pub(crate) struct Occurrence {
    pub(crate) object: ObjectReference,
    pub(crate) kind: EventType,
    pub(crate) reason: String,
    pub(crate) note: String,
    pub(crate) at: Timestamp,
}
