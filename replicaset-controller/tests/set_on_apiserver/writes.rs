//! What a large set costs the API server.

use futures::{StreamExt as _, stream};
use http::Request;
use tokio::time::Instant;

use super::lab::Lab;
use berth_core::api::Server;
use serde_json::json;

const SERVERS: usize = 1000;

/// Writes of statuses of sets, as the API server has counted them.
async fn status_writes(lab: &Lab) -> u64 {
    let request = Request::get("/metrics").body(Vec::new()).unwrap();
    let metrics = lab.control_plane.admin_client().request_text(request).await.unwrap();
    let is_write = |line: &&str| {
        line.starts_with("apiserver_request_total{")
            && line.contains(r#"resource="vmreplicasets""#)
            && line.contains(r#"subresource="status""#)
            && line.contains(r#"verb="PATCH""#)
    };
    let count = |line: &str| line.rsplit(' ').next().and_then(|n| n.parse::<u64>().ok()).unwrap();
    metrics.lines().filter(is_write).map(count).sum()
}

pub(crate) async fn a_thousand_changing_servers_cost_a_write_per_second(lab: &Lab) {
    let controller = lab.controller("a").await;
    let before = status_writes(lab).await;
    lab.create("many", json!({"replicas": SERVERS})).await;
    let begun = Instant::now();
    // The first reconcile creates them all: their names are entered by one write.
    let (set, none) = lab.read("many").await;
    controller.reconcile(&set, &none.iter().collect::<Vec<_>>()).await.unwrap();
    let created = begun.elapsed();
    let servers = lab.read("many").await.1;
    assert_eq!(servers.len(), SERVERS);
    assert_eq!(status_writes(lab).await - before, 1, "the names of all of them are entered at once");
    println!("{SERVERS} Servers created in {created:?}: {}/s", SERVERS as u128 * 1000 / created.as_millis());

    // All become Ready, one by one, and the set is looked at again and again.
    let ready = stream::iter(servers.iter().map(|server| lab.make_ready(server))).buffer_unordered(16).count();
    let reconciles = lab.until(&controller, "many", |set, _| {
        set.status.as_ref().is_some_and(|s| s.available_replicas == 1000 && s.creating.is_empty())
    });
    tokio::join!(ready, reconciles);
    let seconds = begun.elapsed().as_secs();
    let writes = status_writes(lab).await - before;
    assert!(writes <= seconds + 2, "{writes} writes in {seconds} s");
    println!("{writes} writes of the set's status in {seconds} s");

    lab.change("many", json!({"replicas": 0})).await;
    let before = status_writes(lab).await;
    let begun = Instant::now();
    lab.until(&controller, "many", |set, servers: &[Server]| {
        servers.is_empty() && set.status.as_ref().is_some_and(|s| s.replicas == 0 && s.disturbed.is_empty())
    })
    .await;
    let writes = status_writes(lab).await - before;
    assert!(writes <= begun.elapsed().as_secs() + 2, "{writes} writes in {:?}", begun.elapsed());
}
