//! Writes the EndpointSlices of one Service, the changes of many Servers together.
//!
//! A caller adds its change to the pending ones and waits for the write lock. The caller that gets the lock waits a moment for
//! more changes, writes all that are pending, and answers every caller. Meanwhile new changes become pending. So a slice has at
//! most one write of this process in flight, and a thousand Servers that change at once cost few writes. A change that follows
//! another one closely waits a little longer, so that a thousand Servers that change one after another cost few writes, too.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use berth_core::api::Server;
use berth_runtime::Clock;
use futures::future::try_join_all;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use parking_lot::Mutex;
use tokio::{sync::oneshot, time::Instant};

use super::{
    floor::PanicFloor,
    keys::ServiceKey,
    next_writes::{DesiredEndpoint, NextWrites, next_writes},
    owed::owed,
    service_lookup::ServiceLookup,
    slice_api::{SliceApi, WriteResult},
    slice_cache::SliceCache,
};
use crate::{balancer::BalancerError, kept::Kept, plan, subsets::Subsets};

/// Batch windows between the beginnings of two writes: the first change is written at once, and while a fleet comes or goes, few
/// writes show many changes.
const WINDOWS_BETWEEN_WRITES: u32 = 10;
/// Rounds of writes after which changes are given up until the next reconcile: a tree of slices needs at most one round for each
/// of its 33 levels, and a conflict costs one more.
const MAX_ROUNDS: usize = 40;
/// Servers that are read at the same time: enough to hide the latency, and few for the API server.
const CONCURRENT_READS: usize = 16;

/// What became of changes that were to be written.
struct Settled {
    /// UIDs of the Servers whose change turned out to be superseded.
    superseded: BTreeSet<String>,
    /// By UID, the Servers that the panic floor keeps in traffic.
    kept: BTreeMap<String, Kept>,
}

type ResultSender = oneshot::Sender<Result<(), BalancerError>>;

/// What the writers of all Services share.
pub(crate) struct WriterContext {
    pub(crate) api: SliceApi,
    pub(crate) cache: SliceCache,
    pub(crate) clock: Arc<dyn Clock>,
    /// For how long changes are collected, to write them together.
    pub(crate) batch_window: Duration,
    pub(crate) services: ServiceLookup,
    pub(crate) floor: PanicFloor,
    pub(crate) subsets: Subsets,
}

/// Writes the EndpointSlices of one Service.
pub(crate) struct ServiceWriter {
    service: ServiceKey,
    context: Arc<WriterContext>,
    pending: Mutex<Vec<(DesiredEndpoint, ResultSender)>>,
    /// Whoever holds it writes; when the last write began.
    write_lock: tokio::sync::Mutex<Option<Instant>>,
}

impl ServiceWriter {
    pub(crate) fn new(service: ServiceKey, context: Arc<WriterContext>) -> Self {
        let (pending, write_lock) = (Mutex::default(), tokio::sync::Mutex::default());
        Self { service, context, pending, write_lock }
    }

    /// Returns when the Service shows the endpoint as desired.
    pub(crate) async fn submit(&self, desired: DesiredEndpoint) -> Result<(), BalancerError> {
        let (sender, mut result) = oneshot::channel();
        self.pending.lock().push((desired, sender));
        let mut last_write = self.write_lock.lock().await;
        if let Ok(result) = result.try_recv() {
            return result;
        }
        let window = self.context.batch_window;
        let next_write = last_write.map(|begun| begun + window * WINDOWS_BETWEEN_WRITES);
        tokio::time::sleep_until((Instant::now() + window).max(next_write.unwrap_or_else(Instant::now))).await;
        *last_write = Some(Instant::now());
        let batch = std::mem::take(&mut *self.pending.lock());
        self.write_batch(batch).await;
        // Without a result, the change was in the batch of a caller that was cancelled while it wrote.
        result.try_recv().unwrap_or_else(|_| Err(self.unavailable("the write was interrupted")))
    }

    async fn write_batch(&self, batch: Vec<(DesiredEndpoint, ResultSender)>) {
        let newest = newest_of_each_server(batch.iter().map(|(desired, _)| desired));
        let results = self.write_endpoints(&newest).await;
        for (desired, sender) in batch {
            let uid = &desired.server.uid;
            let is_superseded = newest.get(uid).is_some_and(|newest| newest.endpoint != desired.endpoint);
            let result = match results.get(uid) {
                Some(Err(error)) => Err(error.clone()),
                _ if is_superseded => Err(BalancerError::Superseded),
                _ => Ok(()),
            };
            // A caller that no longer waits reconciles its Server again anyway.
            let _ = sender.send(result);
        }
    }

    /// The result for each Server. When the API server refuses the changes of all Servers together, each is tried alone, so that
    /// a Server with an impossible address holds up no other Server.
    async fn write_endpoints(
        &self,
        endpoints: &BTreeMap<String, DesiredEndpoint>,
    ) -> BTreeMap<String, Result<(), BalancerError>> {
        let together = self.settle(endpoints.values().cloned().collect()).await;
        let mut results = BTreeMap::new();
        for (uid, desired) in endpoints {
            let alone = match &together {
                Err(BalancerError::Refused { .. }) if endpoints.len() > 1 => &self.settle(vec![desired.clone()]).await,
                settled => settled,
            };
            let result = match alone {
                Ok(settled) if settled.superseded.contains(uid) => Err(BalancerError::Superseded),
                Ok(settled) => settled.kept.get(uid).map_or(Ok(()), |kept| Err(BalancerError::Kept(kept.clone()))),
                // What cannot be created sends no traffic: it need not show that there is none.
                Err(BalancerError::NamespaceEnding { .. }) if !desired.is_serving() => Ok(()),
                Err(error) => Err(error.clone()),
            };
            results.insert(uid.clone(), result);
        }
        results
    }

    /// Writes until there is nothing left to write. What the panic floor withholds is decided anew in each round, on the slices
    /// that the round replaces.
    async fn settle(&self, mut desired: Vec<DesiredEndpoint>) -> Result<Settled, BalancerError> {
        let context = &self.context;
        let mut superseded = BTreeSet::new();
        let mut unlabelled: Vec<Arc<EndpointSlice>> = Vec::new();
        for _ in 0..MAX_ROUNDS {
            let mut slices = context.cache.slices_of(&self.service);
            slices.append(&mut unlabelled);
            let find = |endpoint: &Endpoint, uid: &str| context.floor.server(endpoint, uid);
            let promised = |server: &Server| plan::desired(server, context.clock.now(), context.subsets.of(server));
            desired.append(&mut owed(&self.service, &slices, &desired, find, promised));
            let (services, api) = (&context.services, &context.api);
            let kept = context.floor.withheld(&self.service, &slices, &desired, (services, api)).await;
            let wanted = desired.iter().filter(|desired| !kept.contains_key(&desired.server.uid));
            let next = next_writes(&self.service.namespace, &slices, wanted);
            let mut outdated = next.superseded.clone();
            outdated.append(&mut self.outdated_additions(&next, &desired).await?);
            if !outdated.is_empty() {
                desired.retain(|desired| !outdated.contains(&desired.server.uid));
                superseded.append(&mut outdated);
                continue;
            }
            if next.writes.is_empty() {
                return Ok(Settled { superseded, kept });
            }
            unlabelled = self.write_round(next).await?;
        }
        Err(self.unavailable("others keep changing them; trying again later"))
    }

    /// Carries out the writes of one round, up to the first slice that somebody else has changed. Returns a slice that has one
    /// of our names without our labels: somebody has removed these, and the next round restores them.
    async fn write_round(&self, next: NextWrites) -> Result<Vec<Arc<EndpointSlice>>, BalancerError> {
        for write in next.writes {
            match self.context.api.write(&self.service.namespace, write, &self.context.cache).await? {
                WriteResult::Written => {}
                WriteResult::Stale => {
                    self.context.cache.replace_service(&self.service, self.context.api.list(&self.service).await?);
                    return Ok(Vec::new());
                }
                WriteResult::NameTaken(name) => {
                    let listed = self.context.api.list(&self.service).await?;
                    let is_listed = listed.iter().any(|slice| slice.metadata.name.as_ref() == Some(&name));
                    self.context.cache.replace_service(&self.service, listed);
                    if is_listed {
                        return Ok(Vec::new());
                    }
                    let unlabelled = self.context.api.get(&self.service.namespace, &name).await?;
                    return Ok(unlabelled.map(Arc::new).into_iter().collect());
                }
            }
        }
        Ok(Vec::new())
    }

    /// UIDs of the Servers whose endpoint must not be added any more. An endpoint that does not exist records no version, so
    /// the decision to add one may be older than the decision that removed it. Therefore the Server itself is read, after the
    /// slices were read: a removal before that shows in the Server, and a removal after that changes the slice, so that the
    /// guarded write fails.
    ///
    /// An endpoint that gets no traffic needs no such read, because it does no harm: its report fails, and it is removed again.
    async fn outdated_additions(
        &self,
        next: &NextWrites,
        desired: &[DesiredEndpoint],
    ) -> Result<BTreeSet<String>, BalancerError> {
        let is_risky = |desired: &&DesiredEndpoint| !desired.is_held() && next.added.contains(&desired.server.uid);
        let added: Vec<_> = desired.iter().filter(is_risky).collect();
        let mut outdated = BTreeSet::new();
        for chunk in added.chunks(CONCURRENT_READS) {
            let servers = try_join_all(chunk.iter().map(|desired| self.context.api.server(&desired.server))).await?;
            for (desired, server) in chunk.iter().zip(servers) {
                if !server.is_some_and(|server| self.is_desired_by(&server, desired)) {
                    outdated.insert(desired.server.uid.clone());
                }
            }
        }
        Ok(outdated)
    }

    fn is_desired_by(&self, server: &Server, desired: &DesiredEndpoint) -> bool {
        let now_desired = plan::desired(server, self.context.clock.now(), self.context.subsets.of(server));
        let (Some(registration), Some(spec)) = (now_desired, &desired.endpoint) else {
            return false;
        };
        server.uid() == desired.server.uid
            && registration.services.contains(&spec.backend)
            && registration.address == spec.address
            && registration.phase == spec.phase
    }

    fn unavailable(&self, reason: &str) -> BalancerError {
        let ServiceKey { namespace, name } = &self.service;
        let action = format!("write the EndpointSlices of Service {namespace}/{name}");
        BalancerError::Unavailable { action, reason: reason.to_owned() }
    }
}

/// By UID, what was decided on the newest version of each Server.
fn newest_of_each_server<'a>(batch: impl Iterator<Item = &'a DesiredEndpoint>) -> BTreeMap<String, DesiredEndpoint> {
    let mut newest: BTreeMap<String, DesiredEndpoint> = BTreeMap::new();
    for desired in batch {
        let known = newest.entry(desired.server.uid.clone()).or_insert_with(|| desired.clone());
        if known.version <= desired.version {
            let must_record_version = known.must_record_version || desired.must_record_version;
            *known = DesiredEndpoint { must_record_version, ..desired.clone() };
        }
    }
    newest
}
