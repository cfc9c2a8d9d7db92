//! The admission webhook: computes the next state of a Server on every write.
//!
//! The way of a write: [`router`] reads the body within its limits, [`review`] decodes the AdmissionReview, [`admit`]
//! asks [`berth_core::lifecycle`], [`patch`] expresses the outcome as a JSON Patch of only what changed. [`tls`] keeps
//! the certificate fresh and [`serve`] keeps the connections.

pub mod admit;
pub mod args;
pub mod metrics;
pub mod object;
pub mod patch;
pub mod review;
pub mod router;
pub mod serve;
pub mod tls;

mod run;
pub use run::run;
