//! A VMDeployment says how it is and whom it waits for, with each status: exactly one of `Ready`, `Reconciling` and `Stalled` is True, and
//! what is not Ready says what it waits for. What is stalled names a person.

use serde_json::Value;

use super::{
    new_code::by_deployment_controller,
    scene::Scene,
    view::{is_being_deleted, text},
};

/// What is wrong with what deployment-controller says of a VMDeployment.
pub(super) fn silence(scene: &Scene<'_>) -> Option<String> {
    let after = scene.after.filter(|_| scene.plural == "vmdeployments" && by_deployment_controller(scene))?;
    let status = &after["status"];
    if is_being_deleted(after) || scene.before.is_some_and(|before| before["status"] == *status) {
        return None;
    }
    let is_true = |kind: &str| {
        let mut conditions = status["conditions"].as_array().into_iter().flatten();
        conditions.any(|condition: &Value| condition["type"] == kind && condition["status"] == "True")
    };
    let all: Vec<&str> = ["Ready", "Reconciling", "Stalled"].into_iter().filter(|kind| is_true(kind)).collect();
    let waiting = text(after, "/status/waitingFor");
    let wrong = match all[..] {
        ["Reconciling"] if waiting.is_empty() => "does not say what it waits for",
        ["Stalled"] if !waiting.contains("a person") => "is stalled and names no person",
        ["Ready" | "Reconciling" | "Stalled"] => return None,
        _ => "has not exactly one of Ready, Reconciling and Stalled",
    };
    Some(format!("{} {wrong}: {all:?}, {waiting:?}", scene.place))
}
