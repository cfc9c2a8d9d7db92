//! One zone at a time: which zone the roll-out may update now. Pure.
//!
//! Everything follows from the Servers and the ledger, so that every copy of the controller says the same and nothing has to be remembered: a
//! zone is touched as soon as one of its Servers has the new version or was entered to get it, and at rest when all of those have been well
//! for the time that is declared.

use std::collections::{HashMap, HashSet};

use berth_core::api::{Server, VMDeployment};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::{
    choice::Choice,
    count::{Progress, RolloutCount, progress},
    steps,
};

/// The zones of a VMDeployment, in the order in which they have their turn.
#[derive(Clone, Debug)]
pub(crate) struct Zones<'a> {
    all: Vec<Zone<'a>>,
    key: &'a str,
    max_unavailable: usize,
    now: Timestamp,
}

#[derive(Clone, Debug, Default)]
struct Zone<'a> {
    name: &'a str,
    /// Servers that the roll-out may still update.
    left: usize,
    /// Servers that have the new version or were restarted to compare it with them, or were entered for that.
    touched: usize,
    /// Those that were restarted.
    restarted: usize,
    under_way: usize,
    well: usize,
    failed: usize,
    /// When the last of them became well, and has been so for long enough.
    baked_at: Option<Timestamp>,
}

/// Whether a zone that was touched lets another one have its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    /// It does.
    Now,
    /// It will at this time, unless something happens.
    At(Timestamp),
    /// Not before its Servers are well.
    Unwell,
}

impl<'a> Zones<'a> {
    /// The zones; none if their order does not matter. `entered`: names of the Servers that stand in the ledger for new code. The stable
    /// version and the first one go everywhere at once.
    pub(crate) fn of(
        deployment: &'a VMDeployment,
        count: &RolloutCount<'_>,
        choice: &Choice<'a>,
        entered: &HashSet<&str>,
        now: Timestamp,
    ) -> Option<Self> {
        let spread = deployment.spec.rollout.spread.as_ref()?;
        if steps::needs_no_steps(deployment, count) && !steps::is_restart(deployment, count) {
            return None;
        }
        let (key, bake) = (spread.topology_key.as_str(), SignedDuration::from_secs(i64::from(spread.bake_seconds)));
        let mut zones: Vec<Zone<'a>> = Vec::new();
        let mut found: HashMap<&str, usize> = HashMap::new();
        for server in choice.order.iter().filter(|server| server.is_active()) {
            let name = zone_of(server, key);
            let index = *found.entry(name).or_insert(zones.len());
            if index == zones.len() {
                zones.push(Zone { name, ..Zone::default() });
            }
            let Some(zone) = zones.get_mut(index) else { continue };
            let is_restarted = choice.is_restarted(server);
            if is_restarted || !server.spec.app.as_ref().is_some_and(|app| app.is_as_wanted(&count.newest)) {
                let is_left = choice.is_left(server);
                zone.left += usize::from(is_left);
                let is_about_to_change = entered.contains(server.name()) && (is_left || !is_restarted);
                if is_about_to_change || !is_restarted {
                    zone.touched += usize::from(is_about_to_change);
                    zone.under_way += usize::from(is_about_to_change);
                    continue;
                }
            }
            zone.touched += 1;
            zone.restarted += usize::from(is_restarted);
            match progress(server, count.budget.min_ready_seconds, now) {
                Progress::Proven => {
                    zone.well += 1;
                    let well_since = server.available_at(count.budget.min_ready_seconds);
                    zone.baked_at = zone.baked_at.max(well_since.and_then(|since| since.checked_add(bake).ok()));
                }
                Progress::UnderWay => zone.under_way += 1,
                Progress::Failed(_) => zone.failed += 1,
                // A machine that is away holds up no other zone: the budget counts it.
                Progress::OutOfAction => {}
            }
        }
        Some(Self { all: zones, key, max_unavailable: count.budget.max_unavailable, now })
    }

    /// Which Servers the roll-out may update now, as far as zones go.
    pub(crate) fn is_open(&self) -> impl Fn(&Server) -> bool {
        let open = self.open().map(|zone| zone.name);
        move |server| open.is_some_and(|name| name == zone_of(server, self.key))
    }

    /// The zone that has its turn: one that was begun comes before the others.
    fn open(&self) -> Option<&Zone<'a>> {
        let restless: Vec<&Zone<'a>> = self.all.iter().filter(|zone| self.rest(zone) != Rest::Now).collect();
        let may = |zone: &&Zone<'a>| zone.left > 0 && restless.iter().all(|other| other.name == zone.name);
        let begun = self.all.iter().filter(|zone| zone.touched > 0).find(may);
        begun.or_else(|| self.all.iter().find(may))
    }

    /// The place of a Server's zone in the row in which zones have their turn: first the one that has it, then those that were begun.
    pub(crate) fn place(&self) -> impl Fn(&Server) -> usize {
        let open = self.open().map(|zone| zone.name);
        let mut row: Vec<&Zone<'a>> = self.all.iter().collect();
        row.sort_by_key(|zone| (Some(zone.name) != open, zone.touched == 0));
        let places: HashMap<&str, usize> = row.iter().enumerate().map(|(place, zone)| (zone.name, place)).collect();
        move |server| places.get(zone_of(server, self.key)).copied().unwrap_or(usize::MAX)
    }

    fn rest(&self, zone: &Zone<'_>) -> Rest {
        let in_action = zone.well + zone.failed;
        let enough = in_action.saturating_sub(self.max_unavailable).max(1).min(in_action);
        if zone.under_way > 0 || zone.well < enough {
            return Rest::Unwell;
        }
        zone.baked_at.filter(|at| *at > self.now).map_or(Rest::Now, Rest::At)
    }

    /// The zone that keeps every other one from having its turn, if Servers are left to be updated.
    fn blocking(&self) -> Option<(&Zone<'a>, Rest)> {
        let is_blocked = self.open().is_none() && self.all.iter().any(|zone| zone.left > 0);
        let resting = self.all.iter().map(|zone| (zone, self.rest(zone)));
        // The latest end of a bake is the one that counts.
        resting.filter(|(_, rest)| is_blocked && *rest != Rest::Now).max_by_key(|(_, rest)| match rest {
            Rest::Now => (0, None),
            Rest::At(at) => (1, Some(*at)),
            Rest::Unwell => (2, None),
        })
    }

    /// When the next zone has its turn, if nothing but time is waited for.
    pub(crate) fn next_turn(&self) -> Option<Timestamp> {
        match self.blocking()? {
            (_, Rest::At(at)) => Some(at),
            (_, Rest::Now | Rest::Unwell) => None,
        }
    }

    /// What the next zone waits for; none if one has its turn, or none is left.
    pub(crate) fn waiting_for(&self, revision: &str) -> Option<String> {
        let (zone, rest) = self.blocking()?;
        let name =
            if zone.name.is_empty() { format!("the zone without {}", self.key) } else { format!("zone {}", zone.name) };
        Some(match rest {
            Rest::At(at) => format!("{name}: bakes until {at}, before another zone has its turn"),
            Rest::Now | Rest::Unwell => format!(
                "{name}: {} of {} Servers are well with revision {revision}{}; no other zone has its turn before",
                zone.well,
                zone.touched,
                if zone.restarted > 0 { ", or restarted as a baseline" } else { "" },
            ),
        })
    }
}

fn zone_of<'a>(server: &'a Server, key: &str) -> &'a str {
    server.metadata.labels.as_ref().and_then(|labels| labels.get(key)).map_or("", String::as_str)
}

#[cfg(test)]
#[path = "zones_tests.rs"]
mod tests;
