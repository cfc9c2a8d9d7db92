//! Carries out traffic tasks on load balancers.
//!
//! [`plan`] says what the load balancers are to show of a Server and what to report, [`reconcile`] does it, and
//! [`slices`] is the load balancer that Kubernetes itself is. [`run`] watches.
//!
//! # Why traffic reaches a Server only while it is Ready
//!
//! Three things may be out of date or cut off at any point: what this process knows of a Server, what it knows of the
//! load balancer, and this process itself. The rules are:
//!
//! 1. **The fact comes before the traffic.** ReleaseTraffic is reported, with the fact `Serving`, *before* an endpoint
//!    becomes ready. The webhook accepts the report only while the task is open, so only while the Server is Ready. From
//!    that write on the Server counts as taking traffic: whatever state comes next begins with HoldTraffic, and
//!    everything that touches the machine waits for that. A crash between the two leaves a Server that should get
//!    traffic and does not; the next reconcile makes up for it. The other order would leave, after a crash, an
//!    endpoint that is ready and that no HoldTraffic is planned for.
//! 2. **The traffic goes before the fact.** HoldTraffic, RemoveBackend and RegisterBackend are reported when the load
//!    balancer shows it. A crash between the two repeats the step, which changes nothing.
//! 3. **What is older never undoes what is newer.** An endpoint carries the `resourceVersion` of the Server that was
//!    decided upon. A decision on an older version is dropped, and every write of a slice tests the slice's own
//!    `resourceVersion`. HoldTraffic leaves its version behind even where nothing else changes, so that a release that
//!    another copy has under way fails. Where no endpoint exists that could carry a version, the Server itself is read
//!    before one is added.
//! 4. **Nothing is remembered that cannot be read again.** Each reconcile compares what the load balancers show with what
//!    the facts promise, and each change of a slice begins one. An endpoint is ready only for a Server that is Ready and
//!    whose fact says `Serving`; the one exception is a Server whose retirement waits for a person at a gate: there all
//!    stays as it is, as the gate promises. An endpoint without a Server is removed.

mod args;
pub mod balancer;
mod controller;
mod orphans;
pub mod plan;
pub mod reconcile;
pub mod slices;

pub use args::Args;
pub use controller::run;

/// Tells the time, by the clock of this process.
pub type Now = std::sync::Arc<dyn Fn() -> k8s_openapi::jiff::Timestamp + Send + Sync>;
