//! VMReplicaSets.

pub mod environment;
pub mod members;
pub mod scale;
pub mod status;
pub mod victims;
