//! VMDeployment: a set of Servers and the application on them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{App, Failover, HttpRouteStatus, Rollout, RolloutProgress, ScaleDown, ServerTemplate, UpdateStrategy};

/// Declaration of a VMDeployment: one set of Servers and the application that runs on them.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "berth.dev",
    version = "v1alpha1",
    kind = "VMDeployment",
    plural = "vmdeployments",
    singular = "vmdeployment",
    shortname = "vmd",
    category = "berth",
    namespaced,
    status = "VMDeploymentStatus",
    derive = "PartialEq",
    doc = "A set of Servers and the application on them, which is rolled out in place.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Desired", type_ = "integer", json_path = ".spec.replicas"),
    printcolumn(name = "Updated", type_ = "integer", json_path = ".status.updatedReplicas"),
    printcolumn(name = "Ready", type_ = "integer", json_path = ".status.readyReplicas"),
    printcolumn(name = "Revision", type_ = "string", json_path = ".status.revision"),
    printcolumn(name = "Waiting For", type_ = "string", json_path = ".status.waitingFor"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.size() <= 52").message("metadata.name: at most 52 characters, because Servers add an ordinal to it")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.selector.matchLabels) || (has(self.template.metadata) && has(self.template.metadata.labels) && self.selector.matchLabels.all(k, k in self.template.metadata.labels && self.template.metadata.labels[k] == self.selector.matchLabels[k]))")
    .message("spec.selector does not match spec.template.metadata.labels: every label of the selector must be in the template with the same value"),
  validation = Rule::new("!has(self.rollout) || !has(self.rollout.steps) || !self.rollout.steps.exists(step, has(step.weight)) || (has(self.template.spec.traffic) && has(self.template.spec.traffic.backends) && self.template.spec.traffic.backends.exists(backend, has(backend.class))) || (has(self.rollout.httpRoutes) && self.rollout.httpRoutes.size() > 0)")
    .message("spec.rollout.steps: a weight needs a load balancer that knows weights: name a class in spec.template.spec.traffic.backends, or a route in spec.rollout.httpRoutes"),
  validation = Rule::new(format!("!has(self.rollout) || !has(self.rollout.httpRoutes) || self.rollout.httpRoutes.all(route, {} && {})", has_service("stableService", "Stable"), has_service("canaryService", "Updated")))
    .message("spec.rollout.httpRoutes: spec.template.spec.traffic.backends has to name stableService with subset: Stable, and canaryService with subset: Updated"),
  validation = Rule::new("!has(self.template.spec.app)").message("spec.template.spec.app: a VMDeployment declares the application in spec.app"))]
pub struct VMDeploymentSpec {
    /// Desired number of Servers.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 10000))]
    pub replicas: i32,
    /// Labels by which the VMDeployment finds its Servers; the template must carry them. Only `matchLabels` is
    /// supported. Immutable.
    #[x_kube(validation = Rule::new("self == oldSelf").message("spec.selector is immutable").reason(Reason::FieldValueForbidden),
        validation = Rule::new("has(self.matchLabels) && self.matchLabels.size() > 0 && !has(self.matchExpressions)").message("spec.selector needs matchLabels, and only those"))]
    #[schemars(schema_with = "super::replicaset::selector_schema")]
    pub selector: LabelSelector,
    /// Labels, machine and environment of the Servers. The application is declared in `app`, not here.
    pub template: ServerTemplate,
    /// The application that runs on every Server.
    pub app: App,
    /// How a new version of the application is rolled out to the Servers.
    #[serde(default)]
    pub rollout: Rollout,
    /// How a changed template is rolled out to the Servers. Its `maxUnavailable` is the budget for template and
    /// application together.
    #[serde(default)]
    pub update_strategy: UpdateStrategy,
    /// How many seconds a Server must have been Ready to count as available.
    #[serde(default)]
    #[schemars(range(min = 0, max = 86400))]
    pub min_ready_seconds: i32,
    /// Stops all roll-outs, of the template and of the application. Servers that are being changed are finished.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// How many earlier versions of the application are kept, each as a `ControllerRevision`, to go back to. The present ones
    /// and those that Servers have are kept besides.
    #[serde(default = "ten")]
    #[schemars(range(min = 0, max = 1000))]
    pub revision_history_limit: i32,
    /// Which Servers are removed first when there are too many.
    #[serde(default)]
    pub scale_down: ScaleDown,
    /// What is done about Servers whose machines are unreachable. Without it they stay Unknown until they are reachable
    /// again or a person acts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failover: Option<Failover>,
}

/// CEL that says whether the template names the Service in this field of a route with this subset.
fn has_service(field: &str, subset: &str) -> String {
    format!(
        "has(self.template.spec.traffic) && has(self.template.spec.traffic.backends) && \
         self.template.spec.traffic.backends.exists(backend, has(backend.service) && backend.service == route.{field} && \
         has(backend.subset) && backend.subset == '{subset}')"
    )
}

fn one() -> i32 {
    1
}

fn ten() -> i32 {
    10
}

/// Observed state of a VMDeployment.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct VMDeploymentStatus {
    /// Generation of the declaration that this status describes; -1 before there is any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Number of Servers, not counting those that are being retired or retained for diagnosis.
    #[serde(default)]
    pub replicas: i32,
    /// Number of these Servers that are Ready with their newest declaration.
    #[serde(default)]
    pub ready_replicas: i32,
    /// Number of these Servers that have been Ready for `minReadySeconds` and receive the traffic that they declare.
    #[serde(default)]
    pub available_replicas: i32,
    /// Number of these Servers on which the newest version of the application is deployed.
    #[serde(default)]
    pub updated_replicas: i32,
    /// Revision that is being rolled out, or that was rolled out last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Revision that was last rolled out: every Server that the roll-out may touch runs it in good health, except as many
    /// as the budget allows. New Servers start with it while another one is being rolled out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stable_revision: Option<String>,
    /// The application of `stableRevision`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stable_app: Option<App>,
    /// Since when it has been the stable one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stable_since: Option<Time>,
    /// Digest of what the ConfigMaps and Secrets of `revision` contain: see `spec.app.contentDigest`. While some of them are missing, the
    /// one that they had last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub content_digest: Option<String>,
    /// How many Servers have each revision of the application. Of more than 32 revisions, the most common ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["revision".into()]))]
    pub revisions: Vec<RevisionCount>,
    /// What became of the weights of `rollout.httpRoutes`. Written by lb-controller.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub http_routes: Vec<HttpRouteStatus>,
    /// How far the roll-out of the application has come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutProgress>,
    /// The selector as text, for the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// What the VMDeployment waits for, and who has to act. Absent when nothing is left to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_for: Option<String>,
    /// Conditions: `Ready`, `Reconciling`, `Stalled`, `Available` and `Progressing`. Exactly one of the first three is True.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// How many Servers have one revision of the application.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RevisionCount {
    /// The revision that the Servers declare.
    pub revision: String,
    /// Number of these Servers.
    pub replicas: i32,
    /// How many of them are Ready with it.
    pub ready_replicas: i32,
}
