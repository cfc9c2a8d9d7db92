//! The VMReplicaSet of a VMDeployment.

use berth_core::api::{App, Server, ServerTemplate, ServerTemplateSpec, VMDeployment, VMReplicaSet, VMReplicaSetSpec};
use kube::{Resource as _, ResourceExt as _, api::ObjectMeta};

/// The application with its revision written down, so that every Server of one revision is declared the same.
#[must_use]
pub fn newest(deployment: &VMDeployment) -> App {
    let app = &deployment.spec.app;
    App { revision: Some(app.effective_revision()), ..app.clone() }
}

/// The VMReplicaSet that the VMDeployment asks for. While a roll-out is under way new Servers are born with what the
/// set has had so far, which is the last application that was rolled out completely.
#[must_use]
pub fn replica_set(deployment: &VMDeployment, present: Option<&VMReplicaSet>, rolled_out: bool) -> VMReplicaSet {
    let spec = &deployment.spec;
    let stable = present.and_then(|set| set.spec.template.spec.app.clone()).filter(|_| !rolled_out);
    let app = stable.unwrap_or_else(|| newest(deployment));
    VMReplicaSet {
        metadata: ObjectMeta {
            name: Some(deployment.name_any()),
            namespace: deployment.namespace(),
            labels: deployment.metadata.labels.clone(),
            owner_references: deployment.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        spec: VMReplicaSetSpec {
            replicas: spec.replicas,
            selector: spec.selector.clone(),
            template: ServerTemplate {
                metadata: spec.template.metadata.clone(),
                spec: ServerTemplateSpec { app: Some(app), ..spec.template.spec.clone() },
            },
            update_strategy: spec.update_strategy.clone(),
            min_ready_seconds: spec.min_ready_seconds,
            paused: spec.paused,
            scale_down: spec.scale_down.clone(),
            failover: spec.failover.clone(),
        },
        status: None,
    }
}

/// Whether the set that there is differs from the one that is asked for.
#[must_use]
pub fn differs(present: Option<&VMReplicaSet>, desired: &VMReplicaSet) -> bool {
    let Some(present) = present else { return true };
    let has =
        |key: &String, value: &String| present.metadata.labels.iter().flatten().any(|(k, v)| k == key && v == value);
    present.spec != desired.spec || !desired.metadata.labels.iter().flatten().all(|(key, value)| has(key, value))
}

/// Whether the VMDeployment controls this set.
#[must_use]
pub fn is_own(deployment: &VMDeployment, set: &VMReplicaSet) -> bool {
    controls(&deployment.metadata, &set.metadata)
}

/// Whether the set controls this Server.
#[must_use]
pub fn has(set: &VMReplicaSet, server: &Server) -> bool {
    controls(&set.metadata, &server.metadata)
}

fn controls(owner: &ObjectMeta, object: &ObjectMeta) -> bool {
    let mut references = object.owner_references.iter().flatten();
    owner.uid.as_ref().is_some_and(|uid| references.any(|r| r.controller == Some(true) && r.uid == *uid))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::deployment;

    #[test]
    fn a_new_set_has_the_newest_application_and_every_field() {
        let deployment = deployment("v1", |spec| {
            spec["replicas"] = 7.into();
            spec["minReadySeconds"] = 3.into();
            spec["paused"] = true.into();
            spec["updateStrategy"] = serde_json::json!({"maxUnavailable": "50%", "partition": 2});
            spec["scaleDown"] = serde_json::json!({"policy": "Oldest", "servers": ["web-3"]});
            spec["failover"] = serde_json::json!({"action": "Replace"});
        });
        let set = replica_set(&deployment, None, false);
        let (d, s) = (&deployment.spec, &set.spec);
        assert_eq!((s.replicas, s.min_ready_seconds, s.paused), (7, 3, true));
        assert_eq!((&s.update_strategy, &s.scale_down), (&d.update_strategy, &d.scale_down));
        assert_eq!((&s.failover, &s.selector), (&d.failover, &d.selector));
        assert_eq!(s.template.spec.app.as_ref().unwrap().revision.as_deref(), Some("v1"));
        assert!(is_own(&deployment, &set));
        assert!(differs(None, &set) && !differs(Some(&set), &set));
    }

    #[test]
    fn new_servers_get_the_stable_application_until_the_roll_out_is_complete() {
        let stable = replica_set(&deployment("v1", |_| {}), None, false);
        let newer = deployment("v2", |_| {});
        let app = |set: VMReplicaSet| set.spec.template.spec.app.unwrap().revision.unwrap();
        assert_eq!(app(replica_set(&newer, Some(&stable), false)), "v1");
        assert_eq!(app(replica_set(&newer, Some(&stable), true)), "v2");
    }

    #[test]
    fn a_revision_that_is_not_declared_follows_from_the_application() {
        let mut one = deployment("v1", |_| {});
        one.spec.app.revision = None;
        let revision = newest(&one).revision.unwrap();
        assert_eq!(newest(&one).effective_revision(), revision);
        one.spec.app.command.push_str(" --more");
        assert_ne!(newest(&one).revision.unwrap(), revision);
    }
}
