//! What every Berth binary shares at run time: arguments, logs, metrics, probes, the controller loop, claims and events.
//!
//! A binary's `main` is [`run`]; it gives a [`Process`], from which a controller gets its [`Context`]. A [`Cache`]
//! watches objects, a [`Controller`] reconciles them, a [`TaskRunner`] carries out tasks that need a Server's lock.

mod args;
mod backoff;
mod cache;
mod call;
mod client;
mod clock;
mod context;
mod controller;
mod events;
mod logs;
mod metrics;
mod pace;
mod probes;
mod process;
mod recent;
mod tasks;
#[cfg(test)]
mod testing;
mod write;

pub use args::{Arguments, CommonArgs, LogFormat};
pub use backoff::Backoff;
pub use cache::{Cache, Cached, Change, Guarded, Seen, ServerCache, begun, changed_at, resource_version};
pub use call::{CallError, written};
pub use client::{CallTimeout, Timeouts, build as build_client, connect, with_timeouts};
pub use clock::{Clock, ManualClock, SystemClock, until};
pub use context::{Context, ContextParts};
pub use controller::{Controller, ReconcileError};
pub use events::{EventType, Events, reference};
pub use metrics::Metrics;
pub use pace::Pace;
pub use probes::{Readiness, Ready, router as probes_router};
pub use process::{Process, run};
pub use recent::Recent;
pub use tasks::{Done, Facts, Ran, TaskRunner};
pub use write::WriteError;
