//! The state of the server, shared by its user and by the requests of proxies.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::{sync::watch, time::Instant};

use crate::{
    assignment::Assignment,
    cluster::{Acknowledgement, ServedCluster},
    endpoint::{Endpoint, InvalidEndpoints, check},
    message::AssignmentVersion,
    proxies::ProxyRules,
};

/// Why the service cannot do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum EdsError {
    /// Envoy would not take the endpoints.
    #[error("cannot serve cluster `{cluster}`: {reason}")]
    Invalid {
        /// The cluster.
        cluster: String,
        /// What is wrong.
        reason: InvalidEndpoints,
    },
    /// The answer could not be written.
    #[error("cannot write the endpoints of cluster `{cluster}` as JSON: {reason}")]
    Unwritable {
        /// The cluster.
        cluster: String,
        /// What went wrong.
        reason: serde_json::Error,
    },
    /// Nothing was set for this cluster.
    #[error(
        "no endpoints have been set for cluster `{cluster}` (known: {known}): a proxy keeps the endpoints that it has"
    )]
    UnknownCluster {
        /// The cluster.
        cluster: String,
        /// The clusters for which endpoints were set.
        known: String,
    },
    /// Nobody has set this version, or very many others have followed.
    #[error(
        "version {version} of cluster `{cluster}` was not set in this process: wait for the one that `set` returned"
    )]
    UnknownVersion {
        /// The cluster.
        cluster: String,
        /// The version.
        version: AssignmentVersion,
    },
    /// Not all proxies have applied the version in time.
    #[error("cluster `{cluster}`: not applied within {timeout:?}: {acknowledgement}")]
    TimedOut {
        /// The cluster.
        cluster: String,
        /// How long was waited.
        timeout: Duration,
        /// Who has applied it and who has not.
        acknowledgement: Box<Acknowledgement>,
    },
}

/// The desired endpoints of each cluster, and which proxies have applied them. Clones share one state.
#[derive(Clone, Debug)]
pub struct EdsService {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    rules: ProxyRules,
    clusters: Mutex<BTreeMap<String, ServedCluster>>,
    /// Sends when a cluster was set, or a proxy has asked.
    changes: watch::Sender<()>,
}

impl EdsService {
    /// A service that knows no cluster: every proxy keeps what it has until [`EdsService::set`].
    #[must_use]
    pub fn new(rules: ProxyRules) -> Self {
        let changes = watch::Sender::new(());
        Self { shared: Arc::new(Shared { rules, clusters: Mutex::default(), changes }) }
    }

    /// Serves these endpoints, and no others, to the proxies that ask for `cluster`: the `service_name` in the proxy's
    /// `eds_cluster_config`, or the name of its cluster. Nothing happens when that is what is served already. The first call after a
    /// start must have all endpoints: what it lacks, proxies remove.
    ///
    /// Endpoints that had traffic and should get none are drained before they are left out; the returned version is the one
    /// without them. An empty list makes proxies answer 503 in the end.
    pub fn set(&self, cluster: &str, endpoints: &[Endpoint]) -> Result<AssignmentVersion, EdsError> {
        check(cluster, endpoints).map_err(|reason| EdsError::Invalid { cluster: cluster.to_owned(), reason })?;
        let goal = Assignment::goal(endpoints);
        let now = Instant::now();
        let unwritable = |reason| EdsError::Unwritable { cluster: cluster.to_owned(), reason };
        let mut clusters = self.shared.clusters.lock();
        let version = match clusters.get_mut(cluster) {
            Some(known) => {
                if !known.set(goal, &self.shared.rules, now).map_err(unwritable)? {
                    return Ok(known.wanted().clone());
                }
                known.wanted().clone()
            }
            None => {
                let served = ServedCluster::new(cluster, goal, now).map_err(unwritable)?;
                let version = served.wanted().clone();
                clusters.insert(cluster.to_owned(), served);
                version
            }
        };
        drop(clusters);
        self.shared.changes.send_replace(());
        Ok(version)
    }

    /// Serves nothing for this cluster any more. Its proxies keep the endpoints that they have.
    pub fn forget(&self, cluster: &str) {
        self.shared.clusters.lock().remove(cluster);
        self.shared.changes.send_replace(());
    }

    /// Which proxies have applied this version of a cluster, or one that was set later.
    pub fn acknowledged(&self, cluster: &str, version: &AssignmentVersion) -> Result<Acknowledgement, EdsError> {
        self.look(cluster, version).map(|(acknowledgement, _)| acknowledgement)
    }

    /// Waits until all proxies have applied this version of a cluster, or one that was set later.
    ///
    /// # Errors
    /// [`EdsError::TimedOut`] after `timeout`, with who has not.
    pub async fn wait_acknowledged(
        &self,
        cluster: &str,
        version: &AssignmentVersion,
        timeout: Duration,
    ) -> Result<Acknowledgement, EdsError> {
        self.wait_until(cluster, version, timeout, |acknowledgement| acknowledgement.complete).await
    }

    /// Waits until this is true of who has applied a version, for example that no endpoint is leaving any more.
    ///
    /// # Errors
    /// [`EdsError::TimedOut`] after `timeout`, with who has not.
    pub async fn wait_until(
        &self,
        cluster: &str,
        version: &AssignmentVersion,
        timeout: Duration,
        good: impl Fn(&Acknowledgement) -> bool,
    ) -> Result<Acknowledgement, EdsError> {
        let deadline = Instant::now() + timeout;
        let mut changes = self.shared.changes.subscribe();
        loop {
            changes.mark_unchanged();
            let (acknowledgement, changes_at) = self.look(cluster, version)?;
            if good(&acknowledgement) {
                return Ok(acknowledgement);
            }
            if Instant::now() >= deadline {
                let acknowledgement = Box::new(acknowledgement);
                return Err(EdsError::TimedOut { cluster: cluster.to_owned(), timeout, acknowledgement });
            }
            let next_look = changes_at.map_or(deadline, |at| at.min(deadline));
            // The sender lives as long as this service, so an end of the wait is a change or the time of the next look.
            let _ = tokio::time::timeout_at(next_look, changes.changed()).await;
        }
    }

    /// A proxy asks for a cluster. Returns what to answer; nothing when it has what it should have.
    pub(crate) fn ask(
        &self,
        cluster: &str,
        proxy: &str,
        runs: Option<&AssignmentVersion>,
        error: Option<String>,
    ) -> Result<Option<Bytes>, EdsError> {
        let now = Instant::now();
        let mut clusters = self.shared.clusters.lock();
        let Some(known) = clusters.get_mut(cluster) else {
            return Err(unknown(cluster, &clusters));
        };
        let rejection = known.asked(proxy, runs.cloned(), error, &self.shared.rules, now);
        known
            .lead(&self.shared.rules, now)
            .map_err(|reason| EdsError::Unwritable { cluster: cluster.to_owned(), reason })?;
        let answer = known.answer(proxy, runs);
        drop(clusters);
        self.shared.changes.send_replace(());
        if let Some(rejection) = rejection {
            tracing::warn!(cluster, proxy, version = %rejection.version, "a proxy rejects endpoints: {}", rejection.message);
        }
        Ok(answer)
    }

    /// Who has applied a version, and when that changes although nobody asks.
    fn look(&self, cluster: &str, version: &AssignmentVersion) -> Result<(Acknowledgement, Option<Instant>), EdsError> {
        let now = Instant::now();
        let rules = &self.shared.rules;
        let mut clusters = self.shared.clusters.lock();
        let Some(known) = clusters.get_mut(cluster) else {
            return Err(unknown(cluster, &clusters));
        };
        // A proxy that was waited for may be given up by now.
        known.lead(rules, now).map_err(|reason| EdsError::Unwritable { cluster: cluster.to_owned(), reason })?;
        let acknowledgement = known
            .acknowledgement(version, rules, now)
            .ok_or_else(|| EdsError::UnknownVersion { cluster: cluster.to_owned(), version: version.clone() })?;
        Ok((acknowledgement, known.changes_at(rules, now)))
    }
}

fn unknown(cluster: &str, clusters: &BTreeMap<String, ServedCluster>) -> EdsError {
    let known = clusters.keys().map(|name| format!("`{name}`")).collect::<Vec<_>>();
    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    EdsError::UnknownCluster { cluster: cluster.to_owned(), known }
}

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;
