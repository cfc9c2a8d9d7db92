//! kube-controller-manager's ReplicaSet on the same control plane.

use std::{
    fmt::Debug,
    time::{Duration, Instant},
};

use berth_tests::{Berth, eventually};
use k8s_openapi::api::{
    apps::v1::ReplicaSet,
    core::v1::{Namespace, Pod},
};
use kube::{
    Api, Resource, ResourceExt as _,
    api::{DeleteParams, ListParams, PostParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;

/// Creates a ReplicaSet of `count` pods, waits for them, and removes it. Returns the pods created per second.
pub(crate) async fn pods_per_second(berth: &Berth, count: usize) -> f64 {
    let namespaces: Api<Namespace> = Api::all(berth.client());
    let namespace = serde_json::from_value(json!({"metadata": {"name": "pods"}})).unwrap();
    namespaces.create(&PostParams::default(), &namespace).await.unwrap();
    let sets: Api<ReplicaSet> = Api::namespaced(berth.client(), "pods");
    let labels = json!({"app": "reference"});
    let set = json!({"metadata": {"name": "reference"}, "spec": {
        "replicas": count, "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "none"}]}},
    }});
    let pods: Api<Pod> = Api::namespaced(berth.client(), "pods");
    created_per_second(&sets, &serde_json::from_value(set).unwrap(), &pods, count).await
}

/// Creates the set, waits for `count` objects of it, and removes it. Returns the objects created per second.
pub(crate) async fn created_per_second<S, K>(sets: &Api<S>, set: &S, objects: &Api<K>, count: usize) -> f64
where
    S: Resource + Clone + Debug + Serialize + DeserializeOwned,
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let begin = Instant::now();
    sets.create(&PostParams::default(), set).await.unwrap();
    until(objects, count).await;
    let seconds = begin.elapsed().as_secs_f64();
    sets.delete(&set.name_any(), &DeleteParams::foreground()).await.unwrap();
    until(objects, 0).await;
    count as f64 / seconds
}

/// Waits until there are exactly `count` objects.
pub(crate) async fn until<K>(objects: &Api<K>, count: usize)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    eventually(format!("{count} {}", K::plural(&())), Duration::from_mins(3), async || {
        // A page of one object comes with the number of the others, without reading them.
        let page = objects.list_metadata(&ListParams::default().limit(1)).await.map_err(|e| e.to_string())?;
        let more = page.metadata.remaining_item_count.unwrap_or(0);
        let found = page.items.len() + usize::try_from(more).unwrap();
        if found == count { Ok(()) } else { Err(format!("{found}")) }
    })
    .await
    .unwrap();
}
