//! The CRDs, generated from the types.

use std::{fs, path::Path};

use anyhow::{Context, Result, bail};
use berth_core::api::{Approval, MachineClass, Server, VMDeployment, VMReplicaSet};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

/// Writes the CRDs, or with `check` fails when one of the files differs.
pub(crate) fn generate(root: &Path, check: bool) -> Result<()> {
    let folder = root.join("deploy/crds");
    let mut differing = Vec::new();
    for crd in [Approval::crd(), MachineClass::crd(), Server::crd(), VMDeployment::crd(), VMReplicaSet::crd()] {
        let path = folder.join(format!("{}.yaml", crd.spec.names.plural));
        let text = render(&crd)?;
        if fs::read_to_string(&path).is_ok_and(|now| now == text) {
            continue;
        }
        if check {
            differing.push(path.display().to_string());
        } else {
            fs::create_dir_all(&folder).context("create deploy/crds")?;
            fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        }
    }
    if !differing.is_empty() {
        bail!("not what the types say; run `cargo xtask generate`: {}", differing.join(", "));
    }
    Ok(())
}

fn render(crd: &CustomResourceDefinition) -> Result<String> {
    let body = serde_saphyr::to_string(crd).context("write the CRD as YAML")?;
    Ok(format!("# Generated from shared/core/src/api by `cargo xtask generate`. Do not edit.\n{body}"))
}
