//! A deterministic world for Berth's programs.
//!
//! So far it has one part: [`ApiServer`], a Kubernetes API server in memory. Berth's shipped webhook and controllers speak to it
//! through `kube::Client`, on one thread, under tokio's paused time.

pub mod apiserver;

pub use apiserver::ApiServer;
