//! Servers whose machine is to be another one: they are replaced, if the update strategy allows it.
//!
//! The arithmetic is that of Kubernetes' Deployment: never more Servers than `replicas` + `maxSurge`, never fewer
//! available than `replicas` - `maxUnavailable`, and as many old ones less as keep that true even if none of the new
//! ones that are not available yet ever becomes so.

use std::collections::HashSet;

use berth_core::{
    api::{Server, UpdateType, VMReplicaSet},
    budget::{self, Axis, Budget, Entry, Roll, name},
};
use k8s_openapi::jiff::Timestamp;

use super::{
    environment,
    pace::Pacer,
    plan::{Effect, Obstacle},
};

/// How many machines are to be replaced, and with how much room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replacing {
    /// Servers with another machine than the template's, that are not being retired.
    pub old: usize,
    /// Of these, to be replaced: not those that the partition keeps.
    pub wanted: usize,
    /// Servers beyond `replicas` that may be there because of it.
    pub surge: usize,
    /// Whether nothing is to be begun.
    pub is_held: bool,
    /// Whether it can never begin, because there may be neither one Server more nor one less.
    is_stuck: bool,
}

impl Replacing {
    /// What a set has to replace; nothing if its strategy does not allow it.
    #[must_use]
    pub fn of(set: &VMReplicaSet, servers: &[&Server], ledger: &[String], is_held: bool) -> Self {
        let strategy = &set.spec.update_strategy;
        if strategy.type_ != UpdateType::Replace {
            return Self { is_held, ..Self::default() };
        }
        let budget = Budget::of(set);
        let staying = staying(servers, ledger);
        let old = staying.iter().filter(|s| environment::has_other_machine(set, s)).count();
        if old == 0 {
            return Self { is_held, ..Self::default() };
        }
        let updated = staying.iter().filter(|s| environment::is_updated(set, s)).count();
        let wanted = staying.len().saturating_sub(budget.partition).saturating_sub(updated).min(old);
        let max_surge = budget::max_surge(strategy, set.spec.replicas);
        let is_stuck = wanted > 0 && max_surge == 0 && budget.max_unavailable == 0 && budget.replicas > 0;
        Self { old, wanted, surge: max_surge.min(wanted), is_held, is_stuck }
    }

    pub(super) fn obstacle(&self) -> Option<Obstacle> {
        self.is_stuck.then(|| Obstacle {
            effect: Effect::Stalls,
            reason: "NoRoomToReplace".to_owned(),
            message: format!(
                "{} machines are to be replaced, but updateStrategy allows neither one Server more (maxSurge) nor one less \
                 (maxUnavailable): raise one of them",
                self.wanted
            ),
        })
    }
}

/// The Servers that count and are not on their way out.
pub(super) fn staying<'a>(servers: &[&'a Server], ledger: &[String]) -> Vec<&'a Server> {
    let leaving: HashSet<String> =
        budget::entered(ledger, Axis::Retirement).chain(budget::entered(ledger, Axis::Replacement)).collect();
    servers.iter().copied().filter(|s| budget::is_active(s) && !leaving.contains(name(s))).collect()
}

/// Plans which old Servers are retired next. Those that are not Ready go first.
#[must_use]
pub fn plan<'a>(
    set: &VMReplicaSet,
    servers: &[&'a Server],
    ledger: &[String],
    replacing: &Replacing,
    pacer: &mut Pacer,
    now: Timestamp,
) -> Roll<'a> {
    // Entered before, and not retired yet.
    let left = budget::entered_servers(servers, ledger, Axis::Replacement);
    let mut touch = pacer.admit(left);
    let mut ledger = ledger.to_vec();
    // Anew: of the old ones, some may have been surplus.
    let replacing = Replacing::of(set, servers, &ledger, replacing.is_held);
    if replacing.wanted > 0 && !replacing.is_held {
        let next = next(set, &staying(servers, &ledger), &ledger, replacing.wanted, pacer, now);
        ledger.extend(next.iter().map(|s| Entry::new(name(s), Axis::Replacement).to_string()));
        touch.extend(next);
    }
    Roll { ledger, touch }
}

fn next<'a>(
    set: &VMReplicaSet,
    staying: &[&'a Server],
    ledger: &[String],
    wanted: usize,
    pacer: &mut Pacer,
    now: Timestamp,
) -> Vec<&'a Server> {
    let budget = Budget::of(set);
    let is_of_use = |server: &Server| budget::undisturbed(&[server], ledger, budget, now) > 0;
    let least = budget.replicas.saturating_sub(budget.max_unavailable);
    let lost: HashSet<String> = budget::entered(ledger, Axis::Failover).collect();
    let (mut old, new): (Vec<&Server>, Vec<&Server>) =
        staying.iter().partition(|s| environment::has_other_machine(set, s));
    old.retain(|s| !lost.contains(name(s)));
    let unproven = new.iter().filter(|s| !budget::is_available(s, budget.min_ready_seconds, now)).count();
    let mut total = staying.len().saturating_sub(least).saturating_sub(unproven).min(wanted);
    let mut serving = budget::undisturbed(staying, ledger, budget, now).saturating_sub(least);
    if total == 0 {
        return Vec::new();
    }
    old.sort_by_cached_key(|s| {
        let created = s.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (budget::is_ready(s), is_of_use(s), created, name(s).to_owned())
    });
    let mut next: Vec<&Server> = Vec::new();
    for server in old {
        let costs = is_of_use(server);
        if total == 0 || costs && serving == 0 {
            break;
        }
        // Those that follow are Ready, too.
        let Some(server) = pacer.admit(vec![server]).pop() else { break };
        total -= 1;
        serving -= usize::from(costs);
        next.push(server);
    }
    next
}
