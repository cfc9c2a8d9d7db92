//! Which Servers a check compares. Pure.

use std::collections::BTreeSet;

use berth_core::api::{App, RolloutProgress, Server, VMDeployment};

use crate::baseline::{self, Against};

/// Names in a message: enough to begin with, few enough to read.
const NAMES: usize = 3;

/// The Servers with the new version, and those that it is compared with.
pub(super) struct Sides<'a> {
    pub(super) namespace: &'a str,
    pub(super) canary: BTreeSet<&'a str>,
    pub(super) baseline: BTreeSet<&'a str>,
    against: Against<'a>,
}

impl<'a> Sides<'a> {
    /// The active Servers of the VMDeployment on both sides. `progress`: what is recorded of its roll-out.
    pub(super) fn of(
        deployment: &'a VMDeployment,
        servers: &[&'a Server],
        newest: &App,
        progress: Option<&'a RolloutProgress>,
    ) -> Self {
        let against =
            progress.map_or(Against::Others, |progress| baseline::against(&deployment.spec.rollout, progress));
        let has_newest = |server: &&Server| server.spec.app.as_ref().is_some_and(|app| app.is_as_wanted(newest));
        let active = servers.iter().copied().filter(|server| server.is_active());
        let (canary, others): (Vec<&Server>, Vec<&Server>) = active.partition(has_newest);
        let counts = |server: &&Server| against != Against::Baseline || baseline::is_restarted(server, progress);
        let others = others.into_iter().filter(counts);
        Self {
            against,
            ..Self::new(deployment.namespace(), canary.into_iter().map(Server::name), others.map(Server::name))
        }
    }

    /// These names on both sides, of which the others are all that have another version.
    pub(super) fn new(
        namespace: &'a str,
        canary: impl IntoIterator<Item = &'a str>,
        others: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let (canary, baseline) = (canary.into_iter().collect(), others.into_iter().collect());
        Self { namespace, canary, baseline, against: Against::Others }
    }

    /// Whether the other side are Servers that were restarted for the comparison.
    pub(super) fn is_baseline(&self) -> bool {
        self.against == Against::Baseline
    }

    /// That nobody is left to compare with; none if somebody is, or if that is told by what was measured.
    pub(super) fn nobody(&self) -> Option<String> {
        let is_gone = self.is_baseline() && self.baseline.is_empty();
        is_gone.then(|| {
            "no Server is left that was restarted as a baseline: request Promote or Abort (spec.rollout.request)"
                .to_owned()
        })
    }

    /// What is said of the other side where nothing was measured.
    pub(super) fn others(&self) -> &'static str {
        if self.is_baseline() { "of the baseline" } else { "with another version" }
    }

    /// How messages name the other side.
    pub(super) fn which(&self) -> String {
        match self.against {
            Against::Others => "with another one".to_owned(),
            Against::OthersInstead(why) => format!("with another one (there is no baseline: {why})"),
            Against::Baseline => {
                let names = self.baseline.iter().take(NAMES).copied().collect::<Vec<_>>().join(", ");
                let more = self.baseline.len().saturating_sub(NAMES);
                let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                format!("of the baseline ({names}{more})")
            }
        }
    }
}

#[cfg(test)]
#[path = "sides_tests.rs"]
mod tests;
