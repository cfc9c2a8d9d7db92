//! The VMReplicaSet that a VMDeployment asks for.

use berth_core::api::{App, ServerSpec, ServerTemplate, VMDeployment, VMReplicaSet, VMReplicaSetSpec};
use kube::{Resource as _, api::ObjectMeta};

use crate::{analysis, background};

/// The application as the VMDeployment declares it now. Its revision is always filled in, so that the declarations of two
/// Servers with the same revision are equal. None is declared as a baseline.
pub(crate) fn newest_app(deployment: &VMDeployment) -> App {
    let app = &deployment.spec.app;
    App { revision: Some(app.effective_revision()), baseline: None, ..app.clone() }
}

/// The VMReplicaSet that the VMDeployment asks for. New Servers begin with `app`.
pub(crate) fn desired(deployment: &VMDeployment, app: App) -> VMReplicaSet {
    VMReplicaSet { metadata: desired_metadata(deployment), spec: desired_spec(deployment, app), status: None }
}

fn desired_metadata(deployment: &VMDeployment) -> ObjectMeta {
    ObjectMeta {
        name: deployment.metadata.name.clone(),
        namespace: deployment.metadata.namespace.clone(),
        labels: deployment.metadata.labels.clone(),
        owner_references: deployment.controller_owner_ref(&()).map(|owner| vec![owner]),
        ..ObjectMeta::default()
    }
}

fn desired_spec(deployment: &VMDeployment, app: App) -> VMReplicaSetSpec {
    let spec = &deployment.spec;
    VMReplicaSetSpec {
        replicas: spec.replicas,
        selector: spec.selector.clone(),
        template: ServerTemplate {
            metadata: spec.template.metadata.clone(),
            spec: ServerSpec { app: Some(app), ..spec.template.spec.clone() },
        },
        update_strategy: spec.update_strategy.clone(),
        min_ready_seconds: spec.min_ready_seconds,
        // While one version of the code is compared with another, the environment stays as it is.
        paused: spec.paused || is_compared(deployment),
        scale_down: spec.scale_down.clone(),
        failover: spec.failover.clone(),
    }
}

fn is_compared(deployment: &VMDeployment) -> bool {
    let newest = newest_app(deployment);
    analysis::is_under_way(deployment, &newest) || background::compares(deployment, &newest)
}

/// Whether the set has to be applied: it is missing, its spec differs, or one of the desired labels is missing. Labels that
/// others have added do not count.
pub(crate) fn differs(present: Option<&VMReplicaSet>, desired: &VMReplicaSet) -> bool {
    let Some(present) = present else { return true };
    let has_label = |(key, value): (&String, &String)| {
        present.metadata.labels.as_ref().and_then(|labels| labels.get(key)) == Some(value)
    };
    present.spec != desired.spec || !desired.metadata.labels.iter().flatten().all(has_label)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::deployment;

    #[test]
    fn a_new_set_has_the_newest_application_and_every_field_of_the_deployment() {
        let deployment = deployment("v1", |spec| {
            spec["replicas"] = 7.into();
            spec["minReadySeconds"] = 3.into();
            spec["paused"] = true.into();
            spec["updateStrategy"] = serde_json::json!({"maxUnavailable": "50%", "partition": 2});
            spec["scaleDown"] = serde_json::json!({"policy": "Oldest", "servers": ["web-3"]});
            spec["failover"] = serde_json::json!({"action": "Replace"});
        });
        let set = desired(&deployment, newest_app(&deployment));
        let (d, s) = (&deployment.spec, &set.spec);
        assert_eq!((s.replicas, s.min_ready_seconds, s.paused), (7, 3, true));
        assert_eq!((&s.update_strategy, &s.scale_down), (&d.update_strategy, &d.scale_down));
        assert_eq!((&s.failover, &s.selector), (&d.failover, &d.selector));
        assert_eq!(s.template.spec.app.as_ref().unwrap().revision.as_deref(), Some("v1"));
        assert!(deployment.owns(&set));
        assert!(differs(None, &set) && !differs(Some(&set), &set));
    }

    #[test]
    fn a_revision_that_is_not_declared_is_derived_from_the_application() {
        let mut deployment = deployment("v1", |_| {});
        deployment.spec.app.revision = None;
        let revision = newest_app(&deployment).revision.unwrap();
        assert_eq!(newest_app(&deployment).effective_revision(), revision);
        deployment.spec.app.command.push_str(" --more");
        assert_ne!(newest_app(&deployment).revision.unwrap(), revision);
    }
}
