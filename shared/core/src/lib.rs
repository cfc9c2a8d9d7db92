//! The API types of Berth and the pure life cycle of a Server.
//!
//! This crate has no I/O, no async runtime and no clock: `now` is an argument everywhere. What the
//! admission webhook decides is [`lifecycle`], what the controllers write is built by [`protocol`].

pub mod api;
pub mod budget;
pub mod conditions;
pub mod digest;
pub mod identity;
pub mod lifecycle;
pub mod protocol;

/// The API group of every kind.
pub const GROUP: &str = "berth.dev";
/// The API version of every kind.
pub const VERSION: &str = "v1alpha1";
/// The finalizer of a Server. The webhook sets it at creation and lets it go only when traffic,
/// monitoring and machine are gone.
pub const FINALIZER: &str = "berth.dev/retire";
