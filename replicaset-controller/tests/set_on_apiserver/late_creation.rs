//! A creation that reaches the API server long after the set was read.

use std::sync::Arc;

use berth_core::api::Server;
use http::Method;
use kube::{Client, client::Body};
use serde_json::json;
use tokio::sync::Semaphore;

use super::lab::Lab;

/// A client whose creations of Servers wait: each takes a permit from `allowed`, and says in `waiting` that it is there.
fn slow(client: &Client, waiting: &Arc<Semaphore>, allowed: &Arc<Semaphore>) -> Client {
    let (client, waiting, allowed) = (client.clone(), waiting.clone(), allowed.clone());
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let (client, waiting, allowed) = (client.clone(), waiting.clone(), allowed.clone());
        async move {
            if request.method() == Method::POST && request.uri().path().ends_with("/servers") {
                waiting.add_permits(1);
                allowed.acquire().await.unwrap().forget();
            }
            client.send(request).await
        }
    });
    Client::new(service, "default")
}

pub(crate) async fn a_server_whose_name_was_given_up_never_begins(lab: &Lab) {
    let (waiting, allowed) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let account = lab.control_plane.service_account_client("berth-system", "replicaset-controller").await.unwrap();
    let late = Lab::controller_through(slow(&account, &waiting, &allowed), "late", Arc::default());
    let other = lab.controller("b").await;
    lab.create("late", json!({"replicas": 1})).await;
    let (set, none) = lab.read("late").await;
    assert!(none.is_empty());

    let batches = late.batches();
    let creating = async {
        late.reconcile(&set, &[]).await.unwrap();
        // What the reconcile has left may begin.
        lab.servers.get_opt("late-0").await.unwrap()
    };
    let given_up = async {
        waiting.acquire().await.unwrap().forget();
        lab.change("late", json!({"replicas": 0})).await;
        let is_free = |set: &berth_core::api::VMReplicaSet| set.status.as_ref().is_some_and(|s| s.creating.is_empty());
        lab.until(&other, "late", |set, _| is_free(set)).await;
        allowed.add_permits(1);
        // Meanwhile nothing of the set begins in this process.
        let mut new: Server = berth_testing::server(json!({"metadata": {"name": "late-0"}}));
        new.metadata.owner_references = Some(vec![kube::Resource::controller_owner_ref(&set, &()).unwrap()]);
        assert!(batches.must_wait(&new));
    };
    let (left, ()) = tokio::join!(creating, given_up);
    assert!(left.is_none_or(|server| server.metadata.deletion_timestamp.is_some()), "a surplus Server may begin");
    lab.until(&other, "late", |set, servers| {
        servers.is_empty() && set.status.as_ref().is_some_and(|s| s.replicas == 0 && s.disturbed.is_empty())
    })
    .await;
}
