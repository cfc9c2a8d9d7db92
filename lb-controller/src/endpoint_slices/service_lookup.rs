//! Whether a Service exists, and what it declares for its panic floor.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::Mutex as AsyncMutex, time::Instant};

use super::{keys::ServiceKey, slice_api::SliceApi};
use crate::{balancer::BalancerError, panic_floor::PANIC_THRESHOLD};

/// How long a Service counts as it was: a Service has many Servers, and each of them asks.
const LIFETIME: Duration = Duration::from_secs(30);

/// Looks Services up, and remembers for a while those that exist. Servers that ask about a Service while it is being looked up
/// wait for that answer: the Servers of a new fleet all ask at once.
#[derive(Debug, Default)]
pub(crate) struct ServiceLookup {
    /// The last lookup of each Service. It is locked while another one is under way.
    lookups: Mutex<HashMap<ServiceKey, Arc<AsyncMutex<Option<Lookup>>>>>,
}

/// A Service that exists, or existed a short while ago.
#[derive(Clone, Debug)]
pub(crate) struct SeenService {
    /// Its annotation [`PANIC_THRESHOLD`].
    pub(crate) panic_threshold: Option<String>,
}

#[derive(Debug)]
struct Lookup {
    begun: Instant,
    outcome: Result<Option<SeenService>, BalancerError>,
}

impl Lookup {
    fn is_fresh(&self, now: Instant) -> bool {
        matches!(self.outcome, Ok(Some(_))) && now < self.begun + LIFETIME
    }

    /// Whether this answers a question that was asked then. That a Service is missing, or an error, answers only those who have
    /// asked before the lookup began.
    fn answers(&self, asked: Instant, now: Instant) -> bool {
        self.is_fresh(now) || asked <= self.begun
    }
}

impl ServiceLookup {
    /// The Service, if it exists or existed a short while ago.
    pub(crate) async fn find(
        &self,
        api: &SliceApi,
        service: &ServiceKey,
    ) -> Result<Option<SeenService>, BalancerError> {
        let asked = Instant::now();
        let lookup = self.lookup(service);
        let mut last = lookup.lock().await;
        if let Some(last) = last.as_ref().filter(|last| last.answers(asked, Instant::now())) {
            return last.outcome.clone();
        }
        let begun = Instant::now();
        let found = api.service_annotations(service).await;
        let seen = |mut annotations: BTreeMap<String, String>| SeenService {
            panic_threshold: annotations.remove(PANIC_THRESHOLD),
        };
        let outcome = found.map(|found| found.map(seen));
        *last = Some(Lookup { begun, outcome: outcome.clone() });
        outcome
    }

    fn lookup(&self, service: &ServiceKey) -> Arc<AsyncMutex<Option<Lookup>>> {
        let mut lookups = self.lookups.lock();
        if let Some(lookup) = lookups.get(service) {
            return Arc::clone(lookup);
        }
        let now = Instant::now();
        // Nobody uses what is held here alone.
        let is_needed = |lookup: &AsyncMutex<Option<Lookup>>| {
            lookup.try_lock().is_ok_and(|last| last.as_ref().is_some_and(|last| last.is_fresh(now)))
        };
        lookups.retain(|_, lookup| Arc::strong_count(lookup) > 1 || is_needed(lookup));
        Arc::clone(lookups.entry(service.clone()).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_counts_for_those_who_asked_before_it_and_for_a_while_if_the_service_exists() {
        let (second, begun) = (Duration::from_secs(1), Instant::now());
        let exists = Lookup { begun, outcome: Ok(Some(SeenService { panic_threshold: None })) };
        let missing = Lookup { begun, outcome: Ok(None) };
        let later = begun + second;
        assert!(exists.answers(begun, later) && exists.answers(later, later));
        assert!(missing.answers(begun, later) && !missing.answers(later, later));
        assert!(!exists.answers(later, begun + LIFETIME), "too old");
    }
}
