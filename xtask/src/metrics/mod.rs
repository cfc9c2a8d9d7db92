//! Generates `docs/metrics.md`, the list of metrics, from the places in the sources where metrics are registered.
//!
//! A running program would not do: it exposes no metric that has no value yet.

mod declarations;
mod metric;
mod page;
mod registrations;
#[cfg(test)]
mod tests;

pub(crate) use page::render;
