//! The Gateway API, as its project ships it.

use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use tokio::process::Command;

use crate::repository;

/// The definition of `HTTPRoute`, which is downloaded once for all checkouts.
///
/// # Errors
/// When `scripts/tools.sh` cannot get it: it needs Go.
pub async fn http_route_crd() -> Result<CustomResourceDefinition> {
    let mut command = Command::new(repository().join("scripts/tools.sh"));
    let output = command.arg("gateway-api").stdin(Stdio::null()).output().await.context("run scripts/tools.sh")?;
    ensure!(output.status.success(), "get the Gateway API: {}", String::from_utf8_lossy(&output.stderr));
    let folder = String::from_utf8(output.stdout)?;
    let file = format!("{}/gateway.networking.k8s.io_httproutes.yaml", folder.trim());
    let text = std::fs::read_to_string(&file).with_context(|| format!("read {file}"))?;
    serde_saphyr::from_str(&text).with_context(|| format!("decode {file}"))
}
