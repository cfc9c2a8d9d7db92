//! What all Berth binaries share at run time: arguments, logs, metrics, probes, caches, the controller loop, claims and Events.
//!
//! The `main` of a binary calls [`run`], which provides a [`Process`], from which a controller gets its [`Context`]. A [`Cache`]
//! watches objects, a [`Controller`] reconciles them, a [`TaskRunner`] carries out tasks that need a Server's lock. [`Copies`] are the
//! other processes of the controllers.

mod api_error;
mod args;
mod backoff;
mod cache;
mod client;
mod clock;
mod context;
mod controller;
mod copies;
mod events;
mod expectations;
mod failed_task;
mod leader;
mod logs;
mod metrics;
mod probes;
mod process;
mod second_opinions;
mod server_index;
mod set_api;
mod status;
mod tasks;
#[cfg(test)]
mod testing;
mod throttle;
mod turns;

pub use api_error::{ApiError, ApiErrorCause, written};
pub use args::{Arguments, CommonArgs, LogFormat};
pub use backoff::Backoff;
pub use cache::{
    Cache, CacheOptions, Cached, CachedObject, Change, Guarded, ServerCache, changed_at, resource_version, with_state,
};
pub use client::{CallTimeout, Timeouts, build as build_client, connect, with_timeouts};
pub use clock::{Clock, ManualClock, SystemClock, requeue_after};
pub use context::{Context, ContextParts};
pub use controller::{Controller, ReconcileError};
pub use copies::{ControllerCopy, Copies};
pub use events::{EventType, Events, reference};
pub use expectations::Expectations;
pub use leader::Leader;
pub use metrics::Metrics;
pub use probes::{Readiness, ReadinessFlag, router as probes_router};
pub use process::{Process, run};
pub use second_opinions::{answer_questions, question_of};
pub use server_index::ServerIndex;
pub use set_api::{ListedServer, SetApi};
pub use status::WAIT_SECONDS;
pub use tasks::{TaskRun, TaskRunner};
pub use throttle::Throttle;
pub use turns::{TurnOrder, Turns};
