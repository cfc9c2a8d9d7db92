//! Applies manifests by server-side apply, and keeps the apiserver's warnings.

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
    control_plane::ControlPlane,
    error::{Error, KubeContext, Result},
    manifest::{self, Manifest},
    parts::Part,
};

/// How long a `CustomResourceDefinition` may take until it is served.
const ESTABLISHED_TIMEOUT: Duration = Duration::from_secs(30);
/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
const FIELD_MANAGER: &str = "berth-control-plane";

/// Where the apiserver finds the webhooks of the installed configurations.
#[derive(Debug, Clone)]
pub struct WebhookEndpoint {
    /// `https://127.0.0.1:PORT`; the path comes from the manifest.
    pub url_base: String,
    /// The certificate of the authority that signed the webhook's certificate, as PEM.
    pub ca_pem: String,
}

/// A warning of the apiserver about an object it accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiWarning {
    /// Kind and name of the object.
    pub object: String,
    /// The apiserver's text.
    pub text: String,
}

/// What [`ControlPlane::install`] did.
#[derive(Debug, Clone, Default)]
pub struct InstallReport {
    /// Kind and name of each object that was applied, in order.
    pub applied: Vec<String>,
    /// Kind and name of each object that was left out, because it needs a kubelet or a webhook endpoint.
    pub skipped: Vec<String>,
    /// The apiserver's warnings; good manifests cause none.
    pub warnings: Vec<ApiWarning>,
}

impl ControlPlane {
    /// Applies the manifests of `dir` (those below `crds` and `base` if it has such, else all): `CustomResourceDefinition`s
    /// first, until they are served, webhook configurations last, with their Services replaced by `webhook`. Left out are
    /// kinds that need a kubelet, and the webhook configurations when there is no `webhook`.
    ///
    /// A webhook configuration takes effect a moment after this returns; the first writes may pass it by.
    ///
    /// # Errors
    /// When a file is no manifest or the apiserver refuses an object.
    pub async fn install(&self, dir: &Path, webhook: Option<&WebhookEndpoint>) -> Result<InstallReport> {
        let mut report = InstallReport::default();
        let mut crds = Vec::new();
        let mut rest = Vec::new();
        for mut manifest in manifest::read(dir)? {
            match webhook {
                Some(endpoint) if manifest.is_webhook_configuration() => manifest.point_webhooks_at(endpoint),
                _ if manifest.needs_nodes() || manifest.is_webhook_configuration() => {
                    tracing::debug!(object = manifest.title(), "left out");
                    report.skipped.push(manifest.title());
                    continue;
                }
                _ => {}
            }
            if manifest.is_crd() { crds.push(manifest) } else { rest.push(manifest) }
        }
        let client = self.admin_client();
        for crd in &crds {
            apply(&client, crd, &mut report).await?;
        }
        for crd in &crds {
            established(&client, crd).await?;
        }
        if !crds.is_empty() {
            // The garbage collector looks for new kinds every 30 s only; until then it would ignore their owners.
            self.restart(Part::ControllerManager).await?;
        }
        for manifest in &rest {
            apply(&client, manifest, &mut report).await?;
        }
        Ok(report)
    }
}

async fn apply(client: &Client, manifest: &Manifest, report: &mut InstallReport) -> Result<()> {
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
    let request = kube::core::Request::new(DynamicObject::url_path(&resource, namespace));
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    let request = request.patch(&name, &parameters, &Patch::Apply(&object)).map_err(kube::Error::BuildRequest);
    let request = request.doing(|| format!("apply {title}"))?.map(Body::from);
    let answer = tokio::time::timeout(REQUEST_TIMEOUT, client.send(request)).await;
    let answer = answer.map_err(|_| unanswered(format!("apply of {title}"), REQUEST_TIMEOUT))?;
    let answer = answer.doing(|| format!("apply {title}"))?;

    let (head, body) = answer.into_parts();
    if !head.status.is_success() {
        let bytes = body.collect_bytes().await.doing(|| format!("apply {title}"))?;
        let message = serde_json::from_slice::<serde_json::Value>(&bytes)
            .ok()
            .and_then(|status| Some(status["message"].as_str()?.to_owned()))
            .unwrap_or_else(|| format!("{}: {}", head.status, String::from_utf8_lossy(&bytes)));
        return Err(Error::Refused { object: title, file: manifest.file.clone(), message });
    }
    for value in head.headers.get_all("warning") {
        let text = warning_text(&String::from_utf8_lossy(value.as_bytes()));
        tracing::warn!(object = title, text, "warning of the apiserver");
        report.warnings.push(ApiWarning { object: title.clone(), text });
    }
    report.applied.push(title);
    Ok(())
}

async fn established(client: &Client, manifest: &Manifest) -> Result<()> {
    let name = manifest.object.metadata.name.clone().unwrap_or_default();
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let met =
        tokio::time::timeout(ESTABLISHED_TIMEOUT, await_condition(api, &name, conditions::is_crd_established())).await;
    let what = || format!("CustomResourceDefinition {name} was not established");
    match met {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(Error::Timeout { what: what(), timeout: ESTABLISHED_TIMEOUT, last: error.to_string() }),
        Err(_) => Err(unanswered(what(), ESTABLISHED_TIMEOUT)),
    }
}

fn unanswered(what: String, timeout: Duration) -> Error {
    Error::Timeout { what, timeout, last: "no answer from kube-apiserver".to_owned() }
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
    fn the_text_of_a_warning_header() {
        assert_eq!(warning_text(r#"299 - "unknown field \"spec.x\"""#), r#"unknown field "spec.x""#);
        assert_eq!(warning_text("odd"), "odd");
    }
}
