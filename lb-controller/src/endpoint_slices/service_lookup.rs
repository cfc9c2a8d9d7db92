//! Whether a Service exists, and what it declares for its panic floor.

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{keys::ServiceKey, slice_api::SliceApi};
use crate::{balancer::BalancerError, panic_floor::PANIC_THRESHOLD};

/// How long a Service counts as it was: a Service has many Servers, and each of them asks.
const LIFETIME: Duration = Duration::from_secs(30);

/// Looks Services up, and remembers for a while those that exist.
#[derive(Debug, Default)]
pub(crate) struct ServiceLookup {
    seen: Mutex<HashMap<ServiceKey, SeenService>>,
}

/// A Service that exists, or existed a short while ago.
#[derive(Clone, Debug)]
pub(crate) struct SeenService {
    /// Its annotation [`PANIC_THRESHOLD`].
    pub(crate) panic_threshold: Option<String>,
    at: Instant,
}

impl ServiceLookup {
    /// The Service, if it exists or existed a short while ago.
    pub(crate) async fn find(
        &self,
        api: &SliceApi,
        service: &ServiceKey,
    ) -> Result<Option<SeenService>, BalancerError> {
        let is_fresh = |seen: &SeenService| seen.at.elapsed() < LIFETIME;
        if let Some(seen) = self.seen.lock().get(service).filter(|seen| is_fresh(seen)) {
            return Ok(Some(seen.clone()));
        }
        let found = api.service_annotations(service).await?;
        let found =
            found.map(|mut found| SeenService { panic_threshold: found.remove(PANIC_THRESHOLD), at: Instant::now() });
        let mut seen = self.seen.lock();
        seen.retain(|_, seen| is_fresh(seen));
        if let Some(found) = &found {
            seen.insert(service.clone(), found.clone());
        }
        Ok(found)
    }
}
