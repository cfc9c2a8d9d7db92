//! The conditions of a set.

use berth_core::conditions::{self, AVAILABLE, FAILOVER_HELD, PROGRESSING, STALLED};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};

use super::situation::Situation;

impl Situation<'_> {
    /// The conditions as they should be. Conditions that do not change keep their transition time.
    pub(super) fn conditions(&self, now: Timestamp) -> Vec<Condition> {
        let mut conditions = self.set.status.as_ref().map(|status| status.conditions.clone()).unwrap_or_default();
        let mut put = |kind: &str, (is_true, reason, message): (bool, &str, &str)| {
            let generation = self.set.metadata.generation;
            conditions::set(&mut conditions, kind, is_true, reason, message, generation, now);
        };
        let available =
            format!("{} of {} Servers are available", self.counts.available_replicas, self.set.spec.replicas);
        put(AVAILABLE, self.available(&available));
        if !self.keeps_what_it_said() {
            put(PROGRESSING, self.progressing());
            put(STALLED, self.stalled());
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

    fn stalled(&self) -> (bool, &str, &str) {
        match &self.stalled {
            Some(explanation) => (true, &explanation.reason, &explanation.message),
            None => (false, "Progressing", ""),
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
            (false, "Complete")
        };
        (is_progressing, reason, "")
    }
}
