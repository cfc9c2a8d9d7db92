//! Servers.

pub mod gates;
pub mod plan;
