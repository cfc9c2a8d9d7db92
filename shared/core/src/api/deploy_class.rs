//! DeployClass: a deploy system outside of Berth, and which namespaces may use it.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Credentials, allowed_namespaces};

/// Declaration of a DeployClass: a deploy system that brings applications onto machines, and which namespaces may use it.
#[derive(CustomResource, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[kube(
    group = "berth.dev",
    version = "v1alpha1",
    kind = "DeployClass",
    plural = "deployclasses",
    shortname = "dcl",
    category = "berth",
    derive = "PartialEq",
    doc = "A deploy system that brings applications onto machines, and which namespaces may use it.",
    printcolumn(name = "URL", type_ = "string", json_path = ".spec.url"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct DeployClassSpec {
    /// Where the deploy system serves the API of `docs/executor.openapi.yaml`, without `/jobs`: `https://ci.example/berth`.
    /// Redirections are not followed.
    #[schemars(length(min = 8, max = 1024), regex(pattern = r"^https?://[^\s/?#@]+(/[^\s?#]*)?$"))]
    pub url: String,
    /// Secret with `token`, or with `username` and `password`; and with `ca.crt`, if another authority than those of the system has
    /// signed the certificate of the deploy system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Credentials>,
    /// Seconds that a job may take. One that takes longer is cancelled, and the task is attempted again.
    #[serde(default = "hour")]
    #[schemars(range(min = 1, max = 86400))]
    pub job_timeout_seconds: i32,
    /// Seconds between two looks at a job.
    #[serde(default = "five")]
    #[schemars(range(min = 1, max = 300))]
    pub poll_seconds: i32,
    /// Namespaces whose applications may be deployed by the deploy system; without it, all of them. Jobs that have begun are
    /// followed to their end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1000), inner(length(min = 1, max = 63)))]
    pub allowed_namespaces: Option<Vec<String>>,
}

impl DeployClassSpec {
    /// Whether applications of this namespace may be deployed by the deploy system.
    #[must_use]
    pub fn allows(&self, namespace: &str) -> bool {
        allowed_namespaces::allows(self.allowed_namespaces.as_ref(), namespace)
    }
}

fn hour() -> i32 {
    3600
}

fn five() -> i32 {
    5
}
