//! Which Servers get the new version's artifact ahead of their turn. Pure.

use std::collections::HashSet;

use berth_core::{
    api::{App, Axis, Server},
    budget::Budget,
    ledger::Ledger,
};

use crate::{count::RolloutCount, hold::hold, observed::ObservedDeployment, rollout, steps};

/// The artifact that is brought ahead, and the Servers that it is brought to.
#[derive(Clone, Debug)]
pub(crate) struct Ahead<'a> {
    /// The application that is rolled out.
    pub(crate) app: App,
    /// The Servers that come next, in their order. Where it is already, nothing is left to be done.
    pub(crate) servers: Vec<&'a Server>,
    /// The Servers whose turn has come and that are not worked on yet, because their traffic is being held: what is on its way to them may
    /// still arrive in time.
    pub(crate) drained: Vec<&'a Server>,
}

/// What is brought ahead; none while nothing may be: none is asked for, nothing is rolled out, or something holds it.
pub(crate) fn ahead<'a>(observed: &ObservedDeployment<'a>) -> Option<Ahead<'a>> {
    let ObservedDeployment { deployment, servers, missing_content, now, .. } = *observed;
    let at_most = Budget::stage_ahead(deployment);
    let ledger = Ledger::of(observed.own_set()?);
    let count = RolloutCount::of(deployment, servers, now);
    if needs_none(observed, &count) {
        return None;
    }
    // Before the status says how far it is, it is not known what holds it.
    let progress = steps::recorded(deployment, &count.newest)?;
    if hold(deployment, &count, missing_content, Some(progress), now).is_some() {
        return None;
    }
    let disturbed = others_of(&ledger);
    let next = rollout::upcoming(observed, &count).into_iter();
    let next: Vec<&Server> = next.filter(|server| may_stage(server, &disturbed)).take(at_most).collect();
    let next = next.into_iter().filter(|server| !has_release(server, &count.newest)).collect();
    let drained = servers.iter().copied().filter(|server| is_drained(server, &ledger)).collect();
    Some(Ahead { app: count.newest, servers: next, drained })
}

/// Names of the Servers that are updated only when the artifact is there, in order: all that it is brought to sooner or later, without those
/// of which it `is_known` that it is there, or that it could not be brought.
pub(crate) fn awaited(observed: &ObservedDeployment<'_>, is_known: impl Fn(&Server) -> bool) -> Vec<String> {
    let count = RolloutCount::of(observed.deployment, observed.servers, observed.now);
    let Some(set) = observed.own_set().filter(|_| !needs_none(observed, &count)) else { return Vec::new() };
    let ledger = Ledger::of(set);
    let disturbed = others_of(&ledger);
    let is_awaited =
        |server: &&Server| may_stage(server, &disturbed) && !has_release(server, &count.newest) && !is_known(server);
    let upcoming = rollout::upcoming(observed, &count).into_iter().filter(is_awaited);
    let mut names: Vec<String> = upcoming.map(|server| server.name().to_owned()).collect();
    names.sort_unstable();
    names
}

/// Whether nothing is ever brought ahead: it is not asked for, or what is done to Servers needs no artifact.
fn needs_none(observed: &ObservedDeployment<'_>, count: &RolloutCount<'_>) -> bool {
    let deployment = observed.deployment;
    let progress = steps::recorded(deployment, &count.newest);
    Budget::stage_ahead(deployment) == 0
        || count.newest.deploy_class().is_some()
        || steps::is_restart(deployment, count)
        || progress.is_some_and(|progress| progress.aborted.is_some() || progress.undone.is_some())
}

fn is_drained(server: &Server, ledger: &Ledger) -> bool {
    let is_entered = ledger.on(Axis::App).any(|name| name == server.name());
    is_entered && server.is_active() && !server.is_forced() && server.lock().is_none()
}

/// Names of the Servers that are entered for something else than their application. Whoever is entered for the application and still serves
/// the old one is not worked on yet: the entry may be left from the version before.
fn others_of(ledger: &Ledger) -> HashSet<&str> {
    ledger.iter().filter(|entry| entry.axis != Axis::App).map(|entry| entry.server.as_str()).collect()
}

/// Whether the Server serves, and nobody works on its machine or is about to.
fn may_stage(server: &Server, disturbed: &HashSet<&str>) -> bool {
    is_fit(server) && !disturbed.contains(server.name())
}

/// Whether an artifact may be brought to the Server as it is.
pub(crate) fn is_fit(server: &Server) -> bool {
    server.is_ready() && !server.is_forced() && server.address().is_some() && server.lock().is_none()
}

/// Whether the application that the Server has was made of the same artifact, as it is when only its configuration changes.
fn has_release(server: &Server, newest: &App) -> bool {
    server.spec.app.as_ref().is_some_and(|app| {
        let (known, wanted) = (&app.artifact, &newest.artifact);
        (&known.sha256, known.format, &app.name) == (&wanted.sha256, wanted.format, &newest.name)
            && app.effective_revision() == newest.effective_revision()
    })
}

#[cfg(test)]
#[path = "planner_tests.rs"]
mod tests;
