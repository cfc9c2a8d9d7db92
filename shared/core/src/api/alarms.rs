//! Alarms that stop a roll-out: which ones, and what was seen of them.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::OnFailure;

/// Alarms that stop a roll-out: alerts of Prometheus, by the names of their rules. While it is not known whether they fire, nothing is
/// rolled out.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Alarms {
    /// MonitoringClass that says where the Prometheus is that has the alerting rules.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub source: String,
    /// Names of alerting rules. One that Prometheus does not have holds the roll-out.
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 128)))]
    pub names: Vec<String>,
    /// Labels that an alert must have to count, with their values, which may contain `$namespace` and `$name`. Without them every
    /// alert of these names counts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 8), inner(length(max = 128)))]
    pub match_labels: BTreeMap<String, String>,
    /// What happens when one begins to fire in the roll-out: `Rollback`, or `Pause`, which touches no further Server until a
    /// person decides.
    #[serde(default = "rollback")]
    pub on_firing: OnFailure,
    /// What one that fires already means for the beginning of the roll-out.
    #[serde(default)]
    pub already_firing: AlreadyFiring,
    /// Seconds from one look to the next.
    #[serde(default = "half_a_minute")]
    #[schemars(range(min = 1, max = 3600))]
    pub interval_seconds: i32,
}

fn rollback() -> OnFailure {
    OnFailure::Rollback
}

fn half_a_minute() -> i32 {
    30
}

/// What an alarm that fires already means for the beginning of a roll-out.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum AlreadyFiring {
    /// The roll-out begins when it has ended.
    #[default]
    Hold,
    /// It counts only once it has ended and fires again.
    Ignore,
}

/// What was seen of the alarms of a roll-out.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AlarmProgress {
    /// How often the roll-out had been begun again before.
    pub attempt: i32,
    /// Digest of what was declared. When it changes, everything begins anew.
    pub digest: String,
    /// When it was looked last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub looked_at: Option<Time>,
    /// Why it is not known now whether they fire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub unknown: Option<String>,
    /// When the roll-out could begin: none of them fired, or those that did were ignored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cleared_at: Option<Time>,
    /// Those that fired at the last look.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub firing: Vec<String>,
    /// Those that have fired since before the roll-out, and are ignored.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub ignored: Vec<String>,
    /// Those that began to fire in the roll-out, and when that was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fired: Option<FiredAlarms>,
}

/// Alarms that began to fire in a roll-out.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FiredAlarms {
    /// Their names.
    #[schemars(length(max = 16))]
    pub names: Vec<String>,
    /// When it was seen.
    pub at: Time,
}
