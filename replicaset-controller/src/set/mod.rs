//! VMReplicaSets: [`reconcile`] looks at one, [`plan`] says what is to be done about it, and [`status`] what is true of it.

mod approvals;
pub mod births;
pub mod drifted;
pub mod environment;
pub mod failover;
pub mod index;
mod live;
pub mod machines;
pub mod members;
pub mod pace;
pub mod plan;
pub mod reconcile;
pub mod replace;
pub mod roll;
pub mod room;
pub mod scale;
pub mod status;
pub mod victims;
