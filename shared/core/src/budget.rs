//! The disruption budget of a set: which Servers may be disturbed next.
//!
//! Two controllers draw on one budget and never talk to each other. What they have begun stands in the ledger
//! (`status.disturbed` of the VMReplicaSet), entered by a write that tests `resourceVersion` before the first touch. An
//! [`Entry`] names the Server and the axis that is being changed, so that each controller takes out only what it has
//! entered itself: the other one's target is not known to it.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    str::FromStr,
};

use k8s_openapi::{
    apimachinery::pkg::util::intstr::IntOrString,
    jiff::{SignedDuration, Timestamp},
};

use crate::{
    api::{Server, State, UpdateStrategy, VMReplicaSet},
    lifecycle::gets_its_traffic,
};

/// Share of the Servers that may be unavailable when nothing is declared, in percent.
const DEFAULT_PERCENT: usize = 25;

/// What is being changed on a disturbed Server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Axis {
    /// Its environment, by replicaset-controller.
    Environment,
    /// Its code, by deployment-controller.
    App,
    /// It is being retired because the set has too many, by replicaset-controller.
    Retirement,
    /// It cannot be reached and is being replaced, by replicaset-controller.
    Failover,
    /// It is not what was read back from it any more and is being repaired, by replicaset-controller.
    Drift,
    /// It is being replaced because its machine is to be another one, by replicaset-controller.
    Replacement,
}

impl Axis {
    /// Every axis.
    pub const ALL: [Self; 6] =
        [Self::Environment, Self::App, Self::Retirement, Self::Failover, Self::Drift, Self::Replacement];

    /// Whether the Server itself leaves its set, or may: what else would be changed on it is not begun.
    #[must_use]
    pub fn replaces(self) -> bool {
        matches!(self, Self::Retirement | Self::Replacement | Self::Failover)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Environment => "environment",
            Self::App => "app",
            Self::Retirement => "retirement",
            Self::Failover => "failover",
            Self::Drift => "drift",
            Self::Replacement => "replacement",
        }
    }
}

/// A line of the ledger, written `<server>/<axis>`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Entry {
    /// Name of the Server.
    pub server: String,
    /// What is being changed on it.
    pub axis: Axis,
}

impl Entry {
    /// An entry for this Server.
    #[must_use]
    pub fn new(server: impl Into<String>, axis: Axis) -> Self {
        Self { server: server.into(), axis }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.server, self.axis.name())
    }
}

impl FromStr for Entry {
    type Err = String;

    /// Reads `<server>/<axis>`.
    fn from_str(text: &str) -> Result<Self, String> {
        let unknown = || {
            let axes = Axis::ALL.map(Axis::name).join(", /");
            format!("{text:?} is no line of the ledger: it must be <server>/{axes}")
        };
        let (server, axis) = text.rsplit_once('/').ok_or_else(unknown)?;
        let axis = Axis::ALL.into_iter().find(|a| a.name() == axis).ok_or_else(unknown)?;
        Ok(Self::new(server, axis))
    }
}

/// The Servers that the ledger names on this axis. A line that is not understood is nobody's, and only counts.
pub fn entered(ledger: &[String], axis: Axis) -> impl Iterator<Item = String> {
    ledger.iter().filter_map(move |line| line.parse().ok().filter(|e: &Entry| e.axis == axis).map(|e| e.server))
}

/// The budget of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Servers that there are to be.
    pub replicas: usize,
    /// Servers that may be unavailable at once.
    pub max_unavailable: usize,
    /// Seconds for which a Server must be Ready before it counts as available.
    pub min_ready_seconds: i32,
    /// Servers that keep what they have.
    pub partition: usize,
}

impl Budget {
    /// The budget that a set declares; `partition` is that of its template.
    #[must_use]
    pub fn of(set: &VMReplicaSet) -> Self {
        let spec = &set.spec;
        Self {
            replicas: count(spec.replicas),
            max_unavailable: max_unavailable(&spec.update_strategy, spec.replicas),
            min_ready_seconds: spec.min_ready_seconds,
            partition: count(spec.update_strategy.partition),
        }
    }
}

fn count(n: i32) -> usize {
    usize::try_from(n).unwrap_or(0)
}

/// How many of `replicas` Servers may be unavailable.
#[must_use]
pub fn max_unavailable(strategy: &UpdateStrategy, replicas: i32) -> usize {
    at_least_one(strategy.max_unavailable.as_ref(), DEFAULT_PERCENT, count(replicas))
}

/// A number, or so many percent of `total` (`default` when nothing is declared). A percentage is rounded down, but to one
/// at least unless it is 0 %: a bound that a small set rounds to nothing would hold everything for ever.
#[must_use]
pub fn at_least_one(declared: Option<&IntOrString>, default: usize, total: usize) -> usize {
    let percent = |percent: usize| if percent == 0 { 0 } else { (total * percent / 100).max(1) };
    match declared {
        None => percent(default),
        Some(IntOrString::Int(n)) => count(*n),
        Some(IntOrString::String(text)) => {
            text.strip_suffix('%').and_then(|n| n.parse().ok()).map_or(0, |n: usize| percent(n.min(100)))
        }
    }
}

/// How many Servers there may be beyond `replicas` while machines are replaced. A percentage is rounded up.
#[must_use]
pub fn max_surge(strategy: &UpdateStrategy, replicas: i32) -> usize {
    match &strategy.max_surge {
        None => 0,
        Some(IntOrString::Int(n)) => count(*n),
        Some(IntOrString::String(text)) => {
            let percent = text.strip_suffix('%').and_then(|n| n.parse().ok()).unwrap_or(0_usize);
            (count(replicas) * percent.min(100)).div_ceil(100)
        }
    }
}

/// Whether the Server counts for its set: not offline, not being deleted, and not kept for diagnosis only.
#[must_use]
pub fn is_active(server: &Server) -> bool {
    !server.spec.offline && server.metadata.deletion_timestamp.is_none() && server.spec.retain.is_none()
}

/// Whether the newest declaration of this Server has been decided upon.
#[must_use]
pub fn is_observed(server: &Server) -> bool {
    server.status.as_ref().is_some_and(|s| s.observed_generation == server.metadata.generation)
}

/// Whether the Server is Ready with its newest declaration.
#[must_use]
pub fn is_ready(server: &Server) -> bool {
    is_active(server) && is_observed(server) && state(server) == Some(State::Ready)
}

/// Whether the Server has been Ready for `min_ready_seconds`, and gets its traffic: while a gate keeps that away it is of no
/// use to anybody.
#[must_use]
pub fn is_available(server: &Server, min_ready_seconds: i32, now: Timestamp) -> bool {
    is_ready(server) && gets_its_traffic(server) && available_at(server, min_ready_seconds).is_none_or(|at| at <= now)
}

/// When a Ready Server becomes available, if nothing happens to it.
#[must_use]
pub fn available_at(server: &Server, min_ready_seconds: i32) -> Option<Timestamp> {
    let since = server.status.as_ref()?.state_since.as_ref()?.0;
    since.checked_add(SignedDuration::from_secs(i64::from(min_ready_seconds))).ok()
}

fn state(server: &Server) -> Option<State> {
    server.status.as_ref().and_then(|s| s.state)
}

/// The Server's name, which every stored one has.
#[must_use]
pub fn name(server: &Server) -> &str {
    server.metadata.name.as_deref().unwrap_or_default()
}

/// Whether the Server serves and Berth does nothing to it: available, and in no line of the ledger.
fn is_undisturbed(server: &Server, disturbed: &HashSet<&str>, budget: Budget, now: Timestamp) -> bool {
    is_available(server, budget.min_ready_seconds, now) && !disturbed.contains(name(server))
}

/// How many of the set's Servers serve and are not being disturbed.
#[must_use]
pub fn undisturbed(servers: &[&Server], ledger: &[String], budget: Budget, now: Timestamp) -> usize {
    let disturbed: HashSet<&str> = ledger.iter().map(|line| line.split('/').next().unwrap_or(line)).collect();
    servers.iter().filter(|s| is_undisturbed(s, &disturbed, budget, now)).count()
}

/// How many of the set's Servers are unavailable, through whatever cause: not yet created, not available, or in the
/// ledger. Servers beyond `replicas` make up for others.
#[must_use]
pub fn unavailable(servers: &[&Server], ledger: &[String], budget: Budget, now: Timestamp) -> usize {
    budget.replicas.saturating_sub(undisturbed(servers, ledger, budget, now))
}

/// Which Servers may be disturbed now, in the order in which they are to be: those for which `outdated` holds, at most
/// so many that `partition` Servers keep what they have. One that is not Ready costs nothing, because it is
/// unavailable anyhow, and so comes first; one that is Ready needs room in the budget. Of equals the first in `servers`
/// comes first.
#[must_use]
pub fn next_to_disturb<'a>(
    servers: &[&'a Server],
    ledger: &[String],
    budget: Budget,
    now: Timestamp,
    outdated: impl Fn(&Server) -> bool,
) -> Vec<&'a Server> {
    next_at_pace(servers, ledger, budget, now, usize::MAX, outdated)
}

fn next_at_pace<'a>(
    servers: &[&'a Server],
    ledger: &[String],
    budget: Budget,
    now: Timestamp,
    ready_at_most: usize,
    outdated: impl Fn(&Server) -> bool,
) -> Vec<&'a Server> {
    let active: Vec<&Server> = servers.iter().copied().filter(|s| is_active(s)).collect();
    let (old, new): (Vec<&Server>, Vec<&Server>) = active.iter().partition(|s| outdated(s));
    let wanted = active.len().saturating_sub(budget.partition).saturating_sub(new.len());
    let (ready, unready): (Vec<&Server>, Vec<&Server>) =
        old.into_iter().partition(|s| is_ready(s) && gets_its_traffic(s));
    let room = budget.max_unavailable.saturating_sub(unavailable(servers, ledger, budget, now)).min(ready_at_most);
    unready.into_iter().chain(ready.into_iter().take(room)).take(wanted).collect()
}

/// What a roll-out does next.
#[derive(Clone, Debug, PartialEq)]
pub struct Roll<'a> {
    /// The ledger as it has to be before anything is touched.
    pub ledger: Vec<String>,
    /// The Servers to change: all of them stand in the ledger.
    pub touch: Vec<&'a Server>,
}

/// The next move of a roll-out on `axis`: takes those Servers out of the ledger that are Ready again with what they are
/// to have, enters the next ones, and says which ones are to be changed. On `hold` nothing is begun.
///
/// It must be computed from the set as read first and its Servers as read after that, and the ledger be written by a
/// write that tests the set's `resourceVersion`: then two controllers cannot spend the same room twice.
pub fn roll<'a>(
    servers: &[&'a Server],
    ledger: &[String],
    budget: Budget,
    now: Timestamp,
    axis: Axis,
    hold: bool,
    outdated: impl Fn(&Server) -> bool,
) -> Roll<'a> {
    roll_at_pace(servers, ledger, budget, now, axis, if hold { Pace::Hold } else { Pace::Free }, outdated)
}

/// How fast a roll-out may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Nothing is begun, and what was entered but not touched is given up.
    Hold,
    /// As fast as the budget allows.
    Free,
    /// So many Servers that are Ready may be entered; the others cost nothing and are not held up.
    Ready(usize),
}

/// [`roll`], at a pace.
pub fn roll_at_pace<'a>(
    servers: &[&'a Server],
    ledger: &[String],
    budget: Budget,
    now: Timestamp,
    axis: Axis,
    pace: Pace,
    outdated: impl Fn(&Server) -> bool,
) -> Roll<'a> {
    let at_work = |server: &Server| !is_ready(server) || outdated(server) && pace != Pace::Hold;
    let mut ledger = without(servers, ledger, axis, at_work);
    let ready_at_most = match pace {
        Pace::Hold => return Roll { ledger, touch: Vec::new() },
        Pace::Free => usize::MAX,
        Pace::Ready(n) => n,
    };
    let entries: Vec<Entry> = ledger.iter().filter_map(|line| line.parse().ok()).collect();
    let is_kept = |entry: &&Entry| entry.axis == axis || entry.axis.replaces();
    let kept: HashSet<&str> = entries.iter().filter(is_kept).map(|e| e.server.as_str()).collect();
    let next = next_at_pace(servers, &ledger, budget, now, ready_at_most, |s| outdated(s) && !kept.contains(name(s)));
    ledger.extend(next.iter().map(|s| Entry::new(name(s), axis).to_string()));
    let touch = entered_servers(servers, &ledger, axis).into_iter().filter(|s| outdated(s)).collect();
    Roll { ledger, touch }
}

/// The ledger without this axis's entries of Servers that are gone or that `at_work` does not hold for.
#[must_use]
pub fn without(servers: &[&Server], ledger: &[String], axis: Axis, at_work: impl Fn(&Server) -> bool) -> Vec<String> {
    let staying: HashSet<String> = entered_servers(servers, ledger, axis)
        .into_iter()
        .filter(|s| at_work(s))
        .map(|s| Entry::new(name(s), axis).to_string())
        .collect();
    let is_others = |line: &str| line.parse::<Entry>().map_or(true, |entry| entry.axis != axis);
    ledger.iter().filter(|line| is_others(line) || staying.contains(*line)).cloned().collect()
}

/// The active Servers that the ledger names on this axis, in the ledger's order.
#[must_use]
pub fn entered_servers<'a>(servers: &[&'a Server], ledger: &[String], axis: Axis) -> Vec<&'a Server> {
    let position: HashMap<String, usize> = entered(ledger, axis).enumerate().map(|(n, name)| (name, n)).collect();
    if position.is_empty() {
        return Vec::new();
    }
    let mut found: Vec<(usize, &Server)> = servers
        .iter()
        .filter(|s| is_active(s))
        .filter_map(|s| position.get(name(s)).map(|position| (*position, *s)))
        .collect();
    found.sort_unstable_by_key(|(position, _)| *position);
    found.into_iter().map(|(_, server)| server).collect()
}
