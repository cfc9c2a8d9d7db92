//! What is known of each proxy from what it asks. Pure: the time is an argument.

use std::{collections::BTreeMap, fmt, time::Duration};

use tokio::time::Instant;

use crate::message::{AssignmentVersion, PATH};

/// So many answers with a version that a proxy still does not run mean that it rejects it. One may have been lost on its way.
const ANSWERS_BEFORE_REJECTION: u32 = 2;

/// When all proxies are known, and when one is given up.
#[derive(Clone, Copy, Debug)]
pub struct ProxyRules {
    /// How many proxies there are. With a number, an assignment counts as applied when so many proxies have applied it, and none
    /// of those that ask runs another. Without, there is at least one, and `learn_for` is waited for.
    pub expected: Option<usize>,
    /// Without a number of proxies: how long after the start all of them have asked once. At least twice their `refresh_delay`.
    pub learn_for: Duration,
    /// A proxy that has not asked for so long is given up: it is no longer waited for. Much longer than twice its
    /// `refresh_delay`, because a proxy that is only cut off from us goes on sending requests to what it knows.
    pub forget_after: Duration,
    /// How long after a proxy has applied an assignment its workers act on it at the latest. Envoy may merge changes of weight
    /// and health that follow each other within its `update_merge_window`, which is one second unless its configuration says
    /// otherwise, and says before that it has applied them.
    pub takes_effect: Duration,
}

impl Default for ProxyRules {
    fn default() -> Self {
        Self {
            expected: None,
            learn_for: Duration::from_secs(10),
            forget_after: Duration::from_mins(2),
            takes_effect: Duration::from_millis(1200),
        }
    }
}

/// Why a proxy does not run what it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// What it was sent.
    pub version: AssignmentVersion,
    /// In the proxy's words if it has sent any, otherwise in ours.
    pub message: String,
}

/// One proxy and one cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyStatus {
    /// `node.id` of the proxy's bootstrap configuration.
    pub id: String,
    /// What it has applied, by its last request; none before the first.
    pub runs: Option<AssignmentVersion>,
    /// The time since it first said so.
    pub runs_for: Duration,
    /// The time since its last request.
    pub silent_for: Duration,
    /// The time between its last two requests: from once to twice its `refresh_delay`.
    pub asks_every: Option<Duration>,
    /// Why it does not run what it was sent.
    pub rejection: Option<Rejection>,
}

impl fmt::Display for ProxyStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.rejection, &self.runs) {
            (Some(rejection), _) => {
                write!(f, "proxy `{}` rejects {}: {}", self.id, rejection.version, rejection.message)?;
            }
            (None, Some(runs)) => {
                write!(f, "proxy `{}` runs {runs} since {} ms", self.id, self.runs_for.as_millis())?;
            }
            (None, None) => write!(f, "proxy `{}` has applied nothing yet", self.id)?,
        }
        write!(f, " (it asked {} ms ago)", self.silent_for.as_millis())
    }
}

#[derive(Debug)]
struct Proxy {
    runs: Option<AssignmentVersion>,
    /// When it first said that it runs that.
    runs_since: Instant,
    /// What it ran before for long enough that its workers acted on it.
    acted_on: Option<AssignmentVersion>,
    asked: Instant,
    asks_every: Option<Duration>,
    /// The last version that it was sent, and how often.
    sent: Option<(AssignmentVersion, u32)>,
    rejection: Option<Rejection>,
}

impl Proxy {
    fn new(now: Instant) -> Self {
        Self { runs: None, runs_since: now, acted_on: None, asked: now, asks_every: None, sent: None, rejection: None }
    }

    /// What its workers act on at least. It may be a later one already.
    fn acts_on(&self, rules: &ProxyRules, now: Instant) -> Option<&AssignmentVersion> {
        let acted = now.duration_since(self.runs_since) >= rules.takes_effect;
        if acted { self.runs.as_ref() } else { self.acted_on.as_ref() }
    }
}

/// All proxies that ask for one cluster.
#[derive(Debug)]
pub(crate) struct Proxies {
    since: Instant,
    known: BTreeMap<String, Proxy>,
}

impl Proxies {
    /// Nobody has asked yet.
    pub(crate) fn new(now: Instant) -> Self {
        Self { since: now, known: BTreeMap::new() }
    }

    /// A proxy asks, and says what it runs, and why it has rejected the last answer. Returns a rejection that was not known.
    pub(crate) fn asks(
        &mut self,
        id: &str,
        runs: Option<AssignmentVersion>,
        error: Option<String>,
        rules: &ProxyRules,
        now: Instant,
    ) -> Option<Rejection> {
        let proxy = self.known.entry(id.to_owned()).or_insert_with(|| Proxy::new(now));
        if now > proxy.asked {
            proxy.asks_every = Some(now - proxy.asked);
        }
        proxy.asked = now;
        if proxy.runs != runs {
            // A proxy that was started again runs nothing, whatever ran before.
            proxy.acted_on = if runs.is_some() { proxy.acts_on(rules, now).cloned() } else { None };
            proxy.runs = runs;
            proxy.runs_since = now;
        }
        let before = proxy.rejection.take();
        proxy.rejection = match &proxy.sent {
            Some((sent, times)) if proxy.runs.as_ref() != Some(sent) => match error {
                Some(message) => Some(Rejection { version: sent.clone(), message }),
                None if *times >= ANSWERS_BEFORE_REJECTION => Some(unexplained(sent, *times)),
                None => None,
            },
            _ => None,
        };
        let known = |rejection: &Rejection| before.is_some_and(|before| before.version == rejection.version);
        proxy.rejection.clone().filter(|rejection| !known(rejection))
    }

    /// The proxy is being sent this version.
    pub(crate) fn sent(&mut self, id: &str, version: &AssignmentVersion) {
        if let Some(proxy) = self.known.get_mut(id) {
            let times = match &proxy.sent {
                Some((sent, times)) if sent == version => times.saturating_add(1),
                _ => 1,
            };
            proxy.sent = Some((version.clone(), times));
        }
    }

    /// The proxy runs what it should: what it was sent before no longer matters.
    pub(crate) fn up_to_date(&mut self, id: &str) {
        if let Some(proxy) = self.known.get_mut(id) {
            proxy.sent = None;
            proxy.rejection = None;
        }
    }

    /// Gives up proxies that have been silent for too long.
    pub(crate) fn forget(&mut self, rules: &ProxyRules, now: Instant) {
        self.known.retain(|_, proxy| now.duration_since(proxy.asked) <= rules.forget_after);
    }

    /// Whether every proxy acts on a version of which this is true, and all proxies are known.
    pub(crate) fn all_act_on(
        &self,
        rules: &ProxyRules,
        now: Instant,
        good: impl Fn(&AssignmentVersion) -> bool,
    ) -> bool {
        let everybody = match rules.expected {
            Some(expected) => self.known.len() >= expected,
            None => !self.known.is_empty() && self.learned(rules, now),
        };
        everybody && self.known.values().all(|proxy| proxy.acts_on(rules, now).is_some_and(&good))
    }

    /// What is known of the proxies that act on a version of which this is true, and of the others; by id.
    pub(crate) fn by_version(
        &self,
        rules: &ProxyRules,
        now: Instant,
        good: impl Fn(&AssignmentVersion) -> bool,
    ) -> (Vec<ProxyStatus>, Vec<ProxyStatus>) {
        let (has, has_not): (Vec<_>, Vec<_>) =
            self.known.iter().partition(|(_, proxy)| proxy.acts_on(rules, now).is_some_and(&good));
        let status =
            |proxies: Vec<(&String, &Proxy)>| proxies.into_iter().map(|(id, it)| status(id, it, now)).collect();
        (status(has), status(has_not))
    }

    /// Whether all proxies have had the time to ask.
    pub(crate) fn learned(&self, rules: &ProxyRules, now: Instant) -> bool {
        rules.expected.is_some() || now.duration_since(self.since) >= rules.learn_for
    }

    /// When something about [`Proxies::all_act_on`] changes although nobody asks.
    pub(crate) fn changes_at(&self, rules: &ProxyRules, now: Instant) -> Option<Instant> {
        let learned = (!self.learned(rules, now)).then(|| self.since + rules.learn_for);
        // A proxy is forgotten when it has been silent for longer than the limit.
        let forgotten = self.known.values().map(|proxy| proxy.asked + rules.forget_after + Duration::from_millis(1));
        let acting = self.known.values().map(|proxy| proxy.runs_since + rules.takes_effect).filter(|at| *at > now);
        forgotten.chain(acting).chain(learned).min()
    }
}

fn status(id: &str, proxy: &Proxy, now: Instant) -> ProxyStatus {
    ProxyStatus {
        id: id.to_owned(),
        runs: proxy.runs.clone(),
        runs_for: now.duration_since(proxy.runs_since),
        silent_for: now.duration_since(proxy.asked),
        asks_every: proxy.asks_every,
        rejection: proxy.rejection.clone(),
    }
}

/// Envoy sends no reason by REST, so its log has to be named.
fn unexplained(version: &AssignmentVersion, times: u32) -> Rejection {
    let message = format!(
        "it was sent this version {times} times and still runs another: either it refuses it (the proxy's log says why, after \
         `REST config for {PATH} rejected`), or the answers do not reach it whole"
    );
    Rejection { version: version.clone(), message }
}

#[cfg(test)]
#[path = "proxies_tests.rs"]
mod tests;
