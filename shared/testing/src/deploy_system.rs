//! A deploy system on loopback, which holds both sides to `docs/executor.openapi.yaml`.

use std::{
    collections::{BTreeMap, VecDeque},
    net::Ipv4Addr,
    sync::Arc,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Path, State},
    http::{HeaderMap, Method, StatusCode, Uri},
    response::{IntoResponse, Response},
    routing::{post, put},
};
use futures::{StreamExt, stream};
use parking_lot::{Mutex, MutexGuard};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};

/// The contract.
const CONTRACT: &str = include_str!("../../../docs/executor.openapi.yaml");

/// The contract as a document.
pub fn executor_contract() -> Value {
    serde_saphyr::from_str(CONTRACT).unwrap()
}

/// What goes wrong with an answer.
#[derive(Clone, Debug)]
pub enum DeployFault {
    /// Nothing.
    None,
    /// Nothing is done, and there is no answer.
    NoAnswer,
    /// What was asked is done, and there is no answer.
    DoneWithoutAnswer,
    /// What was asked is done, and the answer breaks off.
    CutOff,
    /// What was asked is done, and the answer is this text.
    Garbled(&'static str),
    /// Nothing is done, and the answer is this.
    Refused(u16, Value),
}

/// The content of a [`FakeDeploySystem`], and what was asked of it.
#[derive(Default)]
pub struct DeployState {
    /// What looks at a job that is started show, one after another; the last one stays.
    pub plan: Vec<Value>,
    /// The faults of the next requests, in their order.
    pub faults: VecDeque<DeployFault>,
    /// The fault of every request after `faults`.
    pub always: Option<DeployFault>,
    /// Whether it goes on with jobs that are cancelled.
    pub ignores_cancel: bool,
    /// The header `Authorization` that is asked for.
    pub authorization: Option<String>,
    /// The jobs, by key: what the next looks show.
    pub jobs: BTreeMap<String, VecDeque<Value>>,
    /// The keys of the jobs that were begun, in their order: a start that is repeated begins none.
    pub begun: Vec<String>,
    /// The requests of these jobs.
    pub requests: Vec<Value>,
    /// Every request that was made, as `PUT key`, `GET key` and `POST key`.
    pub calls: Vec<String>,
    /// What was not as the contract says.
    pub violations: Vec<String>,
}

impl DeployState {
    /// Forgets all jobs.
    pub fn forget(&mut self) {
        self.jobs.clear();
    }

    /// From now on, looks at the job show this.
    pub fn set(&mut self, key: &str, shown: Value) {
        self.jobs.insert(key.to_owned(), [shown].into());
    }

    /// What runs after the job with this request, if the deployment was right.
    pub fn right(request: &Value) -> Value {
        let app = &request["application"];
        json!({"state": "Succeeded", "digest": app["digest"], "running": {
            "revision": app["revision"], "digest": app["digest"], "sha256": app["artifact"]["sha256"]}})
    }

    /// Begins the job of this start, unless it is known, and ends those before it on the same machine. False if the start is older
    /// than another one: then it is refused.
    fn begin(&mut self, key: &str, request: &Value) -> bool {
        if self.jobs.contains_key(key) {
            return true;
        }
        let age = |start: &Value| (start["task"].as_i64(), start["attempt"].as_i64());
        let known = self.begun.iter().zip(&self.requests);
        let same = known.filter(|(_, known)| known["server"]["uid"] == request["server"]["uid"]);
        let (newer, older): (Vec<_>, Vec<_>) = same.partition(|(_, known)| age(known) > age(request));
        if !newer.is_empty() {
            return false;
        }
        for key in older.into_iter().map(|(key, _)| key.clone()).collect::<Vec<_>>() {
            self.cancel(&key);
        }
        let plan = if self.plan.is_empty() { vec![Self::right(request)] } else { self.plan.clone() };
        let is_right = |shown: &Value| shown["state"] == "Succeeded" && shown.get("running").is_none();
        let shown = plan.into_iter().map(|shown| if is_right(&shown) { Self::right(request) } else { shown });
        self.jobs.insert(key.to_owned(), shown.collect());
        self.begun.push(key.to_owned());
        self.requests.push(request.clone());
        true
    }

    fn cancel(&mut self, key: &str) {
        let Some(shown) = self.jobs.get_mut(key) else { return };
        let has_ended = matches!(shown[0]["state"].as_str(), Some("Succeeded" | "Failed" | "Cancelled"));
        if !has_ended && !self.ignores_cancel {
            let digest = shown[0].get("digest").cloned();
            *shown = [json!({"state": "Cancelled"})].into();
            if let Some(digest) = digest {
                shown[0]["digest"] = digest;
            }
        }
    }

    /// The job as the next look shows it.
    fn show(&mut self, key: &str) -> Option<Value> {
        let shown = self.jobs.get_mut(key)?;
        let mut job = if shown.len() > 1 { shown.pop_front()? } else { shown[0].clone() };
        job["key"] = key.into();
        if job.get("digest").is_none() {
            let begun = self.begun.iter().rposition(|begun| begun == key)?;
            job["digest"] = self.requests[begun]["application"]["digest"].clone();
        }
        Some(job)
    }
}

/// A deploy system that serves until it is dropped. Its jobs are what a test says they are.
pub struct FakeDeploySystem {
    url: String,
    state: Arc<Mutex<DeployState>>,
    server: JoinHandle<()>,
}

impl FakeDeploySystem {
    /// Starts it on a free port.
    pub async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://{}/berth", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(DeployState::default()));
        let shared = Shared { state: state.clone(), schemas: Arc::new(Schemas::of_contract()) };
        let jobs = Router::new()
            .route("/jobs/{key}", put(job).get(job))
            .route("/jobs/{key}/cancel", post(job))
            .fallback(no_such_path);
        let router = Router::new().nest("/berth", jobs).with_state(shared);
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, state, server }
    }

    /// What a DeployClass names as `spec.url`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The content.
    pub fn state(&self) -> MutexGuard<'_, DeployState> {
        self.state.lock()
    }
}

impl Drop for FakeDeploySystem {
    fn drop(&mut self) {
        self.server.abort();
    }
}

#[derive(Clone)]
struct Shared {
    state: Arc<Mutex<DeployState>>,
    schemas: Arc<Schemas>,
}

/// The schemas of what is sent.
struct Schemas {
    contract: Value,
    request: jsonschema::Validator,
    job: jsonschema::Validator,
}

impl Schemas {
    fn of_contract() -> Self {
        let contract = executor_contract();
        let of = |name: &str| {
            let schema = json!({"$ref": format!("#/components/schemas/{name}"), "components": contract["components"]});
            jsonschema::validator_for(&schema).unwrap()
        };
        let (request, job) = (of("JobRequest"), of("Job"));
        Self { contract, request, job }
    }

    /// What is wrong with a request, by the contract.
    fn problem(&self, method: &Method, is_cancel: bool, key: &str, body: &Value) -> Option<String> {
        let path = if is_cancel { "/jobs/{key}/cancel" } else { "/jobs/{key}" };
        if self.contract["paths"][path].get(method.as_str().to_lowercase()).is_none() {
            return Some(format!("{method} {path} is not in the contract"));
        }
        let pattern = &self.contract["components"]["parameters"]["Key"]["schema"];
        if !jsonschema::is_valid(pattern, &key.into()) {
            return Some(format!("the key {key} does not match {pattern}"));
        }
        let problem = if method == Method::PUT { self.request.validate(body).err() } else { None };
        problem.map(|problem| format!("{method} {path}: {problem}"))
    }
}

async fn no_such_path(State(shared): State<Shared>, method: Method, uri: Uri) -> StatusCode {
    shared.state.lock().violations.push(format!("{method} {uri} is not in the contract"));
    StatusCode::NOT_FOUND
}

async fn job(
    State(Shared { state, schemas }): State<Shared>,
    Path(key): Path<String>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let is_cancel = uri.path().ends_with("/cancel");
    let (fault, answer) = {
        let mut state = state.lock();
        state.calls.push(format!("{method} {key}"));
        state.violations.extend(schemas.problem(&method, is_cancel, &key, &body));
        let fault = state.faults.pop_front().or_else(|| state.always.clone()).unwrap_or(DeployFault::None);
        let shown = headers.get("authorization").and_then(|value| value.to_str().ok());
        if state.authorization.is_some() && state.authorization.as_deref() != shown {
            return refused(401, &json!({"message": format!("not these: {shown:?}")}));
        }
        match &fault {
            DeployFault::NoAnswer => {}
            DeployFault::Refused(code, body) => return refused(*code, body),
            _ if method == Method::PUT && !state.begin(&key, &body) => {
                return refused(409, &json!({"message": "a newer job of this Server has been started"}));
            }
            _ if method == Method::PUT => {}
            _ if is_cancel => state.cancel(&key),
            _ => {}
        }
        let answer = state.show(&key);
        let is_wrong = |answer: &Value| schemas.job.validate(answer).err().map(|problem| problem.to_string());
        let problem = answer.as_ref().and_then(is_wrong);
        state.violations.extend(problem);
        (fault, answer)
    };
    if matches!(fault, DeployFault::NoAnswer | DeployFault::DoneWithoutAnswer) {
        return std::future::pending().await;
    }
    let Some(answer) = answer else { return refused(404, &json!({"message": "there is no such job"})) };
    match fault {
        DeployFault::CutOff => {
            let text = answer.to_string();
            let begin: Result<String, std::io::Error> = Ok(text[..text.len() / 2].to_owned());
            let end = stream::once(async { Err(std::io::Error::other("cut off")) });
            Body::from_stream(stream::iter([begin]).chain(end)).into_response()
        }
        DeployFault::Garbled(text) => text.into_response(),
        _ => axum::Json(answer).into_response(),
    }
}

fn refused(code: u16, body: &Value) -> Response {
    (StatusCode::from_u16(code).unwrap(), axum::Json(body.clone())).into_response()
}
