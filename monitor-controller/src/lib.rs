//! x
pub mod discovery;
pub mod facts;
mod lane;
pub mod metrics;
pub mod probe;
pub mod prober;
pub mod schedule;
pub mod verdict;

/// Tells the time, by the clock of this process.
pub type Now = std::sync::Arc<dyn Fn() -> k8s_openapi::jiff::Timestamp + Send + Sync>;
