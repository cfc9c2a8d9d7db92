//! The life cycle of a Server: pure, total, deterministic and idempotent.
//!
//! [`admit_status`] is the protocol of `docs/protocol.md`: every write to a Server's status passes through it. [`decide`] computes
//! the state of a Server, [`plan`] the tasks that it needs in that state.

mod admission;
mod apply_decision;
mod claim;
mod decide;
mod decision;
mod declared;
mod executor_rules;
mod facts;
mod force;
mod from_facts;
mod guard;
mod history;
mod hold_cause;
mod plan;
mod refusal;
mod report;
mod summary;
mod tasks;
mod trust;

pub use admission::{
    ABANDON_ANNOTATION, admit_approval, admit_create, admit_status, admit_update, loses_finalizer,
    stamp_rollout_request,
};
pub use decide::decide;
pub use decision::Decision;
pub use hold_cause::HoldCause;
pub use plan::{Planned, plan};
pub use refusal::{Refusal, RefusalReason};
