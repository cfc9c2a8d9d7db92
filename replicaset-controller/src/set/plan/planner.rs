//! The state that the phases of a plan hand on to each other.

use berth_core::{api::Axis, fleet::Fleet};
use k8s_openapi::jiff::Timestamp;

use super::{
    input::PlanInput,
    output::{Blocker, Effect, Plan},
    pacing::Pacing,
};

/// A plan in the making. Each phase takes the ledger as the phase before it has left it, and enters what it is going to do.
pub(super) struct Planner<'i, 'a> {
    pub(super) input: PlanInput<'i, 'a>,
    /// The Servers, the budget, and the ledger as it has to be written.
    pub(super) fleet: Fleet<'a>,
    pub(super) pacing: Pacing,
    /// Whether the roll-out begins nothing more.
    pub(super) is_held: bool,
    pub(super) plan: Plan<'a>,
}

impl<'i, 'a> Planner<'i, 'a> {
    pub(super) fn new(input: PlanInput<'i, 'a>) -> Self {
        let mut fleet = Fleet::of_set(input.set, input.servers, input.now);
        // Servers that were removed have left, and so have those that a person has forced before they were removed.
        fleet.leave(Axis::Retirement, |server| !server.is_forced());
        fleet.leave(Axis::Replacement, |server| !server.is_forced());
        fleet.give_back(&[Axis::Retirement, Axis::Replacement]);
        let pacing = Pacing::of(input.set, input.now);
        Self { input, fleet, pacing, is_held: input.set.spec.paused, plan: Plan::default() }
    }

    pub(super) fn block(&mut self, effect: Effect, reason: &'static str, message: impl Into<String>) {
        self.plan.blockers.push(Blocker::new(effect, reason, message));
    }

    /// Asks for another reconcile at this time, or earlier.
    pub(super) fn requeue_at(&mut self, at: Timestamp) {
        let requeue_at = &mut self.plan.requeue_at;
        *requeue_at = Some(requeue_at.map_or(at, |earlier| earlier.min(at)));
    }

    /// The plan, complete.
    pub(super) fn finish(mut self) -> Plan<'a> {
        if let Some(at) = self.pacing.requeue_at() {
            self.requeue_at(at);
        }
        let entered_at = self.input.set.status.as_ref().and_then(|status| status.last_disturbed_at.clone());
        self.plan.retire = self.fleet.entered(Axis::Retirement);
        self.plan.ledgers.disturbed = self.fleet.ledger;
        self.plan.ledgers.last_disturbed_at = self.pacing.last_begun().or(entered_at);
        self.plan
    }
}

/// Names for a message: the first so many, and how many more there are.
pub(super) fn listed<'n>(names: impl ExactSizeIterator<Item = &'n str>, at_most: usize) -> String {
    let more = names.len().saturating_sub(at_most);
    let first = names.take(at_most).collect::<Vec<_>>().join(", ");
    if more > 0 { format!("{first} and {more} more") } else { first }
}
