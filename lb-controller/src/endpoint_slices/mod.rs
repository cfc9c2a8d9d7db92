//! The load balancing that Kubernetes brings with it: EndpointSlices of Services without a selector.
//!
//! Each Server is one endpoint: *held* (not ready, not serving), *draining* (not ready, serving, terminating) or *serving*
//! (ready). `slice_group` says in which slice a Server lives, `next_writes` computes the writes that bring it there, and
//! `service_writer` carries them out, those of many Servers together.

mod endpoint;
mod floor;
mod keys;
mod load_balancer;
mod next_writes;
mod owed;
mod service_lookup;
mod service_writer;
mod slice_api;
mod slice_cache;
mod slice_group;

pub use floor::PanicFloor;
pub use load_balancer::EndpointSlices;
