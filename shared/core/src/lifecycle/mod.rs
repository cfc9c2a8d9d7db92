//! The life cycle of a Server: pure, total, deterministic and idempotent.
//!
//! [`admit_status`] is the whole protocol of `docs/protocol.md`; [`decide`] is its heart.

mod admission;
mod claim;
mod decide;
mod facts;
mod force;
mod guard;
mod plan;
mod refusal;
mod report;
mod settle;
mod summary;
mod tasks;
mod trust;

pub use admission::{ABANDON_ANNOTATION, admit_approval, admit_create, admit_status, admit_update, loses_finalizer};
pub use decide::{Decision, decide};
pub use facts::{gets_its_traffic, is_retired, leftovers, monitoring_digest};
pub use plan::{Planned, plan};
pub use refusal::{Refusal, RefusalReason};
pub use tasks::{blocking_failures, current_tasks, is_open, lock_expired, not_before, open_tasks};
