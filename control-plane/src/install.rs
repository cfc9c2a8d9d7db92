//! Applies manifests by server-side apply, and collects the apiserver's warnings.

use std::{path::Path, time::Duration};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client, Resource,
    api::{DynamicObject, Patch, PatchParams},
    client::Body,
    discovery::{self, Scope},
    runtime::wait::{await_condition, conditions},
};

use crate::{
    components::Component,
    control_plane::ControlPlane,
    error::{ControlPlaneError, KubeContext, Result},
    manifest::{self, Manifest, WebhookEndpoint},
};

/// How long a `CustomResourceDefinition` may take to be served: usually less than a second, but the machine may be busy.
const ESTABLISHED_TIMEOUT: Duration = Duration::from_secs(30);
/// How long one request may take: half of the apiserver's own limit of 60 s.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// The field manager of every applied object.
const FIELD_MANAGER: &str = "berth-control-plane";

/// A warning of the apiserver about an object that it accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiWarning {
    /// Kind and name of the object.
    pub object: String,
    /// The text of the warning.
    pub text: String,
}

/// The result of [`ControlPlane::install`].
#[derive(Debug, Clone, Default)]
pub struct InstallReport {
    /// Kind and name of each object that was applied, in order.
    pub applied: Vec<String>,
    /// Kind and name of each object that was skipped because it needs a kubelet or a webhook endpoint.
    pub skipped: Vec<String>,
    /// The apiserver's warnings. Good manifests cause none.
    pub warnings: Vec<ApiWarning>,
}

impl ControlPlane {
    /// Applies the manifests of `dir` (those below `crds` and `base` if it has them, otherwise all). Applies
    /// `CustomResourceDefinition`s first and waits until they are served; applies webhook configurations last, with their
    /// Services replaced by `webhook`. Skips kinds that need a kubelet, and without `webhook` also webhook configurations.
    ///
    /// A webhook configuration takes effect a moment after this returns; the first writes may bypass it.
    ///
    /// # Errors
    /// When a file is not a manifest or the apiserver refuses an object.
    pub async fn install(&self, dir: &Path, webhook: Option<&WebhookEndpoint>) -> Result<InstallReport> {
        let mut report = InstallReport::default();
        let manifests = select(manifest::read(dir)?, webhook, &mut report);
        let (crds, rest): (Vec<_>, Vec<_>) = manifests.into_iter().partition(Manifest::is_crd);
        let client = self.admin_client();
        for crd in &crds {
            apply(&client, crd, &mut report).await?;
        }
        for crd in &crds {
            wait_until_established(&client, crd).await?;
        }
        if !crds.is_empty() {
            // The garbage collector discovers new kinds only every 30 s, and ignores owners of unknown kinds until then.
            self.restart(Component::ControllerManager).await?;
        }
        for manifest in &rest {
            apply(&client, manifest, &mut report).await?;
        }
        Ok(report)
    }
}

/// Adapts the manifests to a control plane without a kubelet, and drops those that it cannot use.
fn select(manifests: Vec<Manifest>, webhook: Option<&WebhookEndpoint>, report: &mut InstallReport) -> Vec<Manifest> {
    let mut selected = Vec::new();
    for mut manifest in manifests {
        match webhook {
            Some(endpoint) if manifest.is_webhook_configuration() => manifest.point_webhooks_at(endpoint),
            _ if manifest.needs_nodes() || manifest.is_webhook_configuration() => {
                tracing::debug!(object = manifest.title(), "skipped");
                report.skipped.push(manifest.title());
                continue;
            }
            _ => {}
        }
        selected.push(manifest);
    }
    selected
}

async fn apply(client: &Client, manifest: &Manifest, report: &mut InstallReport) -> Result<()> {
    let title = manifest.title();
    let request = apply_request(client, manifest).await?;
    let response = tokio::time::timeout(REQUEST_TIMEOUT, client.send(request)).await;
    let response = response.map_err(|_| no_response(format!("apply of {title}"), REQUEST_TIMEOUT))?;
    let (head, body) = response.doing(|| format!("apply {title}"))?.into_parts();
    if !head.status.is_success() {
        let bytes = body.collect_bytes().await.doing(|| format!("apply {title}"))?;
        let message = serde_json::from_slice::<serde_json::Value>(&bytes)
            .ok()
            .and_then(|status| Some(status["message"].as_str()?.to_owned()))
            .unwrap_or_else(|| format!("{}: {}", head.status, String::from_utf8_lossy(&bytes)));
        return Err(ControlPlaneError::Refused { object: title, file: manifest.file.clone(), message });
    }
    for value in head.headers.get_all("warning") {
        let text = warning_text(&String::from_utf8_lossy(value.as_bytes()));
        tracing::warn!(object = title, text, "warning of the apiserver");
        report.warnings.push(ApiWarning { object: title.clone(), text });
    }
    report.applied.push(title);
    Ok(())
}

/// A request for server-side apply. It is built by hand because kube's `Api` drops the headers of a response, which hold the
/// warnings.
async fn apply_request(client: &Client, manifest: &Manifest) -> Result<http::Request<Body>> {
    let title = manifest.title();
    let gvk = manifest.gvk()?;
    let (resource, capabilities) =
        discovery::pinned_kind(client, &gvk).await.doing(|| format!("find the kind of {title}"))?;
    let namespace = match capabilities.scope {
        Scope::Cluster => None,
        Scope::Namespaced => Some(manifest.object.metadata.namespace.as_deref().unwrap_or("default")),
    };
    let mut object = manifest.object.clone();
    object.metadata.managed_fields = None;
    let name = object.metadata.name.clone().unwrap_or_default();
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    let request = kube::core::Request::new(DynamicObject::url_path(&resource, namespace));
    let request = request.patch(&name, &parameters, &Patch::Apply(&object)).map_err(kube::Error::BuildRequest);
    Ok(request.doing(|| format!("apply {title}"))?.map(Body::from))
}

async fn wait_until_established(client: &Client, manifest: &Manifest) -> Result<()> {
    let name = manifest.object.metadata.name.clone().unwrap_or_default();
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let met =
        tokio::time::timeout(ESTABLISHED_TIMEOUT, await_condition(api, &name, conditions::is_crd_established())).await;
    let what = || format!("CustomResourceDefinition {name} was not established");
    match met {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => {
            Err(ControlPlaneError::Timeout { what: what(), timeout: ESTABLISHED_TIMEOUT, last: error.to_string() })
        }
        Err(_) => Err(no_response(what(), ESTABLISHED_TIMEOUT)),
    }
}

fn no_response(what: String, timeout: Duration) -> ControlPlaneError {
    ControlPlaneError::Timeout { what, timeout, last: "no response from kube-apiserver".to_owned() }
}

/// The text of a `Warning` header (RFC 7234, section 5.5): `299 - "text"`, with quotes and backslashes escaped.
fn warning_text(header: &str) -> String {
    let quoted = header.split_once('"').and_then(|(_, rest)| rest.rsplit_once('"')).map(|(text, _)| text);
    let Some(quoted) = quoted else { return header.to_owned() };
    let mut text = String::new();
    let mut chars = quoted.chars();
    while let Some(c) = chars.next() {
        text.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::warning_text;

    #[test]
    fn the_text_of_a_warning_header_is_unquoted() {
        assert_eq!(warning_text(r#"299 - "unknown field \"spec.x\"""#), r#"unknown field "spec.x""#);
        assert_eq!(warning_text("odd"), "odd");
    }
}
