//! How a new version of an application is rolled out: the declaration, and how far it has come.

use k8s_openapi::apimachinery::pkg::{apis::meta::v1::Time, util::intstr::IntOrString};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    After, AlarmProgress, Alarms, AnalysisProgress, App, Background, BaselineProgress, Check, Followed, HttpRoute,
    OnFailure, RolloutStep, Spread, replicaset::percent_rule,
};
use crate::digest;

/// How a new version of the application is rolled out.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.steps) || self.steps.all(step, !has(step.analysis) || !has(step.analysis.checks) || step.analysis.checks.all(name, has(self.checks) && self.checks.exists(check, check.name == name)))")
    .message("rollout.steps: an analysis names a check that rollout.checks does not have"),
  validation = Rule::new("!has(self.steps) || self.steps.all(step, !has(step.approve) || !has(step.approve.evidence) || step.approve.evidence.all(name, has(self.checks) && self.checks.exists(check, check.name == name)))")
    .message("rollout.steps: the evidence of an approve names a check that rollout.checks does not have"),
  validation = Rule::new("!has(self.background) || !has(self.background.checks) || self.background.checks.all(name, has(self.checks) && self.checks.exists(check, check.name == name))")
    .message("rollout.background: names a check that rollout.checks does not have"))]
pub struct Rollout {
    /// Which Servers are updated first: `OldestFirst`, or `Priority`, which updates Servers with a higher value in the
    /// annotation `berth.dev/rollout-priority` first. Servers that are not Ready always come before the others.
    #[serde(default)]
    pub order: RolloutOrder,
    /// Zones that get the new version one after the other. `order` says which is the first one, by its first Server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spread: Option<Spread>,
    /// How many Servers keep the old version. 0 updates all of them.
    #[serde(default)]
    #[schemars(range(min = 0, max = 10000))]
    pub partition: i32,
    /// Holds the roll-out of the application, and nothing else. A roll-back goes on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// To how many of the Servers that have their turn next (a number or a percentage of `replicas`) the new version's artifact is
    /// brought while they still serve: downloaded, verified and unpacked, so that traffic is held without a download. A percentage
    /// is rounded down, but to at least 1. Nothing else on them is touched. 0, which is the default, downloads it while traffic is
    /// held. Without effect on an application that a deploy system deploys (`app.executor`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::replicaset::count_or_percent")]
    #[x_kube(validation = percent_rule("stageAhead"))]
    pub stage_ahead: Option<IntOrString>,
    /// How many Servers (a number or a percentage of `replicas`) may have failed with the new version before no further
    /// Server is touched: its deployment failed, or it was not healthy in time. A percentage is rounded down, but to at
    /// least 1. The roll-out goes on with a new version, when the Servers are repaired or retried, or when this is raised.
    /// Without it only the budget (`updateStrategy.maxUnavailable`) limits failures; with `onFailure: Rollback` it is 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::replicaset::count_or_percent")]
    #[x_kube(validation = percent_rule("maxFailed"))]
    pub max_failed: Option<IntOrString>,
    /// What happens when more Servers than `maxFailed` have failed, or the roll-out makes no progress until its deadline:
    /// `Pause`, which touches no further Server, or `Rollback`, which brings the stable version back to every Server that
    /// has the new one.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// From this step on (the first is 1) a failure pauses instead of rolling back, because the new version has changed what
    /// the old one needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 32))]
    pub irreversible_after: Option<i32>,
    /// Seconds without progress, beyond `minReadySeconds`, after which the VMDeployment is reported as `Stalled`. Progress
    /// is that more Servers than ever before run the new version in good health. The roll-out goes on when it can.
    #[serde(default = "ten_minutes")]
    #[schemars(range(min = 1, max = 604_800))]
    pub progress_deadline_seconds: i32,
    /// Questions about the new version that Prometheus answers, for the steps with `analysis` or `approve`, and for `background`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub checks: Vec<Check>,
    /// Checks that are looked at throughout the roll-out, whichever step has its turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub background: Option<Background>,
    /// VMDeployments on which the same artifact must be stable before this roll-out begins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub after: Vec<After>,
    /// Namespaces whose VMDeployments may wait for this one. Those of its own namespace always may.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 63)))]
    pub follower_namespaces: Vec<String>,
    /// Alerts of Prometheus that hold the beginning of the roll-out, and stop it or bring it back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alarms: Option<Alarms>,
    /// Steps of a gradual roll-out, one after the other; then every Server is updated. With steps that
    /// have a `weight`, the new version receives no traffic before the first of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new("self.filter(step, has(step.weight)).map(step, step.weight).isSorted()")
        .message("rollout.steps: no weight may be lower than that of an earlier step"),
      validation = Rule::new("self.all(step, !has(step.bake)) || self.map(step, has(step.bake) ? 2 : has(step.servers) ? 1 : 0).filter(kind, kind > 0)[0] == 1")
        .message("rollout.steps: a bake needs an earlier step with servers, or there is nothing to watch"),
      validation = Rule::new("!self.exists(step, has(step.baseline)) || self.map(step, has(step.baseline) ? 2 : has(step.servers) || has(step.weight) ? 1 : 0).filter(kind, kind > 0)[0] == 1")
        .message("rollout.steps: a baseline needs an earlier step with servers or weight, or there is no new version to compare with it"),
      validation = Rule::new("self.map(step, has(step.baseline) ? 1 : has(step.servers) && type(step.servers) == string && step.servers == '100%' ? 2 : 0).filter(kind, kind > 0).isSorted()")
        .message("rollout.steps: after servers: 100% no Server has the stable version any more that a baseline could restart"))]
    pub steps: Vec<RolloutStep>,
    /// Routes of the Gateway API whose weights follow the steps with a `weight`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub http_routes: Vec<HttpRoute>,
    /// How many times its even share of the traffic any Server may get while a weight splits the traffic, such as `2.5`; 1.5 by default. A
    /// step whose weight would give more waits for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[1-9][0-9]?(\.[0-9]{1,2})?$"))]
    pub max_load_factor: Option<String>,
    /// What a person wants to happen to the roll-out now. It is done once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<RolloutRequest>,
}

impl Default for Rollout {
    fn default() -> Self {
        Self {
            order: RolloutOrder::default(),
            spread: None,
            partition: 0,
            paused: false,
            stage_ahead: None,
            max_failed: None,
            on_failure: OnFailure::default(),
            irreversible_after: None,
            progress_deadline_seconds: ten_minutes(),
            checks: Vec::new(),
            background: None,
            after: Vec::new(),
            follower_namespaces: Vec::new(),
            alarms: None,
            steps: Vec::new(),
            http_routes: Vec::new(),
            max_load_factor: None,
            request: None,
        }
    }
}

fn ten_minutes() -> i32 {
    600
}

/// In which order Servers are updated.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum RolloutOrder {
    /// The oldest Servers first.
    #[default]
    OldestFirst,
    /// Servers with a higher value in the annotation `berth.dev/rollout-priority` first.
    Priority,
}

/// What a person wants to happen to a roll-out.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.toRevision) || self.action == 'Undo'")
    .message("rollout.request: toRevision is for the action Undo alone"))]
pub struct RolloutRequest {
    /// What to do.
    pub action: RolloutAction,
    /// With `Undo`: number of the revision to go back to (`kubectl get controllerrevisions`). Without it, the last one that was
    /// stable before the present one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub to_revision: Option<i64>,
    /// Any value that was not used before: a new value is a new request.
    #[schemars(length(min = 1, max = 63))]
    pub id: String,
    /// Why it is requested.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub reason: String,
    /// User who made the request. Set at admission; a value sent by the client is overwritten.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// When the request was made. Set at admission; a value sent by the client is overwritten.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Time>,
}

/// What can be requested of a roll-out.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub enum RolloutAction {
    /// The current step is done. This is also how a person approves.
    Promote,
    /// All steps are done.
    PromoteFull,
    /// The stable version comes back to every Server that has the new one, which is not deployed again without a person.
    Abort,
    /// An aborted roll-out begins again with its first step, and so does the declared version after an `Undo`.
    Retry,
    /// Every Server gets an earlier version of the application, whatever is declared, until another one is declared or a person
    /// requests `Retry`.
    Undo,
    /// Every Server that has the stable version starts it anew, within the budget and without steps and checks.
    Restart,
}

/// How far a roll-out has come.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutProgress {
    /// Digest of the application that is being rolled out.
    pub digest: String,
    /// Most Servers so far that ran it in good health at once.
    pub healthy_replicas: i32,
    /// When that number last rose, or the roll-out began or was resumed. Absent while it is held, and when it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progressed_at: Option<Time>,
    /// How often this application was begun to be rolled out, if more than once.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retries: i32,
    /// Number of this application in the history, which is that of its ControllerRevision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision_number: Option<i64>,
    /// How many of the steps are done.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub steps_done: i32,
    /// The step that has its turn; the first is 1. Absent without steps, and when all are done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_step: Option<i32>,
    /// Percentage of the traffic that load balancers give this application. Absent when they do not split it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<i32>,
    /// When the current step began. Absent when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_since: Option<Time>,
    /// How far the analysis of the current step has come, or what the evidence of its approval says. When the step is neither, what
    /// the last one has shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub analysis: Option<AnalysisProgress>,
    /// What the checks in the background have said. Absent once the version is stable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub background: Option<AnalysisProgress>,
    /// The Servers that were restarted to compare the new version with. Absent before, and once the version is stable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<BaselineProgress>,
    /// When the VMDeployments of `rollout.after` have let it begin. Absent before, and once the version is stable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub followed: Option<Followed>,
    /// What was seen of the alarms. Absent once the version is stable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alarms: Option<AlarmProgress>,
    /// The request that was carried out last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_request: Option<String>,
    /// Why nothing came of that request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// That a person has undone the declared application, and what is deployed in its place. The declared one is not deployed
    /// again without a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undone: Option<Undone>,
    /// The last restart that a person has requested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<Restart>,
    /// That and why the roll-out was aborted. The application is not deployed again without a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aborted: Option<Abort>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_zero(n: &i32) -> bool {
    *n == 0
}

impl RolloutProgress {
    /// Whether this is the progress of this application. Another content of its ConfigMaps and Secrets is another application; where none
    /// has been recorded, a person has just gone back to it, or an older version of Berth has rolled it out. One that was restarted as a
    /// baseline is the same.
    #[must_use]
    pub fn is_about(&self, app: &App) -> bool {
        let app = &*app.unmarked();
        self.digest == digest::short(app) || self.digest == digest::short(&app.as_declared())
    }
}

/// That and why a roll-out was aborted.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Abort {
    /// The cause in one word in `CamelCase`.
    pub reason: String,
    /// What was wrong, or who has requested it.
    pub message: String,
    /// When.
    pub at: Time,
}

/// That a person has requested a restart.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Restart {
    /// The `id` of the request. Servers that were started for it have it in `spec.app.restart`.
    pub id: String,
    /// Who has requested it, and why.
    pub message: String,
    /// When.
    pub at: Time,
}

/// That a person has undone the declared application.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Undone {
    /// Revision that was undone.
    pub revision: String,
    /// Digest of that application. When another one is declared, that one is deployed.
    pub digest: String,
    /// The application that is deployed in its place.
    pub app: App,
    /// Who has requested it, and why.
    pub message: String,
    /// When.
    pub at: Time,
}
