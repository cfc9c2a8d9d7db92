//! The roll-out of the template's environment.

use berth_core::{
    api::{Server, VMReplicaSet},
    budget::{self, Axis, Budget, Pace, Roll, name},
    conditions,
};
use k8s_openapi::jiff::Timestamp;

use super::{
    environment, members,
    pace::Pacer,
    plan::{Effect, Obstacle},
    status::STALLED,
};

/// Reason: more Servers than `maxFailed` are Stalled with the new template.
pub const TOO_MANY_FAILED: &str = "TooManyFailed";

/// Names in a message.
const NAMED: usize = 5;

/// Plans the roll-out: which Servers get the template's environment next. Those whose machine is to be replaced get it
/// with their successors.
#[must_use]
pub fn plan<'a>(
    set: &VMReplicaSet,
    servers: &[&'a Server],
    ledger: &[String],
    pacer: &mut Pacer,
    hold: bool,
    now: Timestamp,
) -> Roll<'a> {
    let outdated = |server: &Server| environment::is_to_change_in_place(set, server);
    let entered = budget::entered_servers(servers, ledger, Axis::Environment);
    let is_idle = budget::entered(ledger, Axis::Environment).next().is_none();
    if is_idle && !servers.iter().any(|s| budget::is_active(s) && outdated(s)) {
        return Roll { ledger: ledger.to_vec(), touch: Vec::new() };
    }
    let is_left = |server: &&Server| budget::is_ready(server) && outdated(server);
    let pace = match (hold, entered.iter().any(is_left)) {
        (true, _) => Pace::Hold,
        // Those that were entered before and not touched have their turn first.
        (false, true) if pacer.is_slow() => Pace::Ready(0),
        (false, _) => pacer.pace(),
    };
    let mut oldest_first = servers.to_vec();
    oldest_first.sort_by(|a, b| age(a).cmp(&age(b)));
    let roll = budget::roll_at_pace(&oldest_first, ledger, Budget::of(set), now, Axis::Environment, pace, outdated);
    let touch = pacer.admit(roll.touch);
    if pacer.is_slow() && !hold && servers.iter().any(|s| budget::is_ready(s) && outdated(s)) {
        pacer.wait();
    }
    Roll { touch, ledger: roll.ledger }
}

/// Why the roll-out begins nothing more, if too many of the Servers that have the new template are Stalled.
#[must_use]
pub fn too_many_failed(set: &VMReplicaSet, servers: &[&Server]) -> Option<Obstacle> {
    let max = usize::try_from(set.spec.update_strategy.max_failed?).unwrap_or(0);
    let active = || servers.iter().filter(|s| budget::is_active(s));
    let failed: Vec<(&str, &str)> = active()
        .filter(|s| budget::is_observed(s) && environment::is_updated(set, s))
        .filter_map(|s| Some((name(s), stalled(s)?)))
        .collect();
    if failed.len() <= max || active().all(|s| !environment::is_to_change(set, s)) {
        return None;
    }
    let (first, why) = failed.first()?;
    let named = members::listed(failed.iter().map(|(name, _)| *name), NAMED);
    let message = format!(
        "{} Servers are stalled with the new template, at most {max} may be (updateStrategy.maxFailed): {named}; {first}: {why}",
        failed.len(),
    );
    Some(Obstacle { effect: Effect::Holds, reason: TOO_MANY_FAILED.to_owned(), message })
}

fn stalled(server: &Server) -> Option<&str> {
    let condition = conditions::get(&server.status.as_ref()?.conditions, STALLED)?;
    (condition.status == "True").then_some(condition.message.as_str())
}

fn age(server: &Server) -> (Option<Timestamp>, &str) {
    (server.metadata.creation_timestamp.as_ref().map(|time| time.0), name(server))
}
