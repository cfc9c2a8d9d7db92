//! VMReplicaSets. [`reconcile`] leads through it: what is known (`observe`) and the objects give a [`plan`], whose ledgers are
//! written with the [`status`], and which is then carried out (`apply`).

mod apply;
pub mod creation_batch;
pub mod drift_repair;
pub mod finding;
mod held_servers;
mod inquiries;
pub mod machines;
mod observe;
pub mod plan;
pub mod reconcile;
pub mod status;
pub mod template;
mod template_patch;
mod writes;
pub mod zone;
pub mod zone_index;
