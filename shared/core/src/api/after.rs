//! Other VMDeployments that a roll-out waits for.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A VMDeployment on which the same artifact must be stable before this roll-out begins.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct After {
    /// Its namespace. If it is another one, the VMDeployment must allow this one by `rollout.followerNamespaces`.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    /// Its name.
    #[schemars(length(min = 1, max = 52))]
    pub name: String,
    /// For so many seconds the artifact must have been stable there.
    #[serde(default)]
    #[schemars(range(min = 0, max = 2_592_000))]
    pub bake_seconds: i32,
}

/// That the VMDeployments that a roll-out waits for have let it begin.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Followed {
    /// How often the roll-out had been begun again before.
    pub attempt: i32,
    /// Digest of what was declared. When it changes, they are looked at anew.
    pub digest: String,
    /// When that was seen.
    pub at: Time,
}
