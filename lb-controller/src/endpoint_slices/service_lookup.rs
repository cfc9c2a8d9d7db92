//! Whether a Service exists.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::{keys::ServiceKey, slice_api::SliceApi};
use crate::balancer::BalancerError;

/// How long a Service that existed is taken to exist still: a Service has many Servers, and each of them asks.
const EXISTENCE_TTL: Duration = Duration::from_secs(30);

/// Looks Services up, and remembers for a while those that exist.
#[derive(Debug, Default)]
pub(crate) struct ServiceLookup {
    last_seen: Mutex<HashMap<ServiceKey, Instant>>,
}

impl ServiceLookup {
    /// Whether the Service exists, or existed a short while ago.
    pub(crate) async fn exists(&self, api: &SliceApi, service: &ServiceKey) -> Result<bool, BalancerError> {
        if self.last_seen.lock().get(service).is_some_and(|at| at.elapsed() < EXISTENCE_TTL) {
            return Ok(true);
        }
        let exists = api.service_exists(service).await?;
        let mut last_seen = self.last_seen.lock();
        last_seen.retain(|_, at| at.elapsed() < EXISTENCE_TTL);
        if exists {
            last_seen.insert(service.clone(), Instant::now());
        }
        Ok(exists)
    }
}
