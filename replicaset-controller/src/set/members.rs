//! Which Servers are a set's, and what a new one looks like.

use std::collections::BTreeMap;

use berth_core::{
    FINALIZER,
    api::{GatePoint, Server, ServerSpec, ServerTemplateSpec, VMReplicaSet},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource as _, ResourceExt as _, api::ObjectMeta};

/// Annotation of a Server: the generation of its set that it was created for.
pub const SET_GENERATION: &str = "berth.dev/set-generation";

/// The generation of its set that the Server was created for.
#[must_use]
pub fn set_generation(server: &Server) -> Option<i64> {
    server.metadata.annotations.as_ref()?.get(SET_GENERATION)?.parse().ok()
}

/// The generation of the set that an Approval must name to settle this gate of the Server. A machine is created for the
/// declaration that asked for it; all else is done for the declaration that holds.
#[must_use]
pub fn generation_of_gate(set: &VMReplicaSet, server: &Server, gate: GatePoint) -> Option<i64> {
    match gate {
        GatePoint::CreateMachine => set_generation(server),
        _ => set.metadata.generation,
    }
}

/// The VMReplicaSet that controls this Server.
#[must_use]
pub fn owner(server: &Server) -> Option<&OwnerReference> {
    let mut owners = server.metadata.owner_references.iter().flatten();
    owners.find(|owner| owner.kind == VMReplicaSet::kind(&()) && owner.controller == Some(true))
}

/// Whether the set controls this Server.
#[must_use]
pub fn is_own(set: &VMReplicaSet, server: &Server) -> bool {
    set.metadata.uid.as_deref().is_some_and(|uid| owner(server).is_some_and(|owner| owner.uid == uid))
}

/// The set's selector as text, as list calls and the scale subresource need it.
#[must_use]
pub fn selector(set: &VMReplicaSet) -> String {
    let labels = set.spec.selector.match_labels.iter().flatten();
    labels.map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// A new Server of the set.
#[must_use]
pub fn new_server(set: &VMReplicaSet, name: &str) -> Server {
    let template = &set.spec.template;
    let mut annotations = template.metadata.annotations.clone();
    annotations.extend(set.metadata.generation.map(|n| (SET_GENERATION.to_owned(), n.to_string())));
    Server {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: set.namespace(),
            labels: not_empty(&template.metadata.labels),
            annotations: not_empty(&annotations),
            owner_references: set.controller_owner_ref(&()).map(own),
            // With it there is nothing for the webhook to add, which is then not asked.
            finalizers: Some(vec![FINALIZER.to_owned()]),
            ..ObjectMeta::default()
        },
        spec: born_with(&template.spec),
        status: None,
    }
}

/// Deleting the set in the foreground waits for its Servers.
fn own(reference: OwnerReference) -> Vec<OwnerReference> {
    vec![OwnerReference { block_owner_deletion: Some(true), ..reference }]
}

fn not_empty(map: &BTreeMap<String, String>) -> Option<BTreeMap<String, String>> {
    (!map.is_empty()).then(|| map.clone())
}

fn born_with(template: &ServerTemplateSpec) -> ServerSpec {
    ServerSpec {
        machine: template.machine.clone(),
        packages: template.packages.clone(),
        prune_packages: template.prune_packages,
        app: template.app.clone(),
        health_check: template.health_check.clone(),
        reachability: template.reachability.clone(),
        traffic: template.traffic.clone(),
        monitoring: template.monitoring.clone(),
        gates: template.gates.clone(),
        task_attempts: template.task_attempts,
        offline: false,
        force: None,
        retry: None,
        reboot: None,
        retain: None,
    }
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

/// Names for a message: the first so many, and how many more there are.
#[must_use]
pub fn listed<'a>(names: impl ExactSizeIterator<Item = &'a str>, at_most: usize) -> String {
    let more = names.len().saturating_sub(at_most);
    let first = names.take(at_most).collect::<Vec<_>>().join(", ");
    if more > 0 { format!("{first} and {more} more") } else { first }
}
