//! The admission webhook: computes the next state of a Server on every write.
//!
//! A write takes this path: [`router`] receives the request, [`body`] reads it within its limits, [`admit`] decodes the
//! review with [`review`] and its objects with [`decode`], asks [`berth_core::lifecycle`] for the decision, and has [`patch`]
//! express what changed as a JSON Patch. [`tls`] provides and renews the certificate, and [`serve`] handles connections.

pub mod admit;
pub mod args;
pub mod body;
pub mod connections;
pub mod decode;
pub mod metrics;
pub mod patch;
pub mod review;
pub mod router;
pub mod serve;
pub mod tls;

mod run;
pub use run::run;
