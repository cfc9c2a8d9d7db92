//! An API server in memory, for tests: one Server, behind the real rules of the webhook, and one ConfigMap list.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use axum::body::{Body as AnswerBody, Bytes};
use berth_core::{
    api::{Executor, Server, ServerStatus},
    identity::{Author, Identities},
    lifecycle::{admit_create, admit_status},
};
use futures::StreamExt;
use http::{Method, Request, Response};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::{Client, client::Body};
use serde_json::{Value, json};
use tokio::{sync::mpsc, time::Instant};
use tower::{BoxError, service_fn};

use crate::{Clock, Context, ContextParts, Process, with_timeouts};

pub(crate) const LOCK: Duration = Duration::from_secs(30);

/// What goes wrong with a status write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// Nobody answers, and nothing is written.
    Silence,
    /// It is written, and nobody answers.
    LostAnswer,
    /// The server cannot serve now.
    Unavailable,
}

/// Tokio's clock, which tests can pause, as a wall clock.
pub(crate) struct TokioClock(Instant);

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        let elapsed = SignedDuration::try_from(self.0.elapsed()).unwrap();
        Timestamp::from_second(1_800_000_000).unwrap() + elapsed
    }
}

pub(crate) struct State {
    pub(crate) server: Value,
    version: u64,
    watchers: Vec<mpsc::UnboundedSender<Result<Bytes, BoxError>>>,
    /// What the watchers are not told yet, while they are told nothing.
    held: Option<Vec<String>>,
    /// For the next status writes; then none.
    pub(crate) faults: VecDeque<Fault>,
    /// For every status write, once `faults` is used up.
    pub(crate) always: Fault,
    /// The body of every status write that arrived, and when.
    pub(crate) patches: Vec<(Instant, Value)>,
    /// Method and body of the writes of Events.
    pub(crate) events: Vec<(Method, Value)>,
    pub(crate) lists: usize,
}

/// The API server.
#[derive(Clone)]
pub(crate) struct FakeApi {
    state: Arc<Mutex<State>>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl FakeApi {
    /// With one Server that has just been acknowledged: its first task is CreateMachine.
    pub(crate) fn new() -> Self {
        let clock: Arc<dyn Clock> = Arc::new(TokioClock(Instant::now()));
        let object = json!({
            "apiVersion": "berth.dev/v1alpha1", "kind": "Server",
            "metadata": {"name": "web-1", "namespace": "default", "uid": "u-1", "generation": 1, "resourceVersion": "1",
                         "managedFields": [{"manager": "x", "time": "2026-01-01T00:00:05Z", "fieldsV1": {"f:spec": {}}},
                                           {"manager": "y", "time": "2026-01-01T00:00:02Z"}]},
            "spec": {"machine": {"className": "small"},
                     "packages": [{"name": "jq", "version": "1.7", "apt": {}}]}
        });
        let person = Author::new("ann");
        let server = admit_create(serde_json::from_value(object).unwrap(), &person, clock.now()).unwrap();
        let state = State {
            server: serde_json::to_value(server).unwrap(),
            version: 1,
            watchers: Vec::new(),
            held: None,
            faults: VecDeque::new(),
            always: Fault::None,
            patches: Vec::new(),
            events: Vec::new(),
            lists: 0,
        };
        let api = Self { state: Arc::new(Mutex::new(state)), clock };
        api.write_as(Executor::ReplicasetController, |status| status.observed_generation = Some(1));
        api
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn server(&self) -> Server {
        serde_json::from_value(self.state().server.clone()).unwrap()
    }

    /// A status write past the network.
    pub(crate) fn write_as(&self, executor: Executor, change: impl FnOnce(&mut ServerStatus)) {
        let mut new = self.server();
        change(new.status.get_or_insert_default());
        self.admit(executor, new).unwrap();
    }

    /// Changes the declaration, as a person, and lets the webhook decide.
    pub(crate) fn declare(&self, change: impl FnOnce(&mut Server)) {
        let mut server = self.server();
        change(&mut server);
        self.store(serde_json::to_value(server).unwrap());
        self.write_as(Executor::ReplicasetController, |_| ());
    }

    fn admit(&self, executor: Executor, new: Server) -> Result<(), String> {
        let ids = Identities::default();
        let author = Author::new(ids.username(executor));
        let stored = admit_status(&self.server(), new, &author, &ids, self.clock.now()).map_err(|r| r.to_string())?;
        self.store(serde_json::to_value(stored).unwrap());
        Ok(())
    }

    /// Stores an object as it is, and tells the watchers.
    pub(crate) fn store(&self, mut object: Value) {
        let mut state = self.state();
        state.version += 1;
        object["metadata"]["resourceVersion"] = state.version.to_string().into();
        state.server.clone_from(&object);
        Self::send(&mut state, "MODIFIED", &object);
    }

    /// Tells the watchers of an object that is not the Server.
    pub(crate) fn tell(&self, kind: &str, object: &Value) {
        Self::send(&mut self.state(), kind, object);
    }

    fn send(state: &mut State, kind: &str, object: &Value) {
        // The type comes first, as the API server writes it.
        let line = format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n");
        match &mut state.held {
            Some(held) => held.push(line),
            None => Self::deliver(state, &line),
        }
    }

    fn deliver(state: &mut State, line: &str) {
        state.watchers.retain(|w| w.send(Ok(Bytes::from(line.to_owned()))).is_ok());
    }

    /// From now on the watchers are told nothing; or they are told everything again, also what they have missed.
    pub(crate) fn hold_watch(&self, hold: bool) {
        let mut state = self.state();
        let missed = if hold { state.held.replace(Vec::new()) } else { state.held.take() };
        for line in missed.unwrap_or_default() {
            Self::deliver(&mut state, &line);
        }
    }

    pub(crate) fn client(&self) -> Client {
        let api = self.clone();
        let service = service_fn(move |request| {
            let api = api.clone();
            async move { api.answer(request).await }
        });
        Client::new(with_timeouts(service, Duration::from_secs(10)), "default")
    }

    pub(crate) fn context(&self, instance: &str) -> Context {
        let parts = ContextParts {
            client: self.client(),
            executor: Executor::ReplicasetController,
            instance: instance.to_owned(),
            identities: Identities::default(),
            clock: self.clock.clone(),
            lock_duration: LOCK,
            concurrency: 4,
        };
        Context::new(&Process::default(), parts)
    }

    async fn answer(&self, request: Request<Body>) -> Result<Response<AnswerBody>, BoxError> {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let watches = request.uri().query().is_some_and(|q| q.contains("watch=true"));
        let body: Value = serde_json::from_slice(&request.into_body().collect_bytes().await?).unwrap_or_default();
        match (method, path.as_str()) {
            (Method::GET, "/apis/berth.dev/v1alpha1/servers") if watches => Ok(self.watch()),
            (Method::GET, "/apis/berth.dev/v1alpha1/servers") => Ok(self.list()),
            (Method::PATCH, "/apis/berth.dev/v1alpha1/namespaces/default/servers/web-1/status") => {
                self.status_write(body).await
            }
            (method, path) if path.starts_with("/api/v1/namespaces/default/events") => {
                self.state().events.push((method, body.clone()));
                let name = path.rsplit('/').next().filter(|n| *n != "events").unwrap_or("created");
                let mut event =
                    json!({"apiVersion": "v1", "kind": "Event", "involvedObject": {}, "metadata": {"name": name}});
                if let Some(name) = body["metadata"]["name"].as_str() {
                    event["metadata"]["name"] = name.into();
                }
                Ok(json_answer(200, &event))
            }
            (method, path) => Ok(failure(404, &format!("{method} {path} is not served"))),
        }
    }

    fn list(&self) -> Response<AnswerBody> {
        let mut state = self.state();
        state.lists += 1;
        let metadata = json!({"resourceVersion": state.version.to_string()});
        json_answer(
            200,
            &json!({"kind": "ServerList", "apiVersion": "berth.dev/v1alpha1", "metadata": metadata,
            "items": [state.server.clone()]}),
        )
    }

    fn watch(&self) -> Response<AnswerBody> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.state().watchers.push(sender);
        let lines = futures::stream::unfold(receiver, |mut r| async move { r.recv().await.map(|line| (line, r)) });
        Response::new(AnswerBody::from_stream(lines.boxed()))
    }

    async fn status_write(&self, body: Value) -> Result<Response<AnswerBody>, BoxError> {
        let fault = {
            let mut state = self.state();
            state.patches.push((Instant::now(), body.clone()));
            state.faults.pop_front().unwrap_or(state.always)
        };
        match fault {
            Fault::Silence => std::future::pending().await,
            Fault::Unavailable => Ok(failure(503, "no")),
            Fault::LostAnswer => {
                self.patch(body);
                std::future::pending().await
            }
            Fault::None => Ok(self.patch(body)),
        }
    }

    fn patch(&self, body: Value) -> Response<AnswerBody> {
        let patch: json_patch::Patch = serde_json::from_value(body).unwrap();
        let mut new = self.state().server.clone();
        if let Err(error) = json_patch::patch(&mut new, &patch) {
            return failure(422, &format!("testing value failed: {error}"));
        }
        let admitted = self.admit(Executor::ReplicasetController, serde_json::from_value(new).unwrap());
        match admitted {
            Ok(()) => json_answer(200, &self.state().server),
            Err(refusal) => {
                failure(403, &format!("admission webhook \"servers.berth.dev\" denied the request: {refusal}"))
            }
        }
    }
}

fn json_answer(code: u16, value: &Value) -> Response<AnswerBody> {
    Response::builder().status(code).body(AnswerBody::from(value.to_string())).unwrap()
}

fn failure(code: u16, message: &str) -> Response<AnswerBody> {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "X", "code": code, "message": message});
    json_answer(code, &status)
}
