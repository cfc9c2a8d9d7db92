//! What must never happen in a roll-out, whatever has happened before: asserted at each move of a random one.

use berth_core::api::{App, Server, State, VMDeployment};
use k8s_openapi::{
    apimachinery::pkg::util::intstr::IntOrString,
    jiff::{SignedDuration, Timestamp},
};

/// The label of a Server's zone.
pub(crate) const ZONE: &str = "zone";

/// What is restarted as a baseline is stable and well, has not been restarted for it before, and the mark is that of the present
/// attempt, which is not aborted and is at such a step.
pub(crate) fn assert_baseline(servers: &[Server], wanted: &VMDeployment, app: &App, names: &[String]) {
    let status = wanted.status.as_ref().unwrap();
    let progress = status.rollout.as_ref().unwrap();
    assert!(progress.aborted.is_none() && status.stable_app.as_ref().is_some_and(|stable| stable.is_same_code(app)));
    assert_eq!(progress.baseline.as_ref().map(|known| &known.mark), app.baseline.as_ref());
    let step = usize::try_from(progress.steps_done).unwrap();
    let asked = wanted.spec.rollout.steps[step].baseline.as_ref().unwrap();
    let is_marked = |server: &&Server| server.spec.app.as_ref().unwrap().baseline == app.baseline;
    for server in servers.iter().filter(|server| names.iter().any(|name| name == server.name())) {
        assert!(!is_marked(&server) && server.spec.app.as_ref().unwrap().is_same_code(app), "{}", server.name());
        assert!(server.is_ready() && !server.is_forced(), "{} is disturbed", server.name());
    }
    // Of those that count, never more than are asked for.
    let counts =
        |server: &&Server| is_marked(server) && !matches!(server.state(), Some(State::Unknown | State::Initializing));
    let there = servers.iter().filter(counts).filter(|server| !server.is_forced()).count();
    assert!(there + names.len() <= usize::try_from(number(&asked.servers)).unwrap(), "{there} and {names:?}");
}

/// With a spread, the Servers that are updated now are of one zone, and in all others those that have the new application have been
/// well for long enough, have failed, or are away.
pub(crate) fn assert_one_zone(
    (servers, now): (&[Server], Timestamp),
    wanted: &VMDeployment,
    newest: &App,
    names: &[String],
) {
    let Some(spread) = &wanted.spec.rollout.spread else { return };
    let zone = |server: &Server| server.metadata.labels.as_ref().and_then(|labels| labels.get(ZONE)).cloned();
    let is_named = |server: &&Server| names.iter().any(|name| name == server.name());
    let (updated, others): (Vec<_>, Vec<_>) = servers.iter().partition(is_named);
    let Some(open) = updated.first().map(|server| zone(server)) else { return };
    assert!(updated.iter().all(|server| zone(server) == open), "more than one zone at a time");
    let mark = wanted.status.as_ref().and_then(|status| status.rollout.as_ref()?.baseline.as_ref());
    let is_touched = |server: &Server| {
        let app = server.spec.app.as_ref().unwrap();
        app.is_as_wanted(newest) || app.baseline.is_some() && app.baseline.as_ref() == mark.map(|known| &known.mark)
    };
    for server in others.iter().filter(|server| zone(server) != open && is_touched(server)) {
        let since = server.status.as_ref().unwrap().state_since.as_ref().unwrap().0;
        let bakes = since + SignedDuration::from_secs(spread.bake_seconds.into()) > now;
        let is_under_way = match server.state() {
            _ if server.is_forced() => false,
            Some(State::Ready) => bakes,
            Some(State::Deploying) => server.blocking_failures().is_empty(),
            _ => false,
        };
        assert!(!is_under_way, "{open:?} has its turn, although {} is {:?}", server.name(), server.state());
    }
}

fn number(servers: &IntOrString) -> i32 {
    match servers {
        IntOrString::Int(n) => *n,
        IntOrString::String(_) => 0,
    }
}
