//! The status of a BalancerClass.

use berth_core::api::{BalancerClass, BalancerClassStatus};
use berth_runtime::{Context, EventType, reference};
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;

use super::view::View;

/// Writes the status of a class when it has changed.
#[derive(Default)]
pub(super) struct StatusWriter {
    written: Option<BalancerClassStatus>,
}

impl StatusWriter {
    /// Writes the status, unless it is what was written last.
    /// `stays` says why a class stays that is to be deleted.
    pub(super) async fn write(&mut self, ctx: &Context, class: &BalancerClass, view: &View, stays: Option<&str>) {
        let before = self.written.as_ref().or(class.status.as_ref());
        let status = status(view, stays, class.metadata.generation, before, ctx.clock.now());
        if before == Some(&status) {
            return;
        }
        self.say(ctx, class, &status);
        let api = Api::<BalancerClass>::all(ctx.client.clone());
        let patch = Patch::Merge(json!({"status": status}));
        match api.patch_status(class.name(), &PatchParams::default(), &patch).await {
            Ok(_) => self.written = Some(status),
            Err(error) => tracing::warn!(%error, class = class.name(), "cannot write the status of the BalancerClass"),
        }
    }

    /// An Event when the class becomes ready or stops to be.
    fn say(&self, ctx: &Context, class: &BalancerClass, status: &BalancerClassStatus) {
        let before = self.written.as_ref().or(class.status.as_ref()).and_then(|status| status.conditions.first());
        let Some(ready) = status.conditions.first() else { return };
        if before.is_some_and(|before| before.status == ready.status && before.reason == ready.reason) {
            return;
        }
        let kind = if ready.status == "True" { EventType::Normal } else { EventType::Warning };
        let reason = if ready.status == "True" { "Ready" } else { "NotReady" };
        ctx.events.publish(&reference(class), kind, reason, ready.message.clone());
    }
}

/// The status of a class whose processes look like this.
fn status(
    view: &View,
    stays: Option<&str>,
    generation: Option<i64>,
    before: Option<&BalancerClassStatus>,
    now: Timestamp,
) -> BalancerClassStatus {
    let failed: Vec<_> =
        view.processes.iter().filter_map(|(name, process)| Some((name, &process.failed.as_ref()?.0))).collect();
    let answering = view.processes.len() - failed.len();
    let (state, reason, message) = match failed.first() {
        _ if stays.is_some() => ("False", "Deleting", stays.unwrap_or_default().to_owned()),
        None => ("True", "Answers", format!("all {answering} processes answer")),
        Some((name, why)) => {
            let all = view.processes.len();
            let message = format!("{} of {all} processes do not answer; {name}: {why}", failed.len());
            ("False", "ProcessUnreachable", message)
        }
    };
    let ready = ready(state, reason, message, generation, before, now);
    let count = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    BalancerClassStatus { processes: count(answering), servers: count(view.servers().len()), conditions: vec![ready] }
}

fn ready(
    state: &str,
    reason: &str,
    message: String,
    generation: Option<i64>,
    before: Option<&BalancerClassStatus>,
    now: Timestamp,
) -> Condition {
    let before = before.and_then(|status| status.conditions.first()).filter(|before| before.status == state);
    Condition {
        type_: "Ready".to_owned(),
        status: state.to_owned(),
        reason: reason.to_owned(),
        message,
        observed_generation: generation,
        last_transition_time: before.map_or(Time(now), |before| before.last_transition_time.clone()),
    }
}
