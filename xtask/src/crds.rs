//! Generates the CRDs from the types of the API.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use berth_core::api::{Approval, MachineClass, Server, VMDeployment, VMReplicaSet};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

/// All CRDs, in the order of the reference: from what users write to what controllers write.
pub(crate) fn all() -> [CustomResourceDefinition; 5] {
    [VMDeployment::crd(), VMReplicaSet::crd(), Server::crd(), MachineClass::crd(), Approval::crd()]
}

/// The paths and contents of the files in `deploy/crds`.
pub(crate) fn files(root: &Path) -> Result<Vec<(PathBuf, String)>> {
    let folder = root.join("deploy/crds");
    let file = |crd: &CustomResourceDefinition| {
        anyhow::Ok((folder.join(format!("{}.yaml", crd.spec.names.plural)), render(crd)?))
    };
    all().iter().map(file).collect()
}

fn render(crd: &CustomResourceDefinition) -> Result<String> {
    let body = serde_saphyr::to_string(crd).context("write the CRD as YAML")?;
    Ok(format!("# Generated from shared/core/src/api by `cargo xtask generate`. Do not edit.\n{body}"))
}
