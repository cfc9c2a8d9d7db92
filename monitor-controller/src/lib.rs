//! Probes the health of machines and applications, and carries out monitoring tasks.
//!
//! [`prober`] probes every Server at its times ([`schedule`]) and judges what it finds ([`verdict`]); [`facts`] says what
//! of that is to be written, and [`reconcile`] writes it. [`discovery`] gives Prometheus its targets. [`run`] watches.
//!
//! Every copy of this program probes every Server, and each judges by what it has found itself. What two copies write is the
//! same, the webhook counts a report once, and who finds in the cache that a fact is written already writes nothing.

mod args;
mod controller;
pub mod discovery;
pub mod facts;
mod lane;
pub mod metrics;
pub mod probe;
pub mod prober;
pub mod reconcile;
pub mod schedule;
pub mod verdict;

pub use args::Args;
pub use controller::run;

/// Tells the time, by the clock of this process.
pub type Now = std::sync::Arc<dyn Fn() -> k8s_openapi::jiff::Timestamp + Send + Sync>;
