//! x
pub mod plan;
mod slices;
