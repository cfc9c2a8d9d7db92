//! Routes of the Gateway API whose weights follow a roll-out.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An `HTTPRoute` (`gateway.networking.k8s.io/v1`) whose weights follow the roll-out. It is in the namespace of the VMDeployment, and
/// its annotation `berth.dev/weights-of` names the VMDeployment: without that, nothing is changed.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.stableService != self.canaryService")
    .message("rollout.httpRoutes: stableService and canaryService are two Services"))]
pub struct HttpRoute {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Service that `template.spec.traffic.backends` names with `subset: Stable`.
    #[schemars(length(min = 1, max = 63))]
    pub stable_service: String,
    /// Service that `template.spec.traffic.backends` names with `subset: Updated`. In each rule that names both, its weight is the share
    /// of the new version, and that of the other one the rest of 100.
    #[schemars(length(min = 1, max = 63))]
    pub canary_service: String,
}

/// What became of the weights of an `HTTPRoute`.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpRouteStatus {
    /// Its name.
    pub name: String,
    /// The weight of the roll-out that the route follows: `status.rollout.weight`. Absent while traffic is not split, or because of
    /// `problem`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<i32>,
    /// Why the route does not follow the roll-out, and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}
