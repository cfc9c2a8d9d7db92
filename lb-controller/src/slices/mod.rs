//! The load balancer that Kubernetes itself is: EndpointSlices of a Service.
//!
//! A Server is one endpoint: *held* (not ready, not serving), *draining* (not ready, serving, terminating) or
//! *serving* (ready). Where it lives is said in `layout`, which writes bring it there in `edit`.

mod edit;
mod endpoint;
mod layout;
mod queue;
mod store;
mod view;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use berth_core::api::Server;
use futures::future::{BoxFuture, try_join_all};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Client, ResourceExt, runtime::watcher};

use self::{
    edit::{Show, Want},
    endpoint::Who,
    queue::Queue,
    store::Store,
    view::{ServiceKey, View},
};
use crate::{
    Now,
    balancer::{BalancerError, LoadBalancer, Member},
    plan::Registration,
};

/// How long a Service that was there is taken to be there still.
const EXISTS: Duration = Duration::from_secs(30);

/// Which Server an endpoint is of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerId {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

impl ServerId {
    /// The Server's.
    #[must_use]
    pub fn of(server: &Server) -> Option<Self> {
        let uid = server.metadata.uid.clone()?;
        Some(Self { namespace: server.namespace()?, name: server.name_any(), uid })
    }
}

/// EndpointSlices as a load balancer.
pub struct EndpointSlices {
    store: Store,
    view: Arc<View>,
    now: Now,
    window: Duration,
    queues: Mutex<HashMap<ServiceKey, Arc<Queue>>>,
    /// When each Service was last seen to exist.
    existing: Mutex<HashMap<ServiceKey, Instant>>,
}

impl EndpointSlices {
    /// The slices that this client can reach. Changes that arrive within `window` are written together.
    #[must_use]
    pub fn new(client: Client, now: Now, window: Duration) -> Self {
        let store = Store::new(client);
        Self { store, view: Arc::default(), now, window, queues: Mutex::default(), existing: Mutex::default() }
    }

    /// Which slices to watch.
    #[must_use]
    pub fn watch_config() -> watcher::Config {
        watcher::Config::default().labels(&format!("{}={}", layout::MANAGED_BY, layout::MANAGER)).page_size(50)
    }

    /// Takes in what the watch brings. Returns the Servers whose endpoints are not as this process knew them.
    pub fn observe(&self, event: &watcher::Event<EndpointSlice>) -> Vec<ServerId> {
        self.view.observe(event)
    }

    /// Those of the Services that do not exist: without its Service a slice does nothing.
    pub async fn missing_services(&self, namespace: &str, target: &Registration) -> Result<Vec<String>, BalancerError> {
        let mut missing = Vec::new();
        for backend in &target.services {
            if !self.exists(namespace, &backend.name).await? {
                missing.push(backend.name.clone());
            }
        }
        Ok(missing)
    }

    /// Whether the Service exists. One that was there is asked for again after a while only: it is many Servers'.
    async fn exists(&self, namespace: &str, name: &str) -> Result<bool, BalancerError> {
        let key = (namespace.to_owned(), name.to_owned());
        if self.existing().get(&key).is_some_and(|at| at.elapsed() < EXISTS) {
            return Ok(true);
        }
        let exists = self.store.service_exists(namespace, name).await?;
        let mut existing = self.existing();
        existing.retain(|_, at| at.elapsed() < EXISTS);
        if exists {
            existing.insert(key, Instant::now());
        }
        Ok(exists)
    }

    fn existing(&self) -> MutexGuard<'_, HashMap<ServiceKey, Instant>> {
        self.existing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queue(&self, key: &ServiceKey) -> Arc<Queue> {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || {
            Arc::new(Queue::new(
                key.clone(),
                self.store.clone(),
                Arc::clone(&self.view),
                Arc::clone(&self.now),
                self.window,
            ))
        };
        Arc::clone(queues.entry(key.clone()).or_insert_with(new))
    }

    /// What each Service is to show of the Server: those that it belongs to, and those that know it and should not.
    fn wants(&self, member: &Member) -> BTreeMap<ServiceKey, Want> {
        let who = Who {
            namespace: member.namespace.clone(),
            name: member.name.clone(),
            uid: member.uid.clone(),
            version: member.version,
        };
        let want = |show| Want { who: who.clone(), show, fence: member.fence };
        let mut wants: BTreeMap<_, _> =
            self.view.services_of(&member.uid).into_iter().map(|key| (key, want(None))).collect();
        if let Some(target) = &member.target {
            for backend in &target.services {
                let show = Show { backend: backend.clone(), address: target.address.clone(), phase: target.phase };
                wants.insert((member.namespace.clone(), backend.name.clone()), want(Some(show)));
            }
        }
        wants
    }
}

impl LoadBalancer for EndpointSlices {
    fn name(&self) -> &'static str {
        "endpointslices"
    }

    fn shows(&self, member: &Member) -> bool {
        self.wants(member).into_iter().all(|(key, want)| {
            // Whether the others are as they should be is asked when they are looked at, and when something is written.
            let round = edit::round(&key.0, &self.view.around(&key, &member.uid), &[want]);
            round.writes.is_empty() && round.superseded.is_empty()
        })
    }

    fn apply<'a>(&'a self, member: &'a Member) -> BoxFuture<'a, Result<(), BalancerError>> {
        Box::pin(async move {
            let changes = self.wants(member).into_iter().map(|(key, want)| {
                let queue = self.queue(&key);
                async move { queue.submit(want).await }
            });
            try_join_all(changes).await?;
            Ok(())
        })
    }
}
