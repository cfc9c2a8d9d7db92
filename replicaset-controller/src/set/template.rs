//! New Servers of a set, and their names.

use std::collections::BTreeMap;

use berth_core::{
    FINALIZER, SET_GENERATION_ANNOTATION,
    api::{Server, VMReplicaSet},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource as _;

use super::zone::ZONE_LABEL;

/// A new Server of the set.
#[must_use]
pub fn new_server(set: &VMReplicaSet, name: &str) -> Server {
    let template = &set.spec.template;
    let mut annotations = template.metadata.annotations.clone();
    annotations.extend(set.metadata.generation.map(|n| (SET_GENERATION_ANNOTATION.to_owned(), n.to_string())));
    Server {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: set.metadata.namespace.clone(),
            labels: not_empty(&template.metadata.labels),
            annotations: not_empty(&annotations),
            owner_references: set.controller_owner_ref(&()).map(blocking),
            // With the finalizer there is nothing for the webhook to add, and so it is not called.
            finalizers: Some(vec![FINALIZER.to_owned()]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// A new Server of the set whose machine is in this zone, unless the template says another one.
#[must_use]
pub fn new_server_in(set: &VMReplicaSet, name: &str, zone: Option<&str>) -> Server {
    let mut server = new_server(set, name);
    if let Some(zone) = zone {
        let labels = server.metadata.labels.get_or_insert_default();
        labels.entry(ZONE_LABEL.to_owned()).or_insert_with(|| zone.to_owned());
    }
    server
}

/// Deleting the set in the foreground waits for its Servers.
fn blocking(reference: OwnerReference) -> Vec<OwnerReference> {
    vec![OwnerReference { block_owner_deletion: Some(true), ..reference }]
}

fn not_empty(map: &BTreeMap<String, String>) -> Option<BTreeMap<String, String>> {
    (!map.is_empty()).then(|| map.clone())
}

/// Name of the Server with this ordinal.
#[must_use]
pub fn server_name(set: &str, ordinal: usize) -> String {
    format!("{set}-{ordinal}")
}

/// The ordinal in a Server's name.
#[must_use]
pub fn ordinal(set: &str, server: &str) -> Option<usize> {
    server.strip_prefix(set)?.strip_prefix('-')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_server_is_in_the_zone_of_its_template_else_of_its_class() {
        let zone = |labels: serde_json::Value, of_class| {
            let metadata = json!({"labels": labels});
            let set = berth_testing::replica_set(json!({"spec": {"template": {"metadata": metadata}}}));
            let server = new_server_in(&set, "web-0", of_class);
            assert!(!set.is_outdated(&server), "the zone of the class makes no Server outdated");
            server.metadata.labels.unwrap().get(ZONE_LABEL).cloned()
        };
        assert_eq!(zone(json!({ZONE_LABEL: "z1"}), Some("z2")).as_deref(), Some("z1"));
        assert_eq!(zone(json!({}), Some("z2")).as_deref(), Some("z2"));
        assert_eq!(zone(json!({}), None), None);
    }
}
