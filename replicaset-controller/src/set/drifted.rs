//! Servers that are not what was read back from them any more: repaired within the budget.

use std::collections::{HashMap, HashSet};

use berth_core::{
    api::{Server, VMReplicaSet},
    budget::{self, Axis, Budget, Entry, Roll, name},
};

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::plan::Facts;

/// What finds and reports drift.
pub trait Drifts: Send + Sync {
    /// Whether a check has found that the machine of this Ready Server differs from what was read from it last.
    fn is_drifted(&self, server: &Server) -> bool;
    /// Reads the machine again, in the background, and reports what still differs: the Server is repaired then.
    fn report(&self, server: &Server);
}

/// Nobody looks for drift.
#[derive(Clone, Copy, Debug)]
pub struct NoDrifts;

impl Drifts for NoDrifts {
    fn is_drifted(&self, _: &Server) -> bool {
        false
    }

    fn report(&self, _: &Server) {}
}

/// Which Servers of a set are drifted, as far as this process knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Names of the Ready Servers of which is known that they are.
    pub drifted: HashSet<String>,
    /// Names of Ready Servers that stand in the ledger although this process knows of no drift: another one does, or one
    /// that died. They stay there until they were repaired or have had the time for it.
    pub unsure: HashSet<String>,
    /// Names of those that were asked to be reported and are not to be so again yet.
    pub asked: HashSet<String>,
}

/// How long a Server of which nothing more becomes known stays in the ledger, as whoever entered it may be reading its
/// machine at the moment.
const GRACE: SignedDuration = SignedDuration::from_secs(120);
/// How long a report may take before it is asked for again.
const AGAIN: SignedDuration = SignedDuration::from_secs(30);

/// What was seen of the Servers that stand in the ledger for drift. Nothing is lost with it but time.
#[derive(Debug, Default)]
pub struct Seen(HashMap<String, Since>);

#[derive(Debug)]
struct Since {
    first: Timestamp,
    was_out: bool,
    asked: Option<Timestamp>,
}

impl Since {
    fn new(now: Timestamp) -> Self {
        Self { first: now, was_out: false, asked: None }
    }
}

impl Seen {
    /// What is known now. To be asked before the set and its Servers are read: who reports a drift forgets it only after the
    /// Server was made not Ready.
    pub fn look(
        &mut self,
        set: &VMReplicaSet,
        servers: &[&Server],
        now: Timestamp,
        is_drifted: impl Fn(&Server) -> bool,
    ) -> Known {
        let ledger = set.status.as_ref().map(|status| status.disturbed.as_slice()).unwrap_or_default();
        let ready = servers.iter().filter(|s| budget::is_ready(s));
        let drifted = ready.filter(|s| is_drifted(s)).map(|s| name(s).to_owned()).collect();
        let mut known = Known { drifted, ..Known::default() };
        let entered: HashSet<String> = budget::entered(ledger, Axis::Drift).collect();
        self.0.retain(|name, _| entered.contains(name));
        if entered.is_empty() {
            return known;
        }
        for server in servers.iter().filter(|s| entered.contains(name(s))) {
            let name = name(server);
            let since = self.0.entry(name.to_owned()).or_insert_with(|| Since::new(now));
            if !budget::is_ready(server) {
                since.was_out = true;
            } else if known.drifted.contains(name) {
                *since = Since { asked: since.asked.filter(|at| now.duration_since(*at) < AGAIN), ..Since::new(now) };
            } else if !since.was_out && now.duration_since(since.first) < GRACE {
                known.unsure.insert(name.to_owned());
            }
            if since.asked.is_some() {
                known.asked.insert(name.to_owned());
            }
        }
        known
    }

    /// Notes that the Server's drift was asked to be reported.
    pub fn ask(&mut self, server: &str, now: Timestamp) {
        self.0.entry(server.to_owned()).or_insert_with(|| Since::new(now)).asked = Some(now);
    }

    /// When there is something to look at again although nothing happens.
    #[must_use]
    pub fn wake(&self, known: &Known) -> Option<Timestamp> {
        let unsure = known.unsure.iter().filter_map(|name| self.0.get(name)?.first.checked_add(GRACE).ok());
        let asked = known.drifted.iter().filter_map(|name| self.0.get(name)?.asked?.checked_add(AGAIN).ok());
        unsure.chain(asked).min()
    }
}

/// Plans which drifted Servers are reported next. An entry leaves when its Server is Ready and not drifted.
#[must_use]
pub fn plan<'a>(set: &VMReplicaSet, servers: &[&'a Server], ledger: &[String], facts: Facts<'_>) -> Roll<'a> {
    let Known { drifted, unsure, asked } = facts.drift;
    let is_drifted = |server: &Server| drifted.contains(name(server));
    let is_to_report = |server: &Server| is_drifted(server) || unsure.contains(name(server));
    let mut ledger =
        budget::without(servers, ledger, Axis::Drift, |server| !budget::is_ready(server) || is_to_report(server));
    if !drifted.is_empty() {
        let budget = Budget::of(set);
        let room = budget.max_unavailable.saturating_sub(budget::unavailable(servers, &ledger, budget, facts.now));
        let next: Vec<String> = {
            // What is being changed on it anyhow may mend it, or takes it away.
            let busy: HashSet<&str> = ledger.iter().filter_map(|line| line.split('/').next()).collect();
            let free = servers.iter().filter(|s| budget::is_ready(s) && is_drifted(s) && !busy.contains(name(s)));
            free.take(room).map(|s| Entry::new(name(s), Axis::Drift).to_string()).collect()
        };
        ledger.extend(next);
    }
    let entered = budget::entered_servers(servers, &ledger, Axis::Drift).into_iter();
    let touch = entered.filter(|s| budget::is_ready(s) && is_to_report(s) && !asked.contains(name(s))).collect();
    Roll { ledger, touch }
}
