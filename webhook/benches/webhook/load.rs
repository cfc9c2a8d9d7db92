//! The load: one review again and again, of a status write that takes a Server from Deploying to Ready.

use berth_core::{
    api::{Executor, HealthFact, HealthState, Outcome, Report, Server, TaskKind},
    identity::{Author, Identities},
    lifecycle::admit_status,
    protocol::StatusWrite,
};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, StatusCode, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use serde_json::{Value, json};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::{BenchResult, server::BenchServer};

/// Concurrent connections; an apiserver opens about as many.
pub(crate) const CONNECTIONS: usize = 4;
/// Concurrent requests on each connection, so that the server is never idle.
pub(crate) const STREAMS: usize = 16;
/// How long a round takes: long enough to level out scheduling noise.
const ROUND: Duration = Duration::from_secs(2);
/// The same in a smoke test.
const SHORT_ROUND: Duration = Duration::from_millis(100);
/// Bytes of each of the two objects: a Server with three packages and a full history.
const OBJECT_BYTES: usize = 6 * 1024;

/// The time of every decision.
pub(crate) fn now() -> BenchResult<Timestamp> {
    Ok("2026-01-02T00:00:00Z".parse()?)
}

/// The review that is sent.
pub(crate) fn review() -> BenchResult<Vec<u8>> {
    let ids = Identities::default();
    let author = |executor| Author::new(ids.username(executor));
    let mut created: Server = serde_json::from_value(declared())?;
    // The declared application is the one that runs.
    let digest = created.spec.app_digest().ok_or("no application")?;
    created.status.get_or_insert_default().app.as_mut().ok_or("no fact about the application")?.digest = digest;
    let mut old = admit_status(&created, created.clone(), &author(Executor::ReplicasetController), &ids, now()?)?;
    let status = old.status.get_or_insert_default();
    // The longest history that a Server can have.
    if let Some(last) = status.history.last().cloned() {
        status.history = vec![last; 20];
    }
    let task = status.tasks.iter().find(|task| task.kind == TaskKind::CheckHealth).ok_or("no CheckHealth")?.id;
    let health = HealthFact {
        state: HealthState::Healthy,
        epoch: status.epoch.unwrap_or_default(),
        since: Time(now()?),
        message: "200 OK".into(),
    };
    let report = Report {
        task_id: task,
        holder: "monitor-controller/a".into(),
        outcome: Outcome::Succeeded,
        message: "healthy".into(),
        retry_after_seconds: None,
        successors: Vec::new(),
    };
    let patch = StatusWrite::new(&old).health(health).report(report).into_patch();
    let mut old = serde_json::to_value(&old)?;
    old["metadata"]["managedFields"] = managed_fields();
    let missing = OBJECT_BYTES.saturating_sub(old.to_string().len());
    old["metadata"]["annotations"] = json!({"example.com/note": "x".repeat(missing.saturating_sub(40))});
    let mut new = old.clone();
    json_patch::patch(&mut new, &patch)?;
    let user = author(Executor::MonitorController).username;
    // In the order in which the apiserver writes it.
    let head = r#""uid":"705ab4f5-6393-11e8-b7cc-42010a800002","kind":{"group":"berth.dev","version":"v1alpha1","kind":"Server"},"resource":{"group":"berth.dev","version":"v1alpha1","resource":"servers"},"subResource":"status","requestKind":{"group":"berth.dev","version":"v1alpha1","kind":"Server"},"requestResource":{"group":"berth.dev","version":"v1alpha1","resource":"servers"},"requestSubResource":"status","name":"web-0","namespace":"default","operation":"UPDATE""#;
    let tail = r#""dryRun":false,"options":{"kind":"PatchOptions","apiVersion":"meta.k8s.io/v1"}"#;
    let user = json!({"username": user, "groups": ["system:serviceaccounts", "system:authenticated"]});
    Ok(format!(
        r#"{{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{{{head},"userInfo":{user},"object":{new},"oldObject":{old},{tail}}}}}"#
    )
    .into_bytes())
}

fn declared() -> Value {
    let package = |name: &str| {
        json!({"name": name, "version": "1.2.3",
            "archive": {"url": format!("http://artifacts.example/{name}.tgz"), "sha256": "a".repeat(64)}})
    };
    let installed = |name: &str| json!({"name": name, "version": "1.2.3", "sha256": "a".repeat(64)});
    let env: Vec<_> = (0..8).map(|n| json!({"name": format!("SETTING_{n}"), "value": "a value"})).collect();
    json!({
        "apiVersion": "berth.dev/v1alpha1", "kind": "Server",
        "metadata": {"name": "web-0", "namespace": "default", "uid": "8f9e1e0a-6393-11e8-b7cc-42010a800002",
            "generation": 3, "resourceVersion": "1234", "finalizers": [berth_core::FINALIZER],
            "labels": {"app": "web"}, "ownerReferences": [{"apiVersion": "berth.dev/v1alpha1", "kind": "VMReplicaSet",
                "name": "web", "uid": "9f9e", "controller": true, "blockOwnerDeletion": true}]},
        "spec": {
            "machine": {"className": "local"},
            "packages": [package("runtime"), package("theme"), package("fonts")],
            "app": {"name": "web", "revision": "r1", "command": "./run", "env": env,
                "artifact": {"url": "http://artifacts.example/web.tgz", "sha256": "b".repeat(64)}},
            "healthCheck": {"httpGet": {"port": 8080, "path": "/healthz"}},
            "traffic": {"backends": [{"service": "web", "port": 8080}]},
            "monitoring": {"port": 9100}
        },
        "status": {
            "epoch": 4,
            "machine": {"phase": "Running", "id": "m1", "address": "10.0.0.1", "bootID": "b1"},
            "environment": {"verified": true, "packages": [installed("runtime"), installed("theme"), installed("fonts")]},
            "app": {"revision": "r1", "digest": "", "verified": true},
            "traffic": {"phase": "Held", "backends": [{"service": "web", "port": 8080}], "address": "10.0.0.1"}
        }
    })
}

/// `managedFields` as large as server-side apply by four controllers makes them, about 1 KB.
fn managed_fields() -> Value {
    let of = |manager: &str| {
        json!({"manager": manager, "operation": "Apply", "apiVersion": "berth.dev/v1alpha1", "time": "2026-01-01T00:00:00Z",
            "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:machine": {"f:className": {}}, "f:packages": {
                "k:{\"name\":\"runtime\"}": {".": {}, "f:name": {}, "f:version": {}}}}}})
    };
    json!([of("replicaset-controller"), of("deployment-controller"), of("lb-controller"), of("monitor-controller")])
}

/// Runs one round. Returns the number of responses, and the seconds that they took.
pub(crate) async fn run(server: &BenchServer, body: &[u8]) -> BenchResult<(usize, f64)> {
    let mut senders = Vec::new();
    for _ in 0..CONNECTIONS {
        senders.push(connect(server).await?);
    }
    let body = Bytes::copy_from_slice(body);
    let start = Instant::now();
    let end = start + if crate::is_smoke_test() { SHORT_ROUND } else { ROUND };
    let streams = senders.iter().flat_map(|sender| std::iter::repeat_n(sender, STREAMS));
    let tasks: Vec<_> = streams.map(|sender| tokio::spawn(send_until(sender.clone(), body.clone(), end))).collect();
    let mut count = 0;
    for task in tasks {
        count += task.await??;
    }
    Ok((count, start.elapsed().as_secs_f64()))
}

type Http2Sender = http2::SendRequest<Full<Bytes>>;

async fn connect(server: &BenchServer) -> BenchResult<Http2Sender> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(server.ca_pem.as_bytes())?)?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(rustls::ALL_VERSIONS)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(server.address).await?;
    stream.set_nodelay(true)?;
    let stream = TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost")?, stream).await?;
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

/// Sends one request after the other until `end`.
async fn send_until(mut sender: Http2Sender, body: Bytes, end: Instant) -> std::result::Result<usize, hyper::Error> {
    let mut count = 0;
    while Instant::now() < end {
        let mut request = Request::new(Full::new(body.clone()));
        *request.method_mut() = hyper::Method::POST;
        *request.uri_mut() = hyper::Uri::from_static("https://localhost/mutate");
        let response = sender.send_request(request).await?;
        let status = response.status();
        let answer = response.into_body().collect().await?.to_bytes();
        assert!(status == StatusCode::OK && answer.len() > 200, "{status}: {answer:?}");
        count += 1;
    }
    Ok(count)
}
