//! A bare client that sends the writes that Berth sent, of the same kinds, through the same webhook.

use std::time::Instant;

use berth_core::{FINALIZER, api::Server};
use berth_tests::{BERTH_NAMESPACE, Berth, Part};
use futures::{StreamExt, stream};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::usage::Writes;

/// Writes under way at once.
const CALLS: usize = 32;

/// Writes per second.
pub(crate) struct Rates {
    pub(crate) up: f64,
    pub(crate) down: f64,
}

/// Sends as many writes as `up` for so many Servers, and then as many as `down`.
pub(crate) async fn writes_per_second(berth: &Berth, count: usize, up: &Writes, down: &Writes) -> Rates {
    let name = Part::ReplicasetController.name();
    let client = berth.control_plane().service_account_client(BERTH_NAMESPACE, name).await.unwrap();
    let lb = Part::LbController.name();
    let lb = berth.control_plane().service_account_client(BERTH_NAMESPACE, lb).await.unwrap();
    let bare = &Bare::new(client, lb);
    let (statuses, slices) = shares(up, count);
    let up = rate(count, |n| bare.up(n, statuses, n < slices)).await;
    let (statuses, slices) = shares(down, count);
    let down = rate(count, |n| bare.down(n, statuses, n < slices)).await;
    Rates { up, down }
}

/// Status writes of each Server, and how many writes of EndpointSlices there are at all.
fn shares(writes: &Writes, count: usize) -> (usize, usize) {
    let statuses = writes.count("PATCH servers/status").div_ceil(count as u64);
    let slices = writes.count("PATCH endpointslices") + writes.count("POST endpointslices");
    (usize::try_from(statuses).unwrap(), usize::try_from(slices).unwrap())
}

/// Does the work so many times, a few at once. Says how many writes that were per second.
async fn rate<F: Future<Output = usize>>(count: usize, work: impl Fn(usize) -> F) -> f64 {
    let begin = Instant::now();
    let calls = stream::iter((0..count).map(work)).buffer_unordered(CALLS);
    let writes = calls.fold(0, |sum, n| async move { sum + n }).await;
    writes as f64 / begin.elapsed().as_secs_f64()
}

struct Bare {
    servers: Api<Server>,
    slices: Api<EndpointSlice>,
}

impl Bare {
    fn new(client: Client, lb: Client) -> Self {
        Self { servers: Api::namespaced(client, "bare"), slices: Api::namespaced(lb, "bare") }
    }

    async fn up(&self, n: usize, statuses: usize, slice: bool) -> usize {
        let name = name(n);
        let server = json!({"apiVersion": "berth.dev/v1alpha1", "kind": "Server", "metadata": {"name": name},
            "spec": {"machine": {"className": "simulated"}, "healthCheck": {"tcpSocket": {"port": 1}}}});
        let server = serde_json::from_value(server).unwrap();
        self.servers.create(&PostParams::default(), &server).await.unwrap();
        self.statuses(&name, statuses, "Running", true).await + 1 + self.slice(n, slice).await
    }

    async fn down(&self, n: usize, statuses: usize, slice: bool) -> usize {
        let name = name(n);
        self.servers.delete(&name, &DeleteParams::default()).await.unwrap();
        let sent = self.statuses(&name, statuses.saturating_sub(1), "Running", false).await;
        let sent = sent + self.statuses(&name, 1, "Gone", false).await + self.slice(n, slice).await;
        let server = self.servers.get(&name).await.unwrap();
        let at = server.finalizers().iter().position(|f| f == FINALIZER).unwrap();
        self.patch(&name, json!([{"op": "remove", "path": format!("/metadata/finalizers/{at}")}]), false).await;
        sent + 2
    }

    async fn statuses(&self, name: &str, count: usize, phase: &str, first: bool) -> usize {
        for boot in 0..count {
            let machine = json!({"phase": phase, "id": "simulated/x", "bootID": format!("boot {boot} {phase}")});
            // Only the first write makes the status.
            let operation = if boot == 0 && phase == "Running" && first {
                json!({"op": "add", "path": "/status", "value": {"machine": machine}})
            } else {
                json!({"op": "add", "path": "/status/machine", "value": machine})
            };
            self.patch(name, json!([operation]), true).await;
        }
        count
    }

    async fn patch(&self, name: &str, operations: Value, status: bool) {
        let patch = Patch::Json::<()>(serde_json::from_value(operations).unwrap());
        let params = PatchParams::default();
        let patched = if status {
            self.servers.patch_status(name, &params, &patch).await
        } else {
            self.servers.patch(name, &params, &patch).await
        };
        patched.unwrap();
    }

    async fn slice(&self, n: usize, wanted: bool) -> usize {
        if !wanted {
            return 0;
        }
        let slice = json!({"metadata": {"name": format!("slice-{n}")}, "addressType": "FQDN",
            "endpoints": (0..100).map(|i| json!({"addresses": [format!("a{i}.example.org")]})).collect::<Vec<_>>()});
        let slice: EndpointSlice = serde_json::from_value(slice).unwrap();
        match self.slices.create(&PostParams::default(), &slice).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 409 => {
                let name = format!("slice-{n}");
                let patch = Patch::Merge(json!({"metadata": {"labels": {"again": "yes"}}}));
                self.slices.patch(&name, &PatchParams::default(), &patch).await.unwrap();
            }
            Err(error) => panic!("{error}"),
        }
        1
    }
}

fn name(n: usize) -> String {
    format!("bare-{n}")
}
