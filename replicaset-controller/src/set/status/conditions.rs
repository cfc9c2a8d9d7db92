//! The conditions of a set.

use berth_core::conditions::{self, AVAILABLE, FAILOVER_HELD, PROGRESSING, Standing};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};

use super::situation::Situation;

/// Reason of the condition Progressing: nothing is left to do.
const COMPLETE: &str = "Complete";

impl Situation<'_> {
    /// The conditions as they should be. Conditions that do not change keep their transition time.
    pub(super) fn conditions(&self, waiting_for: Option<&str>, now: Timestamp) -> Vec<Condition> {
        let mut conditions = self.set.status.as_ref().map(|status| status.conditions.clone()).unwrap_or_default();
        let generation = self.set.metadata.generation;
        if !self.keeps_what_it_said() {
            conditions::set_standing(&mut conditions, self.standing(waiting_for), generation, now);
        }
        let mut put = |kind: &str, (is_true, reason, message): (bool, &str, &str)| {
            conditions::set(&mut conditions, kind, is_true, reason, message, generation, now);
        };
        let available =
            format!("{} of {} Servers are available", self.counts.available_replicas, self.set.spec.replicas);
        put(AVAILABLE, self.available(&available));
        if !self.keeps_what_it_said() {
            put(PROGRESSING, self.progressing());
        }
        // A set whose brake never held has no such condition.
        let known = self.set.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        if self.brake.is_some() || conditions::get(known, FAILOVER_HELD).is_some() {
            put(FAILOVER_HELD, self.failover_held());
        }
        conditions
    }

    fn available<'m>(&self, message: &'m str) -> (bool, &'static str, &'m str) {
        let available = usize::try_from(self.counts.available_replicas).unwrap_or(0);
        let is_enough = self.budget.is_met_by(available);
        (is_enough, if is_enough { "EnoughAvailable" } else { "TooFewAvailable" }, message)
    }

    /// What kstatus reads. A set whose roll-out has met too many failures has failed as well.
    fn standing<'m>(&'m self, waiting_for: Option<&'m str>) -> Standing<'m> {
        if let Some(explanation) = self.stalled.as_ref().or(self.held.as_ref()) {
            return Standing::Stalled { reason: &explanation.reason, message: &explanation.message };
        }
        let (_, reason, _) = self.progressing();
        match (reason, waiting_for) {
            (COMPLETE, None) => Standing::Ready,
            (COMPLETE, Some(waits_for)) => Standing::Reconciling { reason: self.why_not_complete(), waits_for },
            (reason, waits_for) => Standing::Reconciling { reason, waits_for: waits_for.unwrap_or_default() },
        }
    }

    /// Why a set waits although it has nothing to do.
    fn why_not_complete(&self) -> &str {
        match &self.noted {
            Some(explanation) => &explanation.reason,
            None if self.set.spec.paused => "Paused",
            None => "BecomingAvailable",
        }
    }

    fn failover_held(&self) -> (bool, &str, &str) {
        match &self.brake {
            Some(brake) => (true, brake.reason, &brake.message),
            None => (false, "FewEnoughUnknown", ""),
        }
    }

    fn progressing(&self) -> (bool, &str, &str) {
        let (spec, counts) = (&self.set.spec, self.counts);
        if let Some(explanation) = self.held.as_ref().or(self.delayed.as_ref()) {
            return (false, &explanation.reason, &explanation.message);
        }
        if let Some(approval) = &self.approval {
            return (false, "WaitingForApproval", approval);
        }
        let (is_progressing, reason) = if self.to_replace > 0 && !spec.paused {
            (true, "Replacing")
        } else if counts.replicas != spec.replicas {
            (true, "Scaling")
        } else if self.outdated > self.budget.partition && !spec.paused {
            (true, "RollingOut")
        } else if counts.ready_replicas < counts.replicas {
            (true, "BecomingReady")
        } else {
            (false, COMPLETE)
        };
        (is_progressing, reason, "")
    }
}
