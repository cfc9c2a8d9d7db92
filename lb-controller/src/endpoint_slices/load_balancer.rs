//! EndpointSlices as a load balancer.

use std::{
    collections::{BTreeMap, HashMap},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use berth_runtime::Context;
use futures::{
    StreamExt,
    future::{BoxFuture, join_all},
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{
    Api,
    runtime::{WatchStreamExt, watcher},
};
use parking_lot::Mutex;

use super::{
    floor::PanicFloor,
    keys::ServiceKey,
    next_writes::{DesiredEndpoint, EndpointSpec, next_writes},
    service_lookup::ServiceLookup,
    service_writer::{ServiceWriter, WriterContext},
    slice_api::SliceApi,
    slice_cache::SliceCache,
    slice_group::{MANAGED_BY, MANAGER},
};
use crate::{
    balancer::{BalancerError, LoadBalancer, Observer, Problem},
    member::{Member, ServerRef, has_panic_floor},
    subsets::Subsets,
};

/// Slices in one page of the first list: a full slice has up to 40 KB, so a page has up to 2 MB.
const PAGE_SIZE: u32 = 50;

/// EndpointSlices as a load balancer.
pub struct EndpointSlices {
    context: Arc<WriterContext>,
    writers: Mutex<HashMap<ServiceKey, Arc<ServiceWriter>>>,
}

impl EndpointSlices {
    /// The slices that the client of this context can reach. Changes that arrive within `batch_window` are written together.
    #[must_use]
    pub fn new(ctx: &Context, batch_window: Duration, floor: PanicFloor, subsets: Subsets) -> Self {
        let context = WriterContext {
            api: SliceApi::new(ctx.client.clone()),
            cache: SliceCache::default(),
            clock: ctx.clock.clone(),
            batch_window,
            services: ServiceLookup::default(),
            floor,
            subsets,
        };
        Self { context: Arc::new(context), writers: Mutex::default() }
    }

    /// Keeps the cache up to date, and tells the observer which Servers somebody else has changed.
    async fn follow(&self, ctx: Context, mut observer: Observer) {
        let slices = Api::<EndpointSlice>::all(ctx.client.clone());
        let selected = watcher::Config::default().labels(&format!("{MANAGED_BY}={MANAGER}")).page_size(PAGE_SIZE);
        let mut events = pin!(watcher(slices, selected).default_backoff());
        loop {
            let event = tokio::select! {
                biased;
                () = ctx.shutdown.cancelled() => return,
                event = events.next() => event,
            };
            match event {
                Some(Ok(event)) => {
                    let changed = self.context.cache.observe(&event);
                    for server in changed.into_iter().chain(self.kept_with_room(&event)) {
                        observer.changed(server);
                    }
                    if matches!(event, watcher::Event::InitDone) {
                        observer.synced();
                    }
                }
                Some(Err(error)) => tracing::warn!(%error, "the watch of EndpointSlices failed; starting it again"),
                None => return,
            }
        }
    }

    /// The Servers that a panic floor keeps in traffic, and that this event may have made room for.
    fn kept_with_room(&self, event: &watcher::Event<EndpointSlice>) -> Vec<ServerRef> {
        let (watcher::Event::Apply(slice) | watcher::Event::Delete(slice)) = event else { return Vec::new() };
        let service = ServiceKey::of_slice(slice);
        let slices = self.context.cache.slices_of(&service);
        self.context.floor.kept_with_room(&service, &slices)
    }

    fn writer(&self, service: &ServiceKey) -> Arc<ServiceWriter> {
        let new_writer = || Arc::new(ServiceWriter::new(service.clone(), Arc::clone(&self.context)));
        Arc::clone(self.writers.lock().entry(service.clone()).or_insert_with(new_writer))
    }

    /// What each Service should show of the Server: the Services that it belongs to, and those that show it and should not.
    fn desired_endpoints(&self, member: &Member) -> BTreeMap<ServiceKey, DesiredEndpoint> {
        let desired = |endpoint: Option<EndpointSpec>| {
            let subset = endpoint.as_ref().and_then(|spec| spec.backend.subset);
            DesiredEndpoint {
                server: member.server.clone(),
                version: member.version,
                endpoint,
                must_record_version: member.must_record_version,
                held_for: member.held_for.filter(|_| has_panic_floor(subset)),
            }
        };
        let shown = self.context.cache.services_with(&member.server.uid).into_iter();
        let mut endpoints: BTreeMap<_, _> = shown.map(|service| (service, desired(None))).collect();
        if let Some(registration) = &member.desired {
            for backend in &registration.services {
                let spec = EndpointSpec {
                    backend: backend.clone(),
                    address: registration.address.clone(),
                    phase: registration.phase,
                };
                let service = ServiceKey::new(&member.server.namespace, &backend.name);
                endpoints.insert(service, desired(Some(spec)));
            }
        }
        endpoints
    }

    /// A slice without its Service has no effect, and a threshold that cannot be read is not used.
    async fn problems_of_services(&self, member: &Member) -> Result<Vec<Problem>, BalancerError> {
        let context = &self.context;
        let mut problems = Vec::new();
        for backend in member.desired.iter().flat_map(|desired| &desired.services) {
            let service = ServiceKey::new(&member.server.namespace, &backend.name);
            match context.services.find(&context.api, &service).await? {
                Some(found) => problems.extend(context.floor.problem(&service, found.panic_threshold.as_deref())),
                None => {
                    let message = format!(
                        "spec.traffic.backends: Service {:?} does not exist: create it, without a selector",
                        backend.name
                    );
                    problems.push(Problem { reason: "ServiceMissing", message });
                }
            }
        }
        Ok(problems)
    }
}

impl LoadBalancer for EndpointSlices {
    fn name(&self) -> &'static str {
        "endpointslices"
    }

    fn run(self: Arc<Self>, ctx: Context, observer: Observer) -> BoxFuture<'static, ()> {
        Box::pin(async move { self.follow(ctx, observer).await })
    }

    fn shows(&self, member: &Member) -> bool {
        self.desired_endpoints(member).into_iter().all(|(service, desired)| {
            // The slices with the Server are enough: what is wrong with the other slices of the Service is found when their own
            // Servers are reconciled, and when anything is written.
            let slices = self.context.cache.slices_with(&service, &member.server.uid);
            let next = next_writes(&service.namespace, &slices, &[desired]);
            next.writes.is_empty() && next.superseded.is_empty()
        })
    }

    fn apply<'a>(&'a self, member: &'a Member) -> BoxFuture<'a, Result<(), BalancerError>> {
        Box::pin(async move {
            let changes = self.desired_endpoints(member).into_iter().map(|(service, desired)| {
                let writer = self.writer(&service);
                async move { writer.submit(desired).await }
            });
            // All are carried out, whatever becomes of the others.
            let failures = join_all(changes).await.into_iter().filter_map(Result::err);
            failures.min_by_key(BalancerError::rank).map_or(Ok(()), Err)
        })
    }

    /// Nobody counts the connections of a Service.
    fn is_idle(&self, member: &Member) -> bool {
        member.desired.as_ref().is_none_or(|desired| desired.services.is_empty())
    }

    fn problems<'a>(&'a self, member: &'a Member) -> BoxFuture<'a, Result<Vec<Problem>, BalancerError>> {
        Box::pin(self.problems_of_services(member))
    }
}
