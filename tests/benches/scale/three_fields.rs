//! The smallest write to compare with: a status of three fields, of a kind that no webhook is called for.

use std::time::Duration;

use berth_tests::{Berth, eventually};
use futures::{StreamExt, stream};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api,
    api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams},
};
use serde_json::json;

use crate::{cost::Counted, meter::Meter};

/// Concurrent writes.
const CALLS: usize = 8;

/// What `count` writes of such a status cost.
pub(crate) async fn cost(berth: &Berth, count: usize) -> Counted {
    let api = define(berth).await;
    let name = |n: usize| format!("three-{n}");
    for n in 0..count {
        let object = serde_json::from_value(json!({
            "apiVersion": "bench.example.org/v1", "kind": "ThreeFields", "metadata": {"name": name(n)}, "spec": {},
        }))
        .unwrap();
        eventually("the kind is served", Duration::from_mins(1), async || {
            api.create(&PostParams::default(), &object).await.map_err(|error| error.to_string())
        })
        .await
        .unwrap();
    }
    let before = Meter::of(berth).await;
    let patches = (0..count).map(|n| {
        let patch = Patch::Merge(json!({"status": {"one": "1", "two": "2", "three": "3"}}));
        let (api, name) = (api.clone(), name(n));
        async move { api.patch_status(&name, &PatchParams::default(), &patch).await.unwrap() }
    });
    stream::iter(patches).buffer_unordered(CALLS).collect::<Vec<_>>().await;
    Counted { writes: count, cost: Meter::of(berth).await.since(&before) }
}

async fn define(berth: &Berth) -> Api<DynamicObject> {
    let text = json!({"type": "string"});
    let status = json!({"type": "object", "properties": {"one": text, "two": text, "three": text}});
    let definition = json!({
        "metadata": {"name": "threefields.bench.example.org"},
        "spec": {
            "group": "bench.example.org",
            "names": {"kind": "ThreeFields", "plural": "threefields"},
            "scope": "Namespaced",
            "versions": [{
                "name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object"}, "status": status}}}
            }]
        }
    });
    let definition: CustomResourceDefinition = serde_json::from_value(definition).unwrap();
    let definitions: Api<CustomResourceDefinition> = Api::all(berth.client());
    definitions.create(&PostParams::default(), &definition).await.unwrap();
    let resource = ApiResource {
        group: "bench.example.org".to_owned(),
        version: "v1".to_owned(),
        api_version: "bench.example.org/v1".to_owned(),
        kind: "ThreeFields".to_owned(),
        plural: "threefields".to_owned(),
    };
    Api::namespaced_with(berth.client(), "default", &resource)
}
