//! x
pub mod balancer;
pub mod plan;
pub mod slices;

/// Tells the time, by the clock of this process.
pub type Now = std::sync::Arc<dyn Fn() -> k8s_openapi::jiff::Timestamp + Send + Sync>;
