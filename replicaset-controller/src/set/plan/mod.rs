//! What has to be done about a set: one plan, made of phases.
//!
//! The order of the phases matters, because they share one ledger and so one budget. An example: `replicas: 4`,
//! `maxUnavailable: 1`, a new template, and one Server (`web-3`) that is unreachable and due for failover.
//!
//! 1. `hold`: is the roll-out paused, or stopped by failures? Nothing of it is begun then.
//! 2. `fail_over`: enters `web-3`. It is unavailable already, so that 3 of 4 are available and the headroom is 0.
//! 3. `scale`: 3 Servers are left and 4 are declared, so it names one new Server. If `replicas` had been lowered to 3, it would
//!    retire `web-3` first, because failover gives it up anyway: that is why failover comes before it.
//! 4. `replace`: Servers whose machine differs are removed. `scale` has already created their successors (the surge), and has
//!    removed surplus Servers, so that none is replaced that would have been removed.
//! 5. `roll_out`: with a headroom of 0 it begins nothing. In the other order it would have disturbed a second Server.
//! 6. `repair_drift`: last, because an update repairs drift, too, and a removed Server needs no repair.

mod deletion_order;
mod drift;
mod failover;
mod failover_holds;
mod failover_stage;
mod forced;
mod headroom;
mod input;
mod output;
mod pacing;
mod planner;
mod replace;
mod replacement_demand;
mod rollout;
mod scale;
#[cfg(test)]
mod tests;
mod zone_brake;

pub use input::{PlanInput, SetLimits};
pub use output::{
    Blocker, Brake, Effect, FailoverPlan, Hold, PROVIDER_UNRESPONSIVE, Plan, SetLedgers, TOO_MANY_FAILED,
    TOO_MANY_UNKNOWN, TOO_MANY_UNKNOWN_IN_ZONE,
};
#[cfg(test)]
pub(in crate::set) use pacing::may_be_in_service;
use planner::Planner;

/// Plans what has to be done about a set.
///
/// An action may be carried out only if the set was read first and its Servers after that, both from the API server, and
/// only after `ledgers` was written by a write that tests that set's `resourceVersion`.
#[must_use]
pub fn plan<'a>(input: PlanInput<'_, 'a>) -> Plan<'a> {
    let mut planner = Planner::new(input);
    planner.hold();
    planner.fail_over();
    planner.report_missing_headroom();
    planner.scale();
    planner.replace();
    planner.roll_out();
    planner.repair_drift();
    planner.report_forced();
    planner.finish()
}
