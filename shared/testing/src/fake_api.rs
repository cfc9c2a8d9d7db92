//! An API server in memory: one Server behind the webhook's real rules, its watch, and Events.

use std::{collections::VecDeque, sync::Arc};

use axum::body::{Body as ResponseBody, Bytes};
use berth_core::{
    api::{Executor, Server, ServerStatus},
    identity::{Author, Identities},
    lifecycle::{admit_create, admit_status},
};
use futures::StreamExt;
use http::{Method, Request, Response};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::{Client, client::Body};
use parking_lot::{Mutex, MutexGuard};
use serde_json::{Value, json};
use tokio::{sync::mpsc, time::Instant};
use tower::{BoxError, Service, service_fn};

use crate::{clock::start, objects};

const SERVERS: &str = "/apis/berth.dev/v1alpha1/servers";
const STATUS: &str = "/apis/berth.dev/v1alpha1/namespaces/default/servers/web-1/status";
const EVENTS: &str = "/api/v1/namespaces/default/events";

/// What goes wrong with a status write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiFault {
    /// Nothing.
    None,
    /// The API server never answers, and writes nothing.
    NoAnswer,
    /// The API server writes, and never answers.
    WrittenWithoutAnswer,
    /// The API server answers that it cannot serve now.
    Unavailable,
}

/// The content of a [`FakeApi`], and what was asked of it.
pub struct FakeApiState {
    /// The Server as it is stored.
    pub server: Value,
    version: u64,
    watchers: Vec<mpsc::UnboundedSender<Result<Bytes, BoxError>>>,
    /// The events of a paused watch, which its watchers get when it goes on.
    paused: Option<Vec<String>>,
    /// The faults of the next status writes, in their order.
    pub faults: VecDeque<ApiFault>,
    /// The fault of every status write after `faults`.
    pub always: ApiFault,
    /// The body of every status write, and when it arrived.
    pub patches: Vec<(Instant, Value)>,
    /// Method and body of every write of an Event.
    pub events: Vec<(Method, Value)>,
    /// How often the Servers were listed.
    pub lists: usize,
}

/// An API server in memory. Its clock follows tokio's, which a test can pause.
#[derive(Clone)]
pub struct FakeApi {
    state: Arc<Mutex<FakeApiState>>,
    started: Instant,
}

impl FakeApi {
    /// With one Server, `web-1`, after its first decision: its open task is CreateMachine.
    pub fn new() -> Self {
        let server = objects::server(json!({
            "metadata": {"name": "web-1", "uid": "u-1", "resourceVersion": "1",
                         "managedFields": [{"manager": "x", "time": "2026-01-01T00:00:05Z", "fieldsV1": {"f:spec": {}}},
                                           {"manager": "y", "time": "2026-01-01T00:00:02Z"}]},
            "spec": {"machine": {"className": "small"},
                     "packages": [{"name": "jq", "version": "1.7", "apt": {}}]}
        }));
        let server = admit_create(server, &Author::new("ann"), start()).unwrap();
        let state = FakeApiState {
            server: serde_json::to_value(server).unwrap(),
            version: 1,
            watchers: Vec::new(),
            paused: None,
            faults: VecDeque::new(),
            always: ApiFault::None,
            patches: Vec::new(),
            events: Vec::new(),
            lists: 0,
        };
        let api = Self { state: Arc::new(Mutex::new(state)), started: Instant::now() };
        api.write_as(Executor::ReplicasetController, |status| status.observed_generation = Some(1));
        api
    }

    /// The time of the API server and of everything that talks to it.
    pub fn now(&self) -> Timestamp {
        start() + SignedDuration::try_from(self.started.elapsed()).unwrap()
    }

    /// The content.
    pub fn state(&self) -> MutexGuard<'_, FakeApiState> {
        self.state.lock()
    }

    /// The Server as it is stored.
    pub fn server(&self) -> Server {
        serde_json::from_value(self.state().server.clone()).unwrap()
    }

    /// A status write of a controller that does not go through the network.
    pub fn write_as(&self, executor: Executor, change: impl FnOnce(&mut ServerStatus)) {
        let mut new = self.server();
        change(new.status.get_or_insert_default());
        self.admit(executor, new).unwrap();
    }

    /// A person changes the declaration, and the webhook decides on it.
    pub fn declare(&self, change: impl FnOnce(&mut Server)) {
        let mut server = self.server();
        change(&mut server);
        self.store(serde_json::to_value(server).unwrap());
        self.write_as(Executor::ReplicasetController, |_| ());
    }

    fn admit(&self, executor: Executor, new: Server) -> Result<(), String> {
        let ids = Identities::default();
        let author = Author::new(ids.username(executor));
        let stored = admit_status(&self.server(), new, &author, &ids, self.now()).map_err(|r| r.to_string())?;
        self.store(serde_json::to_value(stored).unwrap());
        Ok(())
    }

    /// Stores an object as it is, in a new version, and sends it to the watchers.
    pub fn store(&self, mut object: Value) {
        let mut state = self.state();
        state.version += 1;
        object["metadata"]["resourceVersion"] = state.version.to_string().into();
        state.server.clone_from(&object);
        state.send("MODIFIED", &object);
    }

    /// Sends an event of this type to the watchers, and stores nothing.
    pub fn notify_watchers(&self, event_type: &str, object: &Value) {
        self.state().send(event_type, object);
    }

    /// Sends no events until [`Self::resume_watch`].
    pub fn pause_watch(&self) {
        self.state().paused = Some(Vec::new());
    }

    /// Sends the events of the pause, and sends events at once from now on.
    pub fn resume_watch(&self) {
        let mut state = self.state();
        for line in state.paused.take().unwrap_or_default() {
            state.deliver(&line);
        }
    }

    /// A client without time limits of its own.
    pub fn client(&self) -> Client {
        Client::new(self.service(), "default")
    }

    /// The way to the API server below a client, for tests of what is between them.
    pub fn service(
        &self,
    ) -> impl Service<Request<Body>, Response = Response<ResponseBody>, Error = BoxError, Future: Send>
    + Clone
    + Send
    + 'static {
        let api = self.clone();
        service_fn(move |request| {
            let api = api.clone();
            async move { api.answer(request).await }
        })
    }

    async fn answer(&self, request: Request<Body>) -> Result<Response<ResponseBody>, BoxError> {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let watches = request.uri().query().is_some_and(|q| q.contains("watch=true"));
        let body: Value = serde_json::from_slice(&request.into_body().collect_bytes().await?).unwrap_or_default();
        match (method, path.as_str()) {
            (Method::GET, SERVERS) if watches => Ok(self.watch()),
            (Method::GET, SERVERS) => Ok(self.list()),
            (Method::PATCH, STATUS) => self.status_write(body).await,
            (method, path) if path.starts_with(EVENTS) => Ok(self.event(method, path, body)),
            (method, path) => Ok(failure(404, &format!("{method} {path} is not served"))),
        }
    }

    fn event(&self, method: Method, path: &str, body: Value) -> Response<ResponseBody> {
        let name = match body["metadata"]["name"].as_str() {
            Some(name) => name.to_owned(),
            None => path.rsplit('/').next().filter(|n| *n != "events").unwrap_or("created").to_owned(),
        };
        self.state().events.push((method, body));
        let event = json!({"apiVersion": "v1", "kind": "Event", "involvedObject": {}, "metadata": {"name": name}});
        success(&event)
    }

    fn list(&self) -> Response<ResponseBody> {
        let mut state = self.state();
        state.lists += 1;
        let metadata = json!({"resourceVersion": state.version.to_string()});
        success(&json!({"kind": "ServerList", "apiVersion": "berth.dev/v1alpha1", "metadata": metadata,
            "items": [state.server.clone()]}))
    }

    fn watch(&self) -> Response<ResponseBody> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.state().watchers.push(sender);
        let lines = futures::stream::unfold(receiver, |mut r| async move { r.recv().await.map(|line| (line, r)) });
        Response::new(ResponseBody::from_stream(lines.boxed()))
    }

    async fn status_write(&self, body: Value) -> Result<Response<ResponseBody>, BoxError> {
        let fault = {
            let mut state = self.state();
            state.patches.push((Instant::now(), body.clone()));
            state.faults.pop_front().unwrap_or(state.always)
        };
        match fault {
            ApiFault::NoAnswer => std::future::pending().await,
            ApiFault::Unavailable => Ok(failure(503, "no")),
            ApiFault::WrittenWithoutAnswer => {
                self.patch(body);
                std::future::pending().await
            }
            ApiFault::None => Ok(self.patch(body)),
        }
    }

    fn patch(&self, body: Value) -> Response<ResponseBody> {
        let patch: json_patch::Patch = serde_json::from_value(body).unwrap();
        let mut new = self.state().server.clone();
        if let Err(error) = json_patch::patch(&mut new, &patch) {
            return failure(422, &format!("testing value failed: {error}"));
        }
        let admitted = self.admit(Executor::ReplicasetController, serde_json::from_value(new).unwrap());
        match admitted {
            Ok(()) => success(&self.state().server),
            Err(refusal) => {
                failure(403, &format!("admission webhook \"servers.berth.dev\" denied the request: {refusal}"))
            }
        }
    }
}

impl FakeApiState {
    fn send(&mut self, event_type: &str, object: &Value) {
        // The type comes first, as the API server writes it.
        let line = format!("{{\"type\":\"{event_type}\",\"object\":{object}}}\n");
        match &mut self.paused {
            Some(paused) => paused.push(line),
            None => self.deliver(&line),
        }
    }

    fn deliver(&mut self, line: &str) {
        self.watchers.retain(|watcher| watcher.send(Ok(Bytes::from(line.to_owned()))).is_ok());
    }
}

fn success(value: &Value) -> Response<ResponseBody> {
    response(200, value)
}

fn failure(code: u16, message: &str) -> Response<ResponseBody> {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "X", "code": code, "message": message});
    response(code, &status)
}

fn response(code: u16, value: &Value) -> Response<ResponseBody> {
    Response::builder().status(code).body(ResponseBody::from(value.to_string())).unwrap()
}
