//! MonitoringClass: where Prometheus is, and which namespaces may ask it.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Credentials, allowed_namespaces};

/// Declaration of a MonitoringClass: a Prometheus whose answers decide about roll-outs, and which namespaces may ask it.
#[derive(CustomResource, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[kube(
    group = "berth.dev",
    version = "v1alpha1",
    kind = "MonitoringClass",
    plural = "monitoringclasses",
    shortname = "mocl",
    category = "berth",
    derive = "PartialEq",
    doc = "A Prometheus whose answers decide about roll-outs, and which namespaces may ask it.",
    printcolumn(name = "Address", type_ = "string", json_path = ".spec.address"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct MonitoringClassSpec {
    /// Where the HTTP API of Prometheus is, or of a system with the same API, without `/api/v1`:
    /// `http://prometheus.monitoring:9090`. Redirections are not followed.
    #[schemars(length(min = 8, max = 1024), regex(pattern = r"^https?://[^\s/?#@]+(/[^\s?#]*)?$"))]
    pub address: String,
    /// Secret with `token`, or with `username` and `password`; and with `ca.crt`, if another authority than those of the system has
    /// signed the certificate of Prometheus.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Credentials>,
    /// Header that names the tenant, for systems that have several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<Tenant>,
    /// Namespaces whose VMDeployments may ask; without it, all of them. Whoever may ask sees only verdicts and numbers, but with
    /// a query of their own choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1000), inner(length(min = 1, max = 63)))]
    pub allowed_namespaces: Option<Vec<String>>,
}

impl MonitoringClassSpec {
    /// Whether VMDeployments of this namespace may ask.
    #[must_use]
    pub fn allows(&self, namespace: &str) -> bool {
        allowed_namespaces::allows(self.allowed_namespaces.as_ref(), namespace)
    }
}

/// A tenant of a monitoring system.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tenant {
    /// Name of the header.
    #[serde(default = "scope")]
    #[schemars(length(min = 1, max = 64), regex(pattern = r"^[A-Za-z0-9-]+$"))]
    pub header: String,
    /// Its value.
    #[schemars(length(min = 1, max = 256), regex(pattern = r"^[\x21-\x7e]+$"))]
    pub value: String,
}

fn scope() -> String {
    "X-Scope-OrgID".to_owned()
}
