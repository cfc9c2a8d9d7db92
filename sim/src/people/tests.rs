//! What people find out about an API server that accepts whatever it gets.

use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;

use super::{Act, BadInput, People, Shape};
use crate::{ApiServer, Judge, SimClock, randomness::seed_this_thread};

/// People with a fleet of one Server, which has a machine and is Ready, on an API server without Berth's webhook.
async fn people() -> People {
    seed_this_thread(1);
    let api = ApiServer::new(SimClock::start(), None).unwrap();
    let mut people = People::new(api.client("ann"), api.client("bob"), &[Shape::default()], 1);
    people.declare().await.unwrap();
    let server = json!({"apiVersion": "berth.dev/v1alpha1", "kind": "Server", "metadata": {"name": "web-0", "finalizers": ["berth.dev/retire"]},
                        "spec": {"machine": {"className": "small"}}});
    let servers: Api<berth_core::api::Server> = Api::namespaced(api.client("ann"), "default");
    servers.create(&PostParams::default(), &serde_json::from_value(server).unwrap()).await.unwrap();
    let status = json!({"status": {"state": "Ready", "machine": {"phase": "Running", "address": "10.0.0.1"}}});
    servers.patch_status("web-0", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    people
}

#[tokio::test(start_paused = true)]
async fn bad_input_that_is_accepted_is_seen() {
    for input in [BadInput::StateByHand, BadInput::NoFinalizer] {
        let found = people().await.act(0, &Act::Bad { input }).await.unwrap_err();
        assert_eq!((found.judge, found.text), (Judge::Input, format!("{input:?} was accepted")));
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_schemas_refuse_is_refused_with_the_field() {
    let mut people = people().await;
    for input in
        BadInput::ALL.into_iter().filter(|input| !matches!(input, BadInput::StateByHand | BadInput::NoFinalizer))
    {
        let words = people.act(0, &Act::Bad { input }).await.unwrap();
        assert!(words.starts_with("is refused"), "{input:?}: {words}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_old_declaration_with_its_version_is_refused() {
    let mut people = people().await;
    people.act(0, &Act::Scale { replicas: 3 }).await.unwrap();
    people.act(0, &Act::Scale { replicas: 4 }).await.unwrap();
    let refused = people.act(0, &Act::Restore { ago: 1, has_version: true }).await.unwrap();
    assert!(refused.starts_with("comes too late"), "{refused}");
    assert_eq!(people.fleets()[0].wanted.replicas, 4);
    people.act(0, &Act::Restore { ago: 1, has_version: false }).await.unwrap();
    assert_eq!(people.fleets()[0].wanted.replicas, 3);
}
