//! Carries out traffic tasks on load balancers.
//!
//! [`plan`] computes what the load balancers should show of a Server and which report is due, and [`reconcile`] carries that
//! out. [`panic_floor`] limits what sickness and silence take out of traffic. Every load balancer implements the trait in [`balancer`], and
//! [`balancers`] is the registry: [`endpoint_slices`], the load balancing that Kubernetes brings with it, and [`classes`], those outside of
//! the cluster, such as [`haproxy`] and [`envoy`]. [`subsets`] says which Servers are in a backend for one version alone, and `routes` sets the
//! weights of two Services in routes of the Gateway API. [`run`] starts everything.
//!
//! # Why traffic reaches a Server only while it is Ready
//!
//! At any moment three things may be out of date: the cached Server, the cached entries of the load balancer, and this process
//! itself, which may be a stale copy or may crash halfway. Four rules keep traffic right nevertheless:
//!
//! 1. **Traffic begins after the fact is stored.** ReleaseTraffic is reported, with the fact `Serving`, *before* any load
//!    balancer sends traffic. The webhook accepts that report only while the task is open, so only while the Server is Ready.
//!    Once it is stored, every following state begins with HoldTraffic, and every task that touches the machine waits for
//!    HoldTraffic. A crash between the report and the load balancer leaves a Server that should receive traffic and does not;
//!    the next reconcile repairs that. In the opposite order a crash would leave a Server that receives traffic without
//!    anybody knowing, and no HoldTraffic would be planned for it.
//! 2. **Traffic ends before the fact is stored.** HoldTraffic, RemoveBackend and RegisterBackend are reported when the load
//!    balancers show the result. A crash in between repeats the task, and the repetition changes nothing.
//! 3. **An older decision never undoes a newer one.** An endpoint carries the `resourceVersion` of the Server that was decided
//!    on. A decision on an older version is dropped, and every write of an EndpointSlice tests the `resourceVersion` of the
//!    slice. HoldTraffic records its version even when nothing else changes, so that a release which another copy of this
//!    program has under way fails. Where no endpoint exists that could carry a version, the Server is read from the API server
//!    before an endpoint with traffic is added. One without traffic is added at once, and removed again if its report fails.
//!    Load balancers of [`classes`] store no version: one copy leads there, and reads the Server again after it has given traffic.
//! 4. **Nothing is remembered that cannot be read again.** Each reconcile compares what the load balancers show with what the
//!    facts promise, and every change that somebody else makes to a load balancer triggers a reconcile. A Server receives
//!    traffic only while it is Ready and its fact says `Serving`. There are two exceptions. A Server whose retirement waits at a
//!    gate: the gate promises that everything stays as it is until a person decides. And a sick Server that the panic floor
//!    keeps in traffic: its fact still says `Serving`, so nothing touches its machine before the hold. Entries without a Server
//!    are removed.

mod args;
pub mod balancer;
pub mod balancers;
pub mod classes;
mod controller;
pub mod endpoint_slices;
pub mod envoy;
pub mod haproxy;
pub mod kept;
pub mod member;
mod orphans;
pub mod panic_floor;
pub mod plan;
pub mod reconcile;
mod routes;
pub mod subsets;

pub use args::Args;
pub use controller::{run, run_with};
pub use routes::WEIGHTS_OF;
