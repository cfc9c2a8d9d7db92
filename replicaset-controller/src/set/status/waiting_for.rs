//! The one sentence that says what a set waits for, and on whom.

use super::situation::Situation;

impl Situation<'_> {
    /// Whether the set says what it said before, because what keeps it from being complete is being found out.
    pub(super) fn keeps_what_it_said(&self) -> bool {
        self.is_unsure && self.set.status.as_ref().is_some_and(|status| !status.conditions.is_empty())
    }

    /// What the set waits for; none when it is complete.
    pub(super) fn waiting_for(&self) -> Option<String> {
        if self.keeps_what_it_said() {
            return self.set.status.as_ref().and_then(|status| status.waiting_for.clone());
        }
        self.waiting_for_people_or_providers().or_else(|| self.waiting_for_servers())
    }

    fn waiting_for_people_or_providers(&self) -> Option<String> {
        if let Some(explanation) = self.held.as_ref().or(self.stalled.as_ref()) {
            return Some(format!("a person: {}", explanation.message));
        }
        if let Some(approval) = &self.approval {
            return Some(format!("a person: {approval}"));
        }
        self.delayed.as_ref().or(self.noted.as_ref()).map(|explanation| explanation.message.clone())
    }

    fn waiting_for_servers(&self) -> Option<String> {
        let (counts, replicas, to_replace) = (self.counts, self.set.spec.replicas, self.to_replace);
        if counts.replicas < replicas || counts.replicas > replicas && to_replace == 0 {
            return Some(format!("{replicas} Servers, there are {}", counts.replicas));
        }
        if counts.updated_replicas < counts.replicas && self.set.spec.paused {
            return Some("a person: the roll-out of the template is paused".to_owned());
        }
        if let Some(server) = self.active.iter().find(|server| !server.is_ready()) {
            let detail = server.status.as_ref().and_then(|s| s.waiting_for.as_deref()).unwrap_or("its first decision");
            let others = counts.replicas - counts.ready_replicas - 1;
            let more = if others > 0 { format!(" (and {others} more Servers)") } else { String::new() };
            return Some(format!("{} to be Ready: it waits for {detail}{more}", server.name()));
        }
        if counts.available_replicas < counts.replicas {
            return Some("Servers to be Ready for long enough, and to get their traffic".to_owned());
        }
        if to_replace > 0 {
            return Some(format!("{to_replace} machines to be replaced"));
        }
        let outdated = self.outdated.saturating_sub(self.budget.partition);
        (outdated > 0 && !self.set.spec.paused).then(|| format!("{outdated} Servers to be updated"))
    }
}
