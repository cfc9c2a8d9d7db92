//! Rolling an application out over the Servers of a set.

use std::collections::HashSet;

use berth_core::{
    api::{App, Axis, Server, VMDeployment, VMReplicaSet},
    budget::Budget,
    fleet::{Fleet, Pace},
    ledger::Ledger,
};
use k8s_openapi::jiff::Timestamp;

use crate::{
    baseline::{self, Restarts},
    choice::Choice,
    count::RolloutCount,
    hold::hold,
    observed::ObservedDeployment,
    order::in_order,
    replica_set::newest_app,
    steps,
    zones::Zones,
};

/// The next move of a roll-out.
#[derive(Clone, Debug)]
pub(crate) struct AppUpdates<'a> {
    /// The set's ledger, as it has to be written before any Server is updated.
    pub(crate) ledger: Ledger,
    /// The application to declare: the newest one, or the stable one once the roll-out was aborted, or while it restarts a baseline.
    pub(crate) app: App,
    /// The Servers on which it is to be declared. All of them stand in the ledger.
    pub(crate) servers: Vec<&'a Server>,
}

impl AppUpdates<'_> {
    /// Whether nothing is to be written: neither the ledger of `set` nor any Server.
    pub(crate) fn is_empty(&self, set: &VMReplicaSet) -> bool {
        self.servers.is_empty() && self.ledger == Ledger::of(set)
    }
}

/// The next move of the roll-out: Servers that are Ready with the newest application leave the ledger, and as many outdated
/// ones as the budget and the current step allow are entered. An aborted roll-out goes back: the Servers that have the newest
/// application get the stable one, also while the roll-out is held, but not while something of its ConfigMaps and Secrets is missing.
pub(crate) fn next_updates<'a>(
    deployment: &VMDeployment,
    set: &VMReplicaSet,
    servers: &[&'a Server],
    missing_content: Option<&str>,
    now: Timestamp,
) -> AppUpdates<'a> {
    next_updates_except(deployment, set, servers, missing_content, &[], now)
}

/// The same, but the Servers with these names (sorted) have to wait, because the artifact is still being brought to them.
pub(crate) fn next_updates_except<'a>(
    deployment: &VMDeployment,
    set: &VMReplicaSet,
    servers: &[&'a Server],
    missing_content: Option<&str>,
    awaited: &[String],
    now: Timestamp,
) -> AppUpdates<'a> {
    let count = RolloutCount::of(deployment, servers, now);
    let known = steps::recorded(deployment, &count.newest);
    let is_held = hold(deployment, &count, missing_content, known, now).is_some();
    let pace = if is_held { Pace::Hold } else { Pace::Unlimited };
    let allowed = steps::allowed(deployment, &count);
    let budget = Budget::of_deployment(deployment);
    let mut fleet = Fleet { servers: servers.to_vec(), ledger: Ledger::of(set), budget, now };
    let stable = deployment.status.as_ref().and_then(|status| status.stable_app.clone());
    if let Some(app) = stable.filter(|_| steps::aborted(deployment, &count.newest).is_some()) {
        fleet.budget.partition = 0;
        let pace = if missing_content.is_some() { Pace::Hold } else { Pace::Unlimited };
        let order = in_order(deployment.spec.rollout.order, servers);
        let servers = fleet.roll(Axis::App, &order, pace, |server| !is_outdated(server, &count.newest));
        return AppUpdates { ledger: fleet.ledger, app, servers };
    }
    let choice = Choice::of(deployment, &count, servers, known, now);
    let zones = zones_of(deployment, &count, &choice, &fleet.ledger, now);
    let is_open = zones.as_ref().map(Zones::is_open);
    let may = |server: &Server| !choice.is_spared(server) && is_open.as_ref().is_none_or(|is_open| is_open(server));
    if let Some(restarts) = &choice.restarts {
        return restart(fleet, &count.newest, deployment, restarts, (pace, may));
    }
    let is_awaited = |server: &Server| awaited.binary_search_by(|name| name.as_str().cmp(server.name())).is_ok();
    fleet.budget.partition = budget.partition.max(count.active.saturating_sub(allowed));
    let app = count.newest;
    let servers = fleet.roll_within(
        Axis::App,
        &choice.order,
        pace,
        |server| is_outdated(server, &app),
        |server| may(server) && !is_awaited(server),
    );
    AppUpdates { ledger: fleet.ledger, app, servers }
}

/// The Servers that the roll-out takes next, after those that it works on, in the order in which it takes them, whatever the budget, the
/// current step and a zone that bakes say today. Without those that the partition keeps.
pub(crate) fn upcoming<'a>(observed: &ObservedDeployment<'a>, count: &RolloutCount<'a>) -> Vec<&'a Server> {
    let ObservedDeployment { deployment, servers, now, .. } = *observed;
    let ledger = observed.set.map(Ledger::of).unwrap_or_default();
    let entered: HashSet<&str> = ledger.on(Axis::App).collect();
    let choice = Choice::of(deployment, count, servers, steps::recorded(deployment, &count.newest), now);
    let zones = zones_of(deployment, count, &choice, &ledger, now);
    let place = zones.as_ref().map(Zones::place);
    let left = choice.order.iter().copied().filter(|server| server.is_active() && !server.is_forced());
    let (taken, mut next): (Vec<&Server>, Vec<&Server>) = left
        .filter(|server| is_outdated(server, &count.newest))
        .partition(|server| entered.contains(server.name()) && !server.is_ready());
    // Those that serve nothing come first, and those that were restarted as a baseline last. The sort is stable.
    let place = |server: &Server| place.as_ref().map(|place| place(server));
    next.sort_by_cached_key(|server| (choice.is_spared(server), place(server), server.is_in_service()));
    next.truncate(count.left.saturating_sub(taken.len()));
    next
}

/// The next restarts as a baseline, which go from Server to Server as new code does.
fn restart<'a>(
    mut fleet: Fleet<'a>,
    newest: &App,
    deployment: &VMDeployment,
    restarts: &Restarts<'a>,
    (pace, may): (Pace, impl Fn(&Server) -> bool),
) -> AppUpdates<'a> {
    let known = steps::recorded(deployment, newest).and_then(|progress| progress.baseline.as_ref());
    let app = known.and_then(|known| baseline::app(deployment, newest, known).ok());
    let names: HashSet<&str> = restarts.candidates.iter().map(|server| server.name()).collect();
    let left = if app.is_some() { restarts.left() } else { 0 };
    fleet.budget.partition = names.len().saturating_sub(left);
    let is_candidate = |server: &Server| names.contains(server.name());
    let others = fleet.servers.iter().copied().filter(|server| !is_candidate(server));
    let order: Vec<&Server> = restarts.candidates.iter().copied().chain(others).collect();
    let servers = fleet.roll_within(Axis::App, &order, pace, is_candidate, may);
    AppUpdates { ledger: fleet.ledger, app: app.unwrap_or_else(|| newest.clone()), servers }
}

/// The zones that the roll-out goes through; none if their order does not matter.
pub(crate) fn zones<'a>(observed: &ObservedDeployment<'a>, count: &RolloutCount<'a>) -> Option<Zones<'a>> {
    let ObservedDeployment { deployment, servers, now, .. } = *observed;
    deployment.spec.rollout.spread.as_ref()?;
    let ledger = observed.set.map(Ledger::of).unwrap_or_default();
    let known = steps::recorded(deployment, &count.newest);
    let choice = Choice::of(deployment, count, servers, known, now);
    zones_of(deployment, count, &choice, &ledger, now)
}

fn zones_of<'a>(
    deployment: &'a VMDeployment,
    count: &RolloutCount<'_>,
    choice: &Choice<'a>,
    ledger: &Ledger,
    now: Timestamp,
) -> Option<Zones<'a>> {
    let entered: HashSet<&str> = ledger.on(Axis::App).collect();
    Zones::of(deployment, count, choice, &entered, now)
}

/// The Servers that a person has forced and that the roll-out spares, if no others are left to be updated.
pub(crate) fn spared(deployment: &VMDeployment, servers: &[&Server], now: Timestamp) -> Option<String> {
    let (app, budget) = (newest_app(deployment), Budget::of_deployment(deployment));
    let fleet = Fleet { servers: servers.to_vec(), ledger: Ledger::default(), budget, now };
    let is_outdated = |server: &Server| is_outdated(server, &app);
    let outdated = fleet.active().filter(|server| is_outdated(server)).count();
    fleet.spared(is_outdated).filter(|_| outdated > budget.partition)
}

fn is_outdated(server: &Server, app: &App) -> bool {
    server.spec.app.as_ref().is_none_or(|known| !known.is_as_wanted(app))
}

#[cfg(test)]
mod tests {
    use berth_core::api::{LedgerEntry, VMReplicaSetStatus};

    use super::*;
    use crate::{
        order::PRIORITY,
        replica_set,
        testing::{deployment, now, server},
    };

    fn set(deployment: &VMDeployment, disturbed: &[LedgerEntry]) -> VMReplicaSet {
        let status = VMReplicaSetStatus { disturbed: disturbed.to_vec(), ..VMReplicaSetStatus::default() };
        VMReplicaSet { status: Some(status), ..replica_set::desired(deployment, newest_app(deployment)) }
    }

    /// Names of the Servers to update, and the ledger.
    fn updates(
        deployment: &VMDeployment,
        servers: &[Server],
        disturbed: &[LedgerEntry],
    ) -> (Vec<String>, Vec<LedgerEntry>) {
        let servers: Vec<&Server> = servers.iter().collect();
        let updates = next_updates(deployment, &set(deployment, disturbed), &servers, None, now());
        (updates.servers.iter().map(|server| server.name().to_owned()).collect(), updates.ledger.to_status())
    }

    #[test]
    fn servers_that_are_not_ready_and_then_the_oldest_are_updated_within_the_budget() {
        let newer = deployment("v2", |spec| spec["updateStrategy"] = serde_json::json!({"maxUnavailable": 2}));
        let servers = [
            server("web-0", "v1", "Ready", 50),
            server("web-1", "v1", "Ready", 90),
            server("web-2", "v1", "Deploying", 10),
        ];
        let (names, ledger) = updates(&newer, &servers, &[]);
        assert_eq!(names, ["web-2", "web-1"]);
        assert_eq!(ledger, ["web-2", "web-1"].map(|name| LedgerEntry::new(name, Axis::App)));
    }

    #[test]
    fn a_forced_server_keeps_its_application_until_the_force_ends() {
        let newer = deployment("v2", |spec| spec["updateStrategy"] = serde_json::json!({"maxUnavailable": 3}));
        let mut servers = [server("web-0", "v1", "Unknown", 50), server("web-1", "v1", "Ready", 90)];
        let force = serde_json::json!({"state": "Unknown", "reason": "disk", "by": "ann"});
        servers[0].spec.force = serde_json::from_value(force).unwrap();
        assert_eq!(updates(&newer, &servers, &[]).0, ["web-1"]);
        let entered = [LedgerEntry::new("web-0", Axis::App)];
        assert_eq!(updates(&newer, &servers, &entered).0, ["web-1"], "although it was entered before");
        assert_eq!(spared(&newer, &servers.iter().collect::<Vec<_>>(), now()), None, "others have their turn first");
        servers[1] = server("web-1", "v2", "Ready", 90);
        let note = spared(&newer, &servers.iter().collect::<Vec<_>>(), now()).unwrap();
        assert!(note.starts_with("web-0 is forced to Unknown by ann (disk)"), "{note}");
    }

    #[test]
    fn a_priority_comes_before_age() {
        let newer = deployment("v2", |spec| spec["rollout"] = serde_json::json!({"order": "Priority"}));
        let mut servers = [
            server("web-0", "v1", "Ready", 90),
            server("web-1", "v1", "Ready", 50),
            server("web-2", "v1", "Ready", 70),
        ];
        servers[1].metadata.annotations = Some([(PRIORITY.to_owned(), "5".to_owned())].into());
        assert_eq!(updates(&newer, &servers, &[]).0, ["web-1"]);
    }

    #[test]
    fn a_held_roll_out_begins_nothing_and_servers_that_are_being_updated_stay_in_the_ledger() {
        for (field, value) in [("paused", true.into()), ("rollout", serde_json::json!({"paused": true}))] {
            let held = deployment("v2", |spec| spec[field] = value);
            let servers = [server("web-0", "v1", "Ready", 90), server("web-1", "v2", "Deploying", 9)];
            let ledger = [LedgerEntry::new("web-1", Axis::App), LedgerEntry::new("x", Axis::Environment)];
            assert_eq!(updates(&held, &servers, &ledger), (vec![], ledger.to_vec()));
        }
    }
}
