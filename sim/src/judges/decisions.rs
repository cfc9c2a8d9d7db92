//! Guarantee 6: automation never undoes a person's decision.

use std::time::Duration;

use serde_json::Value;

use super::{
    scene::{Scene, Work, by_berth},
    view::{Place, View, is_being_deleted, text},
};

/// Fields of a Server's declaration whose change does not end a force.
const BESIDE_THE_FORCE: [&str; 4] = ["force", "retry", "reboot", "retain"];

/// How long a set has to be paused before changes of its Servers are judged: what had begun before may arrive later.
const BEGUN_BEFORE: Duration = Duration::from_mins(1);

/// A decision of a person that one of Berth's programs undoes with this change.
pub(super) fn undone(scene: &Scene<'_>) -> Option<String> {
    if !by_berth(scene) {
        return None;
    }
    let before = scene.before?;
    let wrong = match (scene.plural, scene.after) {
        ("servers", Some(after)) => of_server(before, after).or_else(|| rolled_out_while_paused(scene, before, after)),
        ("approvals", None) => Some("the Approval is removed".to_owned()),
        ("approvals", Some(after)) if after["spec"] != before["spec"] => Some("the Approval is changed".to_owned()),
        ("vmdeployments" | "vmreplicasets", None) => Some("the declaration is removed".to_owned()),
        ("vmdeployments", Some(after)) => of_declaration(before, after),
        ("vmreplicasets", Some(after)) if super::view::owner(before).is_none() => of_declaration(before, after),
        _ => None,
    }?;
    Some(format!("{} {}: {wrong} by {}", scene.plural, scene.place, scene.author))
}

fn of_server(before: &Value, after: &Value) -> Option<String> {
    let (old, new) = (&before["spec"], &after["spec"]);
    if old["force"] != new["force"] {
        return Some(format!("the force {} becomes {}", old["force"], new["force"]));
    }
    if old["offline"] == true && new["offline"] != true {
        return Some("offline is taken back".to_owned());
    }
    if !old["retain"].is_null() && new["retain"].is_null() {
        return Some("a retained machine is given back".to_owned());
    }
    let is_forced = !old["force"].is_null() && before["status"]["force"]["active"] == true;
    // Offline outranks a force: a person has asked for its end.
    let is_kept = is_forced && old["offline"] != true;
    if is_kept && is_being_deleted(after) && !is_being_deleted(before) {
        return Some("a forced Server is deleted".to_owned());
    }
    let changed = changed_fields(old, new).find(|field| !BESIDE_THE_FORCE.contains(field));
    changed.filter(|_| is_forced).map(|field| format!("{field} of a forced Server is changed"))
}

/// A roll-out that goes on although it is paused. Code that goes back is excused: a person may abort and undo while everything is paused.
fn rolled_out_while_paused(scene: &Scene<'_>, before: &Value, after: &Value) -> Option<String> {
    let field = changed_fields(&before["spec"], &after["spec"]).find(|field| matches!(*field, "app" | "packages"))?;
    let (set, _) = scene.view.set_of(scene.place, before)?;
    // The pause of code is declared in the VMDeployment. That of its set follows a moment later.
    let is_of_deployment = field == "app" && scene.view.get("vmdeployments", &set).is_some();
    let since = if is_of_deployment { scene.view.code_paused_since(&set) } else { scene.view.paused_since(&set) }?;
    let is_late = since + BEGUN_BEFORE < scene.clock.elapsed();
    let goes_back = field == "app" && goes_back(scene, &set, &after["spec"]["app"]);
    (is_late && !goes_back).then(|| format!("{field} is changed while {set} is paused"))
}

/// Whether the roll-out goes back to this application: the stable one, or the one that a person has named.
fn goes_back(scene: &Scene<'_>, deployment: &Place, app: &Value) -> bool {
    let Some(deployment) = scene.view.get("vmdeployments", deployment) else { return false };
    let status = &deployment["status"];
    let is_named = |known: &Value| !known.is_null() && known["revision"] == app["revision"];
    let is_turned = !status["rollout"]["aborted"].is_null() || !status["rollout"]["undone"].is_null();
    is_turned && (is_named(&status["stableApp"]) || is_named(&status["rollout"]["undone"]["app"]))
}

/// A program lowers `replicas` where failover shrinks a fleet, and changes nothing else of what a person declares.
fn of_declaration(before: &Value, after: &Value) -> Option<String> {
    let (old, new) = (&before["spec"], &after["spec"]);
    let shrinks = old["failover"]["action"] == "Shrink" && new["replicas"].as_i64() < old["replicas"].as_i64();
    let mut changed = changed_fields(old, new);
    changed.find(|field| *field != "replicas" || !shrinks).map(|field| format!("{field} is changed"))
}

fn changed_fields<'a>(old: &'a Value, new: &'a Value) -> impl Iterator<Item = &'a str> {
    let fields = |value: &'a Value| value.as_object().into_iter().flat_map(|fields| fields.keys().map(String::as_str));
    fields(old).chain(fields(new)).filter(|field| old.get(*field) != new.get(*field))
}

/// Whether a person's force to Ready is in effect.
pub(super) fn is_forced_ready(view: &View, server: &Place) -> bool {
    let is_forced =
        |server: &Value| text(server, "/spec/force/state") == "Ready" && server["status"]["force"]["active"] == true;
    view.get("servers", server).is_some_and(is_forced)
}

/// Work on the machine of a Server that a person forces into a state without such work, begun after that.
pub(super) fn work_on_forced(work: &Work<'_>) -> Option<String> {
    let server = work.view.get("servers", work.place)?;
    let force = &server["spec"]["force"];
    let state = text(force, "/state");
    if !matches!(state, "Ready" | "Unknown") || server["status"]["force"]["active"] != true {
        return None;
    }
    // Not what the force says of it: that is by the clock of a copy of the webhook.
    let is_later = work.begun(server)? > work.view.forced_since(work.place)?;
    is_later.then(|| format!("{} changed the machine of {}, which is forced to {state}", work.holder, work.place))
}
