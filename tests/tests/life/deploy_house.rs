//! A house with a deploy system of its own: its jobs really fetch the artifact, and serve from it at the machine's address.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read as _,
    net::SocketAddr,
    sync::Arc,
};

use axum::{Router, http::StatusCode, routing::get};
use berth_core::api::DeployClass;
use berth_testing::{DeployState, FakeDeploySystem, manifest};
use k8s_openapi::api::{
    core::v1::{Namespace, Secret},
    rbac::v1::{Role, RoleBinding},
};
use kube::{Api, api::PostParams};
use parking_lot::Mutex;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::{net::TcpListener, task::JoinHandle};

use crate::world::World;

/// What the house's log-in is. It must be seen nowhere.
pub(crate) const TOKEN: &str = "t0p-s3cr3t";

/// Where the logs of jobs are.
pub(crate) const LOGS: &str = "https://ci.example/runs/";

/// What becomes of a job of a revision.
#[derive(Clone, Debug)]
pub(crate) enum Fate {
    /// It fails with these words.
    Fails(&'static str),
    /// It goes on until something else is decided.
    Hangs,
}

/// The house.
pub(crate) struct House {
    pub(crate) system: Arc<FakeDeploySystem>,
    /// Other fates than success, by revision.
    pub(crate) fates: Arc<Mutex<BTreeMap<String, Fate>>>,
    worker: JoinHandle<()>,
}

impl House {
    /// Begins to work.
    pub(crate) async fn start() -> Self {
        let system = Arc::new(FakeDeploySystem::start().await);
        {
            let mut state = system.state();
            state.authorization = Some(format!("Bearer {TOKEN}"));
            state.plan = vec![json!({"state": "Running", "logURL": format!("{LOGS}1")})];
        }
        let fates = Arc::<Mutex<BTreeMap<String, Fate>>>::default();
        let worker = tokio::spawn(work(system.clone(), fates.clone()));
        Self { system, fates, worker }
    }

    /// Says what becomes of jobs of this revision.
    pub(crate) fn decide(&self, revision: &str, fate: Fate) {
        self.fates.lock().insert(revision.to_owned(), fate);
    }

    /// Jobs of this revision succeed from now on.
    pub(crate) fn let_succeed(&self, revision: &str) {
        self.fates.lock().remove(revision);
    }

    /// How many jobs of this revision were begun.
    pub(crate) fn jobs(&self, revision: &str) -> usize {
        self.system.state().requests.iter().filter(|request| revision_of(request) == revision).count()
    }

    /// The keys of the jobs of this revision.
    pub(crate) fn keys(&self, revision: &str) -> Vec<String> {
        let state = self.system.state();
        let jobs = state.begun.iter().zip(&state.requests);
        jobs.filter(|(_, request)| revision_of(request) == revision).map(|(key, _)| key.clone()).collect()
    }

    /// Whether the deploy system was asked to cancel this job.
    pub(crate) fn was_cancelled(&self, key: &str) -> bool {
        self.system.state().calls.contains(&format!("POST {key}"))
    }

    /// Creates the DeployClass.
    pub(crate) async fn create_class(&self, world: &World) {
        let classes: Api<DeployClass> = Api::all(world.berth.client());
        let credentials = json!({"namespace": "ci", "name": "berth"});
        let spec = json!({"url": self.system.url(), "credentials": credentials, "pollSeconds": 1,
            "allowedNamespaces": ["default"]});
        let class = serde_json::from_value(manifest("DeployClass", "ci", spec)).unwrap();
        classes.create(&PostParams::default(), &class).await.unwrap();
    }
}

impl Drop for House {
    fn drop(&mut self) {
        self.worker.abort();
    }
}

/// Lets Berth log in to the house: the Secret, and the right to read it.
pub(crate) async fn let_berth_in(world: &World, (namespace, account): (&str, &str)) {
    let client = world.berth.client();
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let ci = json!({"metadata": {"name": "ci"}});
    namespaces.create(&PostParams::default(), &serde_json::from_value(ci).unwrap()).await.unwrap();
    let secret = json!({"metadata": {"name": "berth"}, "stringData": {"token": TOKEN}});
    let secrets: Api<Secret> = Api::namespaced(client.clone(), "ci");
    secrets.create(&PostParams::default(), &serde_json::from_value(secret).unwrap()).await.unwrap();
    let reading = json!([{"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["berth"], "verbs": ["get"]}]);
    let role = json!({"metadata": {"name": "berth"}, "rules": reading});
    let binding = json!({"metadata": {"name": "berth"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "berth"},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": namespace}]});
    let (roles, bindings): (Api<Role>, Api<RoleBinding>) =
        (Api::namespaced(client.clone(), "ci"), Api::namespaced(client, "ci"));
    roles.create(&PostParams::default(), &serde_json::from_value(role).unwrap()).await.unwrap();
    bindings.create(&PostParams::default(), &serde_json::from_value(binding).unwrap()).await.unwrap();
}

fn revision_of(request: &Value) -> &str {
    request["application"]["revision"].as_str().unwrap_or_default()
}

/// Carries out the jobs that are begun, one after another, until it is aborted.
async fn work(system: Arc<FakeDeploySystem>, fates: Arc<Mutex<BTreeMap<String, Fate>>>) {
    let (mut done, mut running) = (BTreeSet::new(), BTreeMap::new());
    let mut tick = tokio::time::interval(std::time::Duration::from_millis(20));
    loop {
        tick.tick().await;
        let jobs: Vec<(String, Value)> = {
            let state = system.state();
            let jobs = state.begun.iter().cloned().zip(state.requests.iter().cloned());
            let is_cancelled = |key: &String| state.jobs.get(key).is_some_and(|shown| shown[0]["state"] == "Cancelled");
            jobs.filter(|(key, _)| !done.contains(key) && !is_cancelled(key)).collect()
        };
        for (key, request) in jobs {
            let fate = fates.lock().get(revision_of(&request)).cloned();
            if matches!(fate, Some(Fate::Hangs)) {
                continue;
            }
            let log = format!("{LOGS}{}", done.len() + 1);
            done.insert(key.clone());
            let shown = match fate {
                Some(Fate::Fails(words)) => json!({"state": "Failed", "message": words, "logURL": log}),
                Some(Fate::Hangs) | None => match deploy(&request, &mut running).await {
                    Ok(()) => {
                        let mut right = DeployState::right(&request);
                        right["logURL"] = log.into();
                        right
                    }
                    Err(error) => json!({"state": "Failed", "message": error, "logURL": log}),
                },
            };
            system.state().set(&key, shown);
        }
    }
}

/// Fetches and verifies the artifact, and serves it at the machine's address in place of what ran there.
async fn deploy(request: &Value, running: &mut BTreeMap<String, JoinHandle<()>>) -> Result<(), String> {
    let artifact = &request["application"]["artifact"];
    let url = artifact["url"].as_str().unwrap_or_default();
    let client = reqwest::Client::builder().no_proxy().build().map_err(|error| error.to_string())?;
    let answer = client.get(url).send().await.map_err(|error| error.to_string())?;
    let bytes = answer.bytes().await.map_err(|error| error.to_string())?;
    if artifact["sha256"] != hex::encode(Sha256::digest(&bytes)) {
        return Err(format!("{url} has another digest"));
    }
    let page = page(&bytes).ok_or("there is no www/index.html")?;
    let address = request["server"]["address"].as_str().unwrap_or_default();
    let port = request["application"]["env"]["PORT"].as_str().unwrap_or_default();
    if let Some(before) = running.remove(address) {
        before.abort();
        let _ = before.await;
    }
    let at: SocketAddr = format!("{address}:{port}").parse().map_err(|_| format!("no address: {address}:{port}"))?;
    let listener = TcpListener::bind(at).await.map_err(|error| format!("{at}: {error}"))?;
    let router = Router::new()
        .route("/", get(move || async move { page }))
        .route("/healthz", get(async || "ok"))
        .fallback(async || StatusCode::NOT_FOUND);
    let serving = async move {
        let _ = axum::serve(listener, router).await;
    };
    running.insert(address.to_owned(), tokio::spawn(serving));
    Ok(())
}

fn page(archive: &[u8]) -> Option<String> {
    let mut archive = tar::Archive::new(archive);
    let mut entries = archive.entries().ok()?.filter_map(Result::ok);
    let mut found = entries.find(|entry| entry.path().is_ok_and(|path| path.ends_with("www/index.html")))?;
    let mut text = String::new();
    found.read_to_string(&mut text).ok()?;
    Some(text)
}
