//! A Kubernetes API server in memory, behind `kube::Client`.
//!
//! It has what Berth's programs use of the real one: Berth's CRDs with their schemas, a few built-in kinds, optimistic
//! concurrency, generations, subresources, patches, finalizers, garbage collection, pages, watches, and admission by the
//! webhook's router. `tests/contract` runs one suite of behaviours against this API server and against a real
//! kube-apiserver, so that the two agree.
//!
//! It has no thread, no random number and no clock of its own: under tokio's paused time on one thread, the same requests give
//! the same answers.

mod admission;
mod apply;
mod dependents;
mod failure;
mod garbage;
mod list_keys;
mod metadata;
mod newer;
mod node;
mod policies;
mod rbac;
mod read;
mod request;
mod resources;
mod rule;
mod saves;
mod schema;
mod selectors;
mod store;
pub(crate) mod trouble;
mod watch;
mod write;

use std::{
    fmt,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Body as ResponseBody};
use berth_runtime::Clock as _;
use http::{Method, Request, Response, header};
use k8s_openapi::jiff::Timestamp;
use kube::{Client, client::Body};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tower::{BoxError, Service, service_fn};

pub use admission::BadWebhooks;
pub(crate) use newer::FIELD_FROM_THE_FUTURE;
pub use rbac::BadRights;
pub use resources::BadDefinition;
pub(crate) use store::{Change, Stored, snapshot::Snapshot};

use self::{
    admission::{Webhook, Webhooks},
    dependents::Key,
    failure::Failure,
    metadata::text,
    policies::Policies,
    rbac::Rbac,
    request::{Call, Parameters, Target, target, view},
    resources::Resource,
    store::Store,
};
use crate::{
    SimClock,
    hot_loop::{self, RecentRequests},
};

/// The CRD of Servers.
const SERVERS: &str = include_str!("../../../deploy/crds/servers.yaml");

/// Berth's CRDs, as they are shipped. That of Servers gets one more field, for upgrades.
const CRDS: [&str; 8] = [
    include_str!("../../../deploy/crds/approvals.yaml"),
    include_str!("../../../deploy/crds/balancerclasses.yaml"),
    include_str!("../../../deploy/crds/machineclasses.yaml"),
    include_str!("../../../deploy/crds/deployclasses.yaml"),
    include_str!("../../../deploy/crds/monitoringclasses.yaml"),
    SERVERS,
    include_str!("../../../deploy/crds/vmdeployments.yaml"),
    include_str!("../../../deploy/crds/vmreplicasets.yaml"),
];

/// Berth's registration of its webhook, as it is shipped.
const WEBHOOK_CONFIGURATION: &str = include_str!("../../../deploy/base/webhook-configuration.yaml");

/// The kinds of all API servers, read once: that takes longer than a short run.
static RESOURCES: LazyLock<Result<Vec<Resource>, BadDefinition>> = LazyLock::new(|| {
    let defined = CRDS.into_iter().map(|crd| {
        let crd = if crd == SERVERS { &newer::newer(crd)? } else { crd };
        resources::from_crd(crd)
    });
    resources::built_in().into_iter().map(Ok).chain(defined).collect()
});

/// The webhooks of all API servers, read once.
static WEBHOOKS: LazyLock<Result<Vec<Webhook>, BadWebhooks>> =
    LazyLock::new(|| admission::registered(WEBHOOK_CONFIGURATION));

/// The rights that are shipped, read once.
static RBAC: LazyLock<Result<Arc<Rbac>, BadRights>> = LazyLock::new(|| Rbac::shipped().map(Arc::new));

/// The policies that are shipped, read once.
static POLICIES: LazyLock<Result<Policies, String>> = LazyLock::new(Policies::shipped);

/// An API server in memory. Clones share it.
#[derive(Clone)]
pub struct ApiServer(Arc<Inner>);

struct Inner {
    resources: &'static [Resource],
    store: Arc<Mutex<Store>>,
    rbac: Arc<Rbac>,
    policies: &'static Policies,
    webhooks: Option<Webhooks>,
    clock: SimClock,
    /// How many UIDs were given.
    uids: AtomicU64,
    /// A line for each request that was answered.
    log: Mutex<Vec<String>>,
    keeps_no_log: AtomicBool,
    requests: AtomicU64,
    writes: AtomicU64,
    recent: Mutex<RecentRequests>,
}

impl ApiServer {
    /// An API server with Berth's CRDs and the namespaces `default` and `berth-system`. Writes are admitted by the webhook behind
    /// this router, if there is one.
    ///
    /// # Errors
    /// When the shipped manifests cannot be used.
    pub fn new(clock: SimClock, webhook: Option<Router>) -> Result<Self, Box<dyn std::error::Error>> {
        let resources = RESOURCES.as_ref()?;
        let registered = WEBHOOKS.as_ref()?;
        let webhooks = webhook.map(|router| Webhooks { router, registered });
        let api = Self(Arc::new(Inner {
            resources,
            store: Arc::new(Mutex::new(Store::new(resources.len()))),
            rbac: RBAC.as_ref()?.clone(),
            policies: POLICIES.as_ref().map_err(String::as_str)?,
            webhooks,
            clock,
            uids: AtomicU64::new(0),
            log: Mutex::default(),
            keeps_no_log: AtomicBool::new(false),
            requests: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            recent: Mutex::default(),
        }));
        for namespace in ["default", "kube-system", "berth-system"] {
            api.add_namespace(namespace);
        }
        Ok(api)
    }

    /// The time of the API server.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.0.clock.now()
    }

    /// A line for each request that was answered so far: when, who, what, and the answer.
    #[must_use]
    pub fn log(&self) -> Vec<String> {
        self.0.log.lock().clone()
    }

    /// A client of this user, without time limits of its own.
    #[must_use]
    pub fn client(&self, user: &str) -> Client {
        Client::new(self.service(user), "default")
    }

    /// The way to the API server below a client of this user, for what may happen to requests and answers in between.
    #[must_use]
    pub fn service(
        &self,
        user: &str,
    ) -> impl Service<Request<Body>, Response = Response<ResponseBody>, Error = BoxError, Future: Send>
    + Clone
    + Send
    + 'static {
        let (api, user) = (self.clone(), Arc::<str>::from(user));
        service_fn(move |request| {
            let (api, user) = (api.clone(), user.clone());
            async move { Ok(api.respond(request, &user).await?) }
        })
    }

    /// Forgets all changes up to now, as etcd does from time to time. A watch or a list that is behind has to begin anew.
    pub fn compact(&self) {
        self.0.store.lock().compact();
    }

    /// Rules of the shipped schemas that are not evaluated here, because they use functions that only Kubernetes has.
    #[must_use]
    pub fn unsupported_rules(&self) -> Vec<&str> {
        let mut rules: Vec<&str> = self
            .0
            .resources
            .iter()
            .filter_map(|resource| resource.schema.as_ref())
            .flat_map(schema::Schema::unsupported)
            .collect();
        rules.sort_unstable();
        rules.dedup();
        rules
    }

    /// Policies that are not evaluated here, and why.
    #[must_use]
    pub fn unsupported_policies(&self) -> &[String] {
        self.0.policies.unsupported()
    }

    /// All objects of this kind, as their type; those that are something else are left out.
    pub(crate) fn objects<K: DeserializeOwned + Clone + Send + Sync + 'static>(&self, plural: &str) -> Vec<K> {
        self.decoded(plural).iter().map(|object: &Arc<K>| (**object).clone()).collect()
    }

    /// The same, shared: for what looks often.
    pub(crate) fn decoded<K: DeserializeOwned + Send + Sync + 'static>(&self, plural: &str) -> Vec<Arc<K>> {
        let Some(resource) = self.position(plural) else { return Vec::new() };
        self.0.store.lock().of_kind(resource).filter_map(|(_, object)| object.decoded()).collect()
    }

    /// How many requests were answered.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.0.requests.load(Ordering::Relaxed)
    }

    /// Lets this see each change of an object as it happens: the plural name of its kind, the change, and who made it. It must not
    /// ask the API server, which is in the middle of a write.
    pub(crate) fn set_witness(&self, mut witness: impl FnMut(&str, &Change, &str) + Send + 'static) {
        let plurals: Vec<String> = self.0.resources.iter().map(|resource| resource.plural.clone()).collect();
        let witness = move |change: &Change, author: &str| witness(&plurals[change.key.resource], change, author);
        self.0.store.lock().set_witness(Box::new(witness));
    }

    /// Lets this see each accepted claim of a Server's lock: the Server's namespace and name, and the holder.
    pub(crate) fn set_claim_witness(&self, mut witness: impl FnMut(&str, &str, &str) + Send + 'static) {
        let witness = move |place: &(String, String), holder: &str| witness(&place.0, &place.1, holder);
        self.0.store.lock().set_claim_witness(Box::new(witness));
    }

    /// How many writes were answered with success. What has to be renewed is left out: Leases, and the mark by which
    /// replicaset-controller notices a restored etcd.
    pub(crate) fn writes(&self) -> u64 {
        self.0.writes.load(Ordering::Relaxed)
    }

    /// The first object that was written or read in a hot loop.
    pub(crate) fn hot_loop(&self) -> Option<String> {
        self.0.recent.lock().hot_loop()
    }

    /// How old the world is.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.0.clock.elapsed()
    }

    /// Adds a line to the log.
    pub(crate) fn note(&self, line: &str) {
        self.log_line(format_args!("{line}"));
    }

    /// Keeps no log from now on: that of a large fleet does not fit into memory.
    pub(crate) fn keep_no_log(&self) {
        self.0.keeps_no_log.store(true, Ordering::Relaxed);
    }

    fn log_line(&self, line: fmt::Arguments<'_>) {
        if !self.0.keeps_no_log.load(Ordering::Relaxed) {
            self.0.log.lock().push(format!("{} ms: {line}", self.elapsed().as_millis()));
        }
    }

    /// Answers as if this object was stored, in a new version.
    pub(crate) fn accept(&self, object: &[u8]) -> Response<ResponseBody> {
        let mut object: Value = serde_json::from_slice(object).unwrap_or_default();
        object["metadata"]["resourceVersion"] = (self.0.store.lock().revision() + 1).to_string().into();
        failure::respond(200, &object)
    }

    pub(crate) async fn respond(
        &self,
        request: Request<Body>,
        user: &str,
    ) -> Result<Response<ResponseBody>, kube::Error> {
        let (head, body) = request.into_parts();
        let body = body.collect_bytes().await?;
        let header =
            |name| head.headers.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok()).unwrap_or_default();
        let call = Call {
            method: head.method.clone(),
            parameters: Parameters::of(&head.uri),
            view: view(header(header::ACCEPT)),
            content_type: header(header::CONTENT_TYPE).to_owned(),
            body: body.to_vec(),
            user: user.to_owned(),
        };
        let outcome = match target(self.0.resources, head.uri.path()) {
            Ok(target) => self.dispatch(&call, &target).await,
            Err(failure) => Err(failure),
        };
        let why = outcome.as_ref().err().map(|failure| format!(": {}", failure.message)).unwrap_or_default();
        let response = outcome.unwrap_or_else(Failure::into_response);
        self.0.requests.fetch_add(1, Ordering::Relaxed);
        let path = head.uri.path();
        let subject = hot_loop::subject(&head.method, path, &call.body);
        self.0.recent.lock().count(&head.method, &subject, self.elapsed());
        let keeps_time = path.starts_with("/api/v1/namespaces/berth-system/configmaps") || path.contains("/leases");
        if response.status().is_success() && head.method != Method::GET && !keeps_time {
            self.0.writes.fetch_add(1, Ordering::Relaxed);
        }
        let (sent, code) = (String::from_utf8_lossy(&call.body), response.status().as_u16());
        self.log_line(format_args!("{user}: {} {} {sent} -> {code}{why}", head.method, head.uri));
        Ok(response)
    }

    async fn dispatch(&self, call: &Call, target: &Target) -> Result<Response<ResponseBody>, Failure> {
        self.0.rbac.check(call, self.resource(target), target)?;
        match (&call.method, &target.name) {
            (&Method::GET, Some(_)) => self.get(call, target),
            (&Method::GET, None) if call.parameters.flag("watch") => self.watch(call, target),
            (&Method::GET, None) => self.list(call, target),
            (&Method::POST, None) => self.create(call, target).await,
            (&Method::PUT, Some(name)) => self.update(call, target, name).await,
            (&Method::PATCH, Some(name)) => self.patch(call, target, name).await,
            (&Method::DELETE, Some(name)) if target.subresource.is_none() => self.delete(call, target, name),
            _ => Err(Failure::method_not_allowed()),
        }
    }

    fn resource(&self, target: &Target) -> &Resource {
        &self.0.resources[target.resource]
    }

    fn position(&self, plural: &str) -> Option<usize> {
        self.0.resources.iter().position(|resource| resource.plural == plural)
    }

    fn stored(&self, target: &Target, name: &str) -> Result<Arc<Stored>, Failure> {
        let found = self.0.store.lock().get(&target.key(name));
        found.ok_or_else(|| Failure::no_such_object(self.resource(target), name))
    }

    /// All objects of this kind, as stored.
    fn all_of_kind(&self, kind: &str) -> Vec<Arc<Stored>> {
        let Some(resource) = self.0.resources.iter().position(|resource| resource.kind == kind) else {
            return Vec::new();
        };
        self.0.store.lock().of_kind(resource).map(|(_, object)| object.clone()).collect()
    }

    fn next_uid(&self) -> String {
        let number = self.0.uids.fetch_add(1, Ordering::Relaxed) + 1;
        format!("00000000-0000-4000-8000-{number:012x}")
    }

    /// Whether objects can be created in the namespace.
    fn check_namespace(&self, namespace: &str) -> Result<(), Failure> {
        let resource = self.position("namespaces").unwrap_or_default();
        let key = Key { resource, place: (String::new(), namespace.to_owned()) };
        match self.0.store.lock().get(&key) {
            None => Err(Failure::no_such_object(&self.0.resources[resource], namespace)),
            Some(found) if text(&found, "deletionTimestamp").is_some() => {
                let message =
                    format!("unable to create new content in namespace {namespace} because it is being terminated");
                Err(Failure::forbidden(message))
            }
            Some(_) => Ok(()),
        }
    }

    fn add_namespace(&self, name: &str) {
        let resource = self.position("namespaces").unwrap_or_default();
        let key = Key { resource, place: (String::new(), name.to_owned()) };
        let mut object = serde_json::json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}}
        });
        metadata::begin(&self.0.resources[resource], &mut object, self.next_uid(), self.now());
        self.0.store.lock().put(&key, object);
    }
}

impl Target {
    fn key(&self, name: &str) -> Key {
        Key { resource: self.resource, place: (self.namespace.clone(), name.to_owned()) }
    }
}
