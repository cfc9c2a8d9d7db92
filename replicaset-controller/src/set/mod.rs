//! VMReplicaSets.

pub mod environment;
mod live;
pub mod members;
pub mod reconcile;
pub mod scale;
pub mod status;
pub mod victims;
