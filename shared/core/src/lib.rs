//! The API types of Berth and the pure life cycle of a Server.
//!
//! This crate has no I/O, no async runtime and no clock: `now` is an argument everywhere. [`lifecycle`] holds the decisions of
//! the admission webhook, [`protocol`] builds what the controllers write.

pub mod api;
pub mod approvals;
pub mod budget;
pub mod conditions;
pub mod digest;
pub mod fleet;
pub mod identity;
pub mod ledger;
pub mod lifecycle;
pub mod machine_class;
pub mod object;
pub mod protocol;
pub mod second_opinion;
mod server;
mod sets;
mod template;
pub mod traffic_split;

pub use server::CLOCK_MARGIN_SECONDS;
pub use template::SET_GENERATION_ANNOTATION;

/// The API group of every kind.
pub const GROUP: &str = "berth.dev";
/// The API version of every kind.
pub const VERSION: &str = "v1alpha1";
/// The finalizer of a Server. replicaset-controller creates Servers with it, and the webhook adds it to others. The webhook
/// allows its removal only when traffic, monitoring and machine
/// are gone.
pub const FINALIZER: &str = "berth.dev/retire";
/// The finalizer of a BalancerClass that Servers may be registered with (lb-controller sets and removes it), and of a MachineClass that
/// machines may have been made of. replicaset-controller sets it before the first one, and
/// removes it when the class is being deleted and no Server names it any more.
pub const CLASS_FINALIZER: &str = "berth.dev/in-use";
