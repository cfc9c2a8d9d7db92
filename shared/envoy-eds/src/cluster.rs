//! One cluster: what is wanted, what is sent on the way there, and who has applied it. Pure: the time is an argument.

use std::{collections::BTreeMap, fmt};

use bytes::Bytes;
use tokio::time::Instant;

use crate::{
    assignment::Assignment,
    message::{Answer, AssignmentVersion},
    proxies::{Proxies, ProxyRules, ProxyStatus, Rejection},
};

/// How many versions of a cluster can be asked about. Nobody waits for one that so many others have followed.
const REMEMBERED_VERSIONS: usize = 256;

/// Who has applied a version, or one that was set later, for long enough to act on it, and who has not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledgement {
    /// The version in question.
    pub version: AssignmentVersion,
    /// All proxies act on it, and all proxies are known.
    pub complete: bool,
    /// The proxies that have.
    pub has: Vec<ProxyStatus>,
    /// The proxies that have not.
    pub has_not: Vec<ProxyStatus>,
    /// Endpoints that are no longer wanted, and of which not all proxies know yet that they drain. When it is empty, no proxy
    /// sends new requests to an endpoint that is not wanted, unless there is no other with traffic.
    pub leaving: Vec<String>,
    /// How many proxies there are, if that was given.
    pub expected: Option<usize>,
}

impl fmt::Display for Acknowledgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.has.len() + self.has_not.len();
        write!(f, "{} of {} proxies have applied {}", self.has.len(), self.expected.unwrap_or(all), self.version)?;
        if all == 0 {
            write!(f, "; no proxy asks for this cluster: check the address of the EDS server in its configuration")?;
        } else if self.has_not.is_empty() && !self.complete {
            write!(f, "; more proxies may ask yet")?;
        }
        for proxy in &self.has_not {
            write!(f, "; {proxy}")?;
        }
        if !self.leaving.is_empty() {
            write!(f, "; draining before they are left out: {}", self.leaving.join(", "))?;
        }
        Ok(())
    }
}

/// One cluster.
#[derive(Debug)]
pub(crate) struct ServedCluster {
    name: String,
    goal: Assignment,
    goal_version: AssignmentVersion,
    sent: Assignment,
    answer: Answer,
    /// When each version was last wanted, as a number that rises.
    wanted: BTreeMap<AssignmentVersion, u64>,
    proxies: Proxies,
}

impl ServedCluster {
    /// A cluster whose first endpoints are these. What proxies know from an earlier process is not known here.
    pub(crate) fn new(name: &str, goal: Assignment, now: Instant) -> Result<Self, serde_json::Error> {
        let answer = Answer::new(name, &goal)?;
        Ok(Self {
            name: name.to_owned(),
            sent: goal.clone(),
            goal,
            goal_version: answer.version.clone(),
            wanted: BTreeMap::from([(answer.version.clone(), 1)]),
            answer,
            proxies: Proxies::new(now),
        })
    }

    /// The version that is wanted.
    pub(crate) fn wanted(&self) -> &AssignmentVersion {
        &self.goal_version
    }

    /// Wants these endpoints from now on. Returns whether that is a change.
    pub(crate) fn set(
        &mut self,
        goal: Assignment,
        rules: &ProxyRules,
        now: Instant,
    ) -> Result<bool, serde_json::Error> {
        let version = Answer::new(&self.name, &goal)?.version;
        // Names are not part of the version, but messages should have the newest.
        self.goal = goal;
        if version == self.goal_version {
            return Ok(false);
        }
        let number = self.wanted.values().max().map_or(1, |last| last + 1);
        self.wanted.insert(version.clone(), number);
        if self.wanted.len() > REMEMBERED_VERSIONS
            && let Some(oldest) =
                self.wanted.iter().min_by_key(|(_, number)| **number).map(|(version, _)| version.clone())
        {
            self.wanted.remove(&oldest);
        }
        self.goal_version = version;
        self.proxies.forget(rules, now);
        let applied = self.all_act_on_sent(rules, now);
        self.step(applied)?;
        Ok(true)
    }

    /// Goes on to the next assignment, if the proxies are ready for it. This is asked often, and there is mostly nothing to do.
    pub(crate) fn lead(&mut self, rules: &ProxyRules, now: Instant) -> Result<(), serde_json::Error> {
        self.proxies.forget(rules, now);
        if self.answer.version != self.goal_version && self.all_act_on_sent(rules, now) {
            self.step(true)?;
        }
        Ok(())
    }

    fn all_act_on_sent(&self, rules: &ProxyRules, now: Instant) -> bool {
        self.proxies.all_act_on(rules, now, |version| *version == self.answer.version)
    }

    fn step(&mut self, applied: bool) -> Result<(), serde_json::Error> {
        let next = Assignment::next(&self.sent, applied, &self.goal);
        if next != self.sent {
            self.answer = Answer::new(&self.name, &next)?;
            self.sent = next;
        }
        Ok(())
    }

    /// A proxy asks. Returns a rejection that was not known.
    pub(crate) fn asked(
        &mut self,
        proxy: &str,
        runs: Option<AssignmentVersion>,
        error: Option<String>,
        rules: &ProxyRules,
        now: Instant,
    ) -> Option<Rejection> {
        self.proxies.asks(proxy, runs, error, rules, now)
    }

    /// What to answer to a proxy that runs this; nothing when that is what it should run.
    pub(crate) fn answer(&mut self, proxy: &str, runs: Option<&AssignmentVersion>) -> Option<Bytes> {
        if runs == Some(&self.answer.version) {
            self.proxies.up_to_date(proxy);
            return None;
        }
        self.proxies.sent(proxy, &self.answer.version);
        Some(self.answer.body.clone())
    }

    /// Who has applied this version, or one that was wanted later. None when the version was never wanted here.
    pub(crate) fn acknowledgement(
        &self,
        version: &AssignmentVersion,
        rules: &ProxyRules,
        now: Instant,
    ) -> Option<Acknowledgement> {
        let number = self.wanted.get(version)?;
        let good = |runs: &AssignmentVersion| self.wanted.get(runs).is_some_and(|other| other >= number);
        let (has, has_not) = self.proxies.by_version(rules, now, good);
        Some(Acknowledgement {
            version: version.clone(),
            complete: self.proxies.all_act_on(rules, now, good),
            has,
            has_not,
            leaving: self.sent.leaving(),
            expected: rules.expected,
        })
    }

    /// When [`ServedCluster::acknowledgement`] changes although nobody asks.
    pub(crate) fn changes_at(&self, rules: &ProxyRules, now: Instant) -> Option<Instant> {
        self.proxies.changes_at(rules, now)
    }
}

#[cfg(test)]
#[path = "cluster_tests.rs"]
mod tests;
