//! Generates the CRDs from the types of the API.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use berth_core::api::{
    Approval, BalancerClass, DeployClass, MachineClass, MonitoringClass, Server, VMDeployment, VMReplicaSet,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt;
use serde_json::json;

/// All CRDs, in the order of the reference: from what users write to what controllers write.
pub(crate) fn all() -> [CustomResourceDefinition; 8] {
    let [deployment, set] = [VMDeployment::crd(), VMReplicaSet::crd()].map(with_unobserved_status);
    let classes = [MachineClass::crd(), BalancerClass::crd(), DeployClass::crd(), MonitoringClass::crd()];
    let [machine, balancer, deploy, monitoring] = classes;
    [deployment, set, Server::crd(), machine, balancer, deploy, monitoring, Approval::crd()]
}

/// The CRD whose objects begin with a status that has observed nothing. Tools would take an object without one for ready.
fn with_unobserved_status(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut crd.spec.versions {
        let schema = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut());
        let status = schema.and_then(|schema| schema.properties.as_mut()?.get_mut("status"));
        if let Some(status) = status {
            status.default = Some(JSON(json!({"observedGeneration": -1})));
        }
    }
    crd
}

/// The paths and contents of the files in `deploy/crds`.
pub(crate) fn files(root: &Path) -> Result<Vec<(PathBuf, String)>> {
    let folder = root.join("deploy/crds");
    let stored = all().map(|crd| if crd.spec.names.kind == "Server" { with_described_defaults(crd) } else { crd });
    let file = |crd: &CustomResourceDefinition| {
        anyhow::Ok((folder.join(format!("{}.yaml", crd.spec.names.plural)), render(crd)?))
    };
    stored.iter().map(file).collect()
}

/// The CRD whose defaults are said in the descriptions instead of filled in. Programs read an absent field as its default, and the API
/// server pays for every field that is present with every write: there are many Servers, and many writes to each.
fn with_described_defaults(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut crd.spec.versions {
        if let Some(schema) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) {
            describe_defaults(schema);
        }
    }
    crd
}

fn describe_defaults(schema: &mut JSONSchemaProps) {
    if let Some(default) = schema.default.take() {
        let about = schema.description.get_or_insert_default();
        // Writing to a String cannot fail.
        let _ = write!(about, "\n\nDefault: `{}`.", default.0);
    }
    schema.properties.iter_mut().flatten().for_each(|(_, field)| describe_defaults(field));
    if let Some(JSONSchemaPropsOrArray::Schema(element)) = &mut schema.items {
        describe_defaults(element);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(value)) = &mut schema.additional_properties {
        describe_defaults(value);
    }
}

fn render(crd: &CustomResourceDefinition) -> Result<String> {
    let body = serde_saphyr::to_string(crd).context("write the CRD as YAML")?;
    Ok(format!("# Generated from shared/core/src/api by `cargo xtask generate`. Do not edit.\n{body}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Adds what makes each write of this field dear: the API server looks for the old element of each element of a map list, and
    /// evaluates rules.
    fn dear(path: &str, schema: &JSONSchemaProps, found: &mut Vec<String>) {
        if schema.x_kubernetes_list_type.as_deref() == Some("map") {
            found.push(format!("{path}: a map list"));
        }
        if schema.x_kubernetes_validations.as_ref().is_some_and(|rules| !rules.is_empty()) {
            found.push(format!("{path}: a rule"));
        }
        for (name, field) in schema.properties.iter().flatten() {
            dear(&format!("{path}.{name}"), field, found);
        }
        if let Some(JSONSchemaPropsOrArray::Schema(element)) = &schema.items {
            dear(&format!("{path}[]"), element, found);
        }
    }

    #[test]
    fn servers_are_stored_without_defaults_and_explain_says_them() {
        let files = files(Path::new("")).unwrap();
        let text = |name: &str| files.iter().find(|(path, _)| path.ends_with(name)).unwrap().1.clone();
        assert!(!text("servers.yaml").contains(" default:"), "the API server fills defaults in");
        assert!(text("servers.yaml").contains("Default: `600`."));
        assert!(text("vmreplicasets.yaml").contains("default: 600"));
    }

    #[test]
    fn the_status_of_a_server_has_neither_map_lists_nor_rules() {
        let crd = Server::crd();
        let schema = crd.spec.versions[0].schema.as_ref().unwrap().open_api_v3_schema.as_ref().unwrap();
        let mut found = Vec::new();
        dear("status", &schema.properties.as_ref().unwrap()["status"], &mut found);
        assert!(found.is_empty(), "nobody applies these lists by key, and every write pays for them: {found:?}");
    }
}
