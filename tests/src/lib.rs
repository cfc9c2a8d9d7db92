//! Fixtures of the whole-system tests, and of the demonstration: a whole Berth on loopback.
//!
//! [`Berth::start`] starts a real control plane with the shipped manifests, the webhook and the four controllers as processes,
//! each with the token of its own ServiceAccount, and a server of artifacts. However the test ends, it leaves no process and no
//! folder behind.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use berth_tests::{Archive, Berth, Options, Part};
//! let berth = Berth::start(Options::default()).await?;
//! let code = berth.artifacts().put("app.tar", Archive::new().file("index.html", "hello").build()?);
//! berth.kill9(Part::LbController)?;
//! berth.restart(Part::LbController).await?;
//! # drop(code);
//! berth.stop().await
//! # }
//! ```

mod archive;
mod artifacts;
mod berth;
mod cut_off;
mod envoy;
mod gateway_api;
mod haproxy;
mod kstatus;
mod machines;
mod part;
mod programs;
mod serving_certificate;
mod traffic;
mod wait;

pub use archive::Archive;
pub use artifacts::{Artifact, Artifacts};
pub use berth::{BERTH_NAMESPACE, Berth, Options};
pub use cut_off::CutOff;
pub use envoy::Envoy;
pub use gateway_api::http_route_crd;
pub use haproxy::HaProxy;
pub use kstatus::{Judgement, judge};
pub use machines::Machines;
pub use part::{Instance, Part, free_address};
pub use programs::{program, repository};
pub use traffic::{Answers, Client, Failure};
pub use wait::{CheckResult, eventually};
