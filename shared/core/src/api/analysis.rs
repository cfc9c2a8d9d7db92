//! The analysis of a new version of an application: which questions Prometheus answers about it, and what it has answered.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A question about the new version that Prometheus answers. It has one of `proportion`, `shift`, or `query` and `condition`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.proportion), has(self.shift), has(self.query)].filter(has, has).size() == 1")
    .message("a check has one of proportion, shift, or query and condition"),
  validation = Rule::new("has(self.query) == has(self.condition)").message("query and condition of a check belong together"))]
pub struct Check {
    /// Name by which steps refer to it.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// MonitoringClass that says where Prometheus is.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub source: String,
    /// Compares how often something bad happens on Servers with the new version and on the others, by counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proportion: Option<Proportion>,
    /// Compares a number of each Server with the new version, such as its latency, with those of the others, by their ranks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shift: Option<Shift>,
    /// Query in PromQL for one number, or for one number for each Server (label `server`), of which those with the new version
    /// count. It may contain `$namespace`, `$name` and `$elapsed`, which is the time since the analysis began, such as `90s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub query: Option<String>,
    /// What the number has to be: one of `<`, `<=`, `>`, `>=`, `==` and `!=`, and a decimal number, such as `< 0.01`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 32), regex(pattern = r"^(<|<=|>|>=|==|!=) *-?[0-9]+(\.[0-9]+)?$"))]
    pub condition: Option<String>,
}

/// How often something bad may happen with the new version, compared with the old one.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Proportion {
    /// Query in PromQL for how often something bad has happened since the analysis began, with a number for each Server (label
    /// `server`): `sum by (server) (increase(http_requests_total{namespace="$namespace", code=~"5.."}[$elapsed]))`.
    #[schemars(length(min = 1, max = 2048))]
    pub bad: String,
    /// Query in PromQL for how often it has happened at all, in the same way.
    #[schemars(length(min = 1, max = 2048))]
    pub total: String,
    /// By how much the proportion of the new version may exceed that of the old one: 0.005 is half a percent of all requests.
    #[schemars(length(max = 16), regex(pattern = r"^(0|1|0\.[0-9]+)$"))]
    pub max_increase: String,
    /// Probability with which a new version that is within `maxIncrease` may be taken for a bad one, and one that is not for a
    /// good one, over all looks of a step together.
    #[serde(default = "one_percent")]
    #[schemars(length(max = 16), regex(pattern = r"^0\.0{0,7}[1-9][0-9]{0,5}$"))]
    pub alpha: String,
}

/// By how much a number of Servers with the new version, such as the latency, may be higher than that of the others.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Shift {
    /// Query in PromQL for one number for each Server (label `server`):
    /// `histogram_quantile(0.9, sum by (server, le) (rate(http_request_duration_seconds_bucket{namespace="$namespace"}[$elapsed])))`.
    #[schemars(length(min = 1, max = 2048))]
    pub query: String,
    /// By how much it may be higher, in its unit.
    #[schemars(length(max = 16), regex(pattern = r"^[0-9]+(\.[0-9]+)?$"))]
    pub max_increase: String,
    /// Probability with which a new version that is within `maxIncrease` may be taken for a bad one, and one that is not for a
    /// good one, over all looks of a step together. The fewer Servers, the higher it has to be for any verdict.
    #[serde(default = "one_percent")]
    #[schemars(length(max = 16), regex(pattern = r"^0\.0{0,7}[1-9][0-9]{0,5}$"))]
    pub alpha: String,
}

fn one_percent() -> String {
    "0.01".to_owned()
}

/// A step that goes on when checks have passed. It looks at them again and again.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.checks) && self.checks.size() > 0").message("analysis.checks: name at least one check of rollout.checks"),
  validation = Rule::new("self.intervalSeconds * self.count <= self.maxSeconds")
    .message("analysis: count looks take count times intervalSeconds, which is longer than maxSeconds"))]
pub struct AnalysisStep {
    /// Names of checks. All of them have to pass.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(min = 1, max = 63)))]
    pub checks: Vec<String>,
    /// Seconds from one look to the next. The first look is that long after the beginning, so that there is something to see.
    #[serde(default = "one_minute")]
    #[schemars(range(min = 1, max = 86400))]
    pub interval_seconds: i32,
    /// At how many looks each check has to pass.
    #[serde(default = "once")]
    #[schemars(range(min = 1, max = 1000))]
    pub count: i32,
    /// At how many looks a check may fail. One more, and the roll-out has failed with reason `AnalysisFailed`.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(range(min = 0, max = 1000))]
    pub max_failures: i32,
    /// At how many looks a check may be inconclusive. One more, and a person is waited for. Without it, `maxSeconds` alone counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100_000))]
    pub max_inconclusive: Option<i32>,
    /// What it means when a query returns nothing. It never means that the check passes.
    #[serde(default)]
    pub no_data: NoData,
    /// For so many seconds, as whole intervals, it is looked. When that has led to no verdict, a person is waited for.
    #[serde(default = "one_hour")]
    #[schemars(range(min = 1, max = 2_592_000))]
    pub max_seconds: i32,
}

fn one_minute() -> i32 {
    60
}

fn once() -> i32 {
    1
}

fn one_hour() -> i32 {
    3600
}

/// Checks that are looked at throughout a roll-out: from its first step on until its last one is done and its version is stable.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.checks) && self.checks.size() > 0").message("background.checks: name at least one check of rollout.checks"))]
pub struct Background {
    /// Names of checks. One that fails acts as `onFailure` says. What is inconclusive, or has no data, decides nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(min = 1, max = 63)))]
    pub checks: Vec<String>,
    /// Seconds from one look to the next. The first look is that long after the beginning of the roll-out.
    #[serde(default = "one_minute")]
    #[schemars(range(min = 1, max = 86400))]
    pub interval_seconds: i32,
    /// At how many looks a check may fail. One more, and the roll-out has failed with reason `BackgroundCheckFailed`.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(range(min = 0, max = 1000))]
    pub max_failures: i32,
}

/// What it means when a query returns nothing.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum NoData {
    /// Nothing is known: it is looked again.
    #[default]
    Inconclusive,
    /// The check has failed at this look.
    Fail,
}

/// What a check says.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub enum CheckVerdict {
    /// What was measured is within what is tolerated.
    Pass,
    /// What was measured is beyond what is tolerated.
    Fail,
    /// Too little was measured to say either.
    Inconclusive,
}

/// How far an analysis has come, or what other checks that are looked at have said.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AnalysisProgress {
    /// The step; the first is 1. Of checks in the background, the one that has its turn; when all are done, one more than there are.
    pub step: i32,
    /// How often the roll-out had been begun again before. What an earlier attempt has measured does not count.
    pub attempt: i32,
    /// Digest of what was declared, with its checks. When it changes, everything begins anew.
    pub digest: String,
    /// When that step began to be looked at: `$elapsed` of the queries counts from then.
    pub since: Time,
    /// How many looks were made.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub looks: i32,
    /// When the last one was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub looked_at: Option<Time>,
    /// What the checks have said.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub checks: Vec<CheckProgress>,
}

/// What one check has said.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CheckProgress {
    /// Name of the check.
    pub name: String,
    /// At how many looks it has passed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub passes: i32,
    /// At how many looks it has failed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub failures: i32,
    /// At how many looks it was inconclusive.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub inconclusive: i32,
    /// What it said last.
    pub verdict: CheckVerdict,
    /// The values that it said this on, or why there are none.
    #[schemars(length(max = 1024))]
    pub message: String,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_zero(n: &i32) -> bool {
    *n == 0
}
