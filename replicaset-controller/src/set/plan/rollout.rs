//! The roll-out of the template's environment, in place.

use berth_core::{
    api::{Axis, Server},
    conditions,
    fleet::Pace,
};
use k8s_openapi::jiff::Timestamp;

use super::{
    output::{Effect, TOO_MANY_FAILED},
    planner::{Planner, listed},
};

/// Names in a message: enough to begin with, few enough to read.
const NAMES: usize = 5;

impl Planner<'_, '_> {
    /// Holds the roll-out while too many Servers with the new template are Stalled.
    pub(super) fn hold(&mut self) {
        if let Some(message) = self.too_many_failed() {
            self.is_held = true;
            self.block(Effect::Held, TOO_MANY_FAILED, message);
        }
        if let Some(problem) = self.input.no_machines {
            let effect = if problem.is_temporary { Effect::Delayed } else { Effect::Stalled };
            self.block(effect, problem.reason, problem.message.clone());
        }
    }

    fn too_many_failed(&self) -> Option<String> {
        let set = self.input.set;
        let max = usize::try_from(set.spec.update_strategy.max_failed?).unwrap_or(0);
        let updated = self.fleet.active().filter(|server| server.is_observed() && set.is_updated(server));
        let failed: Vec<(&str, &str)> =
            updated.filter_map(|server| Some((server.name(), stalled_message(server)?))).collect();
        if failed.len() <= max || self.fleet.active().all(|server| !set.is_outdated(server)) {
            return None;
        }
        let (first, message) = failed.first()?;
        let names = listed(failed.iter().map(|(name, _)| *name), NAMES);
        Some(format!(
            "{} Servers are stalled with the new template, at most {max} may be (updateStrategy.maxFailed): {names}; \
             {first}: {message}",
            failed.len()
        ))
    }

    /// Updates the next outdated Servers. Servers whose machine has to be replaced get the environment with their successors.
    pub(super) fn roll_out(&mut self) {
        let set = self.input.set;
        let is_outdated = |server: &Server| set.must_update(server);
        let is_idle = self.fleet.ledger.on(Axis::Environment).next().is_none();
        if is_idle && !self.fleet.active().any(is_outdated) {
            return;
        }
        let pace = self.pace(&is_outdated);
        let mut oldest_first = self.fleet.servers.clone();
        oldest_first.sort_by(|a, b| age(a).cmp(&age(b)));
        let update = self.fleet.roll(Axis::Environment, &oldest_first, pace, is_outdated);
        self.plan.update = self.pacing.admit(update);
        let is_waiting = self.fleet.ready().any(is_outdated);
        if self.pacing.is_paced() && !self.is_held && is_waiting {
            self.pacing.note_waiting();
        }
    }

    fn pace(&self, is_outdated: &impl Fn(&Server) -> bool) -> Pace {
        let is_left_over = |server: &&Server| server.is_ready() && is_outdated(server);
        let has_left_over = self.fleet.entered(Axis::Environment).iter().any(is_left_over);
        match (self.is_held, has_left_over) {
            (true, _) => Pace::Hold,
            // Servers that were entered before and not updated have their turn first.
            (false, true) if self.pacing.is_paced() => Pace::ReadyServers(0),
            (false, _) => self.pacing.pace(),
        }
    }
}

fn stalled_message(server: &Server) -> Option<&str> {
    let conditions = &server.status.as_ref()?.conditions;
    conditions::get_true(conditions, conditions::STALLED).map(|condition| condition.message.as_str())
}

fn age(server: &Server) -> (Option<Timestamp>, &str) {
    (server.metadata.creation_timestamp.as_ref().map(|time| time.0), server.name())
}
