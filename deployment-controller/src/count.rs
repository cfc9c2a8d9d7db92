//! How many Servers have the newest application, and how they get on with it.

use berth_core::{
    api::{App, Server, State, TaskKind, VMDeployment},
    budget::Budget,
    conditions::{self, STALLED},
};
use k8s_openapi::jiff::Timestamp;

use crate::replica_set::newest_app;

/// The active Servers of a VMDeployment, counted by what the roll-out of its newest application has achieved on each.
#[derive(Clone, Debug)]
pub(crate) struct RolloutCount<'a> {
    /// The newest application.
    pub(crate) newest: App,
    /// The budget.
    pub(crate) budget: Budget,
    /// Servers that count for the set.
    pub(crate) active: usize,
    /// Servers that declare another application. One that was restarted as a baseline of it has the same.
    pub(crate) old: Vec<&'a Server>,
    /// How many the roll-out may still give the newest application: not those that the partition keeps or a person has forced.
    pub(crate) left: usize,
    /// Servers that run the newest application in good health.
    pub(crate) healthy: usize,
    /// Of these, the available ones.
    pub(crate) proven: usize,
    /// Servers on which it is being deployed, or has yet to prove itself.
    pub(crate) under_way: usize,
    /// Servers on which its deployment failed, or on which it was not healthy in time, with the reason.
    pub(crate) failed: Vec<(&'a str, String)>,
}

/// How one Server gets on with the newest application.
pub(crate) enum Progress {
    /// It is available.
    Proven,
    /// It is being deployed, or has yet to prove itself.
    UnderWay,
    /// Its deployment failed, or it was not healthy in time, for this reason.
    Failed(String),
    /// The application is not why it is unavailable: its machine is away or being prepared, or a person has forced it.
    OutOfAction,
}

impl<'a> RolloutCount<'a> {
    /// Counts these Servers.
    pub(crate) fn of(deployment: &VMDeployment, servers: &[&'a Server], now: Timestamp) -> Self {
        let newest = newest_app(deployment);
        let active: Vec<&Server> = servers.iter().copied().filter(|server| server.is_active()).collect();
        let (updated, old): (Vec<&Server>, Vec<&Server>) =
            active.iter().partition(|server| server.spec.app.as_ref().is_some_and(|app| app.is_as_wanted(&newest)));
        let budget = Budget::of_deployment(deployment);
        let wanted = active.len().saturating_sub(budget.partition).saturating_sub(updated.len());
        let mut count = Self {
            newest,
            budget,
            active: active.len(),
            left: old.iter().filter(|server| !server.is_forced()).count().min(wanted),
            old,
            healthy: updated.iter().filter(|server| server.is_ready()).count(),
            proven: 0,
            under_way: 0,
            failed: Vec::new(),
        };
        for server in updated {
            match progress(server, budget.min_ready_seconds, now) {
                Progress::Proven => count.proven += 1,
                Progress::UnderWay => count.under_way += 1,
                Progress::Failed(reason) => count.failed.push((server.name(), reason)),
                Progress::OutOfAction => {}
            }
        }
        count
    }

    /// How many Servers declare the newest application.
    pub(crate) fn updated(&self) -> usize {
        self.active - self.old.len()
    }

    /// How many Servers will have the newest application: all but those that the partition keeps.
    pub(crate) fn target(&self) -> usize {
        self.active.saturating_sub(self.budget.partition).max(self.updated())
    }

    /// Whether the newest application has proven itself: it is declared wherever the roll-out may declare it, and no more of
    /// these Servers are unavailable than the budget allows. A set of no Servers has nothing to prove.
    pub(crate) fn is_proven(&self) -> bool {
        let enough = self.updated().saturating_sub(self.budget.max_unavailable).max(1);
        self.left == 0 && (self.proven >= enough || self.budget.replicas == 0 && self.active == 0)
    }

    /// Whether nothing is left to be done or awaited: also where the partition keeps every Server.
    pub(crate) fn is_settled(&self) -> bool {
        let is_kept_whole = self.left == 0 && self.updated() == 0 && self.active > 0;
        (self.is_proven() || is_kept_whole) && self.under_way == 0
    }

    /// Whether every Server that the partition does not keep is available with the newest application.
    pub(crate) fn is_complete(&self) -> bool {
        self.old.len() <= self.budget.partition && self.proven == self.updated()
    }
}

/// How this Server gets on with the newest application, which it declares.
pub(crate) fn progress(server: &Server, min_ready_seconds: i32, now: Timestamp) -> Progress {
    if server.is_forced() {
        return Progress::OutOfAction;
    }
    match server.state() {
        _ if server.is_available(min_ready_seconds, now) => Progress::Proven,
        Some(State::Ready) => Progress::UnderWay,
        Some(State::Deploying) => failure(server).map_or(Progress::UnderWay, Progress::Failed),
        Some(State::Initializing | State::Unknown | State::Offline) | None => Progress::OutOfAction,
    }
}

/// Why the newest application has failed on this Server; none if it has not, or if it is to be tried again.
fn failure(server: &Server) -> Option<String> {
    // The condition is quick to read; which tasks have failed is worked out only where it is True.
    conditions::get_true(&server.status.as_ref()?.conditions, STALLED)?;
    let failures = server.blocking_failures();
    let failed = failures.iter().find(|task| matches!(task.kind, TaskKind::DeployApp | TaskKind::CheckHealth))?;
    // Health that was not proven before the newest application is deployed says nothing about it, but about the one before.
    let mut tasks = server.status.iter().flat_map(|status| &status.tasks);
    if tasks.any(|task| task.kind == TaskKind::DeployApp && task.id > failed.id) {
        return None;
    }
    server.is_observed().then(|| format!("{} failed: {}", failed.kind, failed.message))
}
