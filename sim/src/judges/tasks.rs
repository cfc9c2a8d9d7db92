//! Guarantee 4: a task is begun only by its executor, or handed over to it, and its result is counted once.

use berth_core::api::TaskKind;
use serde::Deserialize as _;
use serde_json::Value;

use super::{
    scene::{Scene, by_berth},
    view::text,
};

/// The phases of a task in which it is over.
const OVER: [&str; 3] = ["Succeeded", "Failed", "Cancelled"];

/// What is wrong with a change of a Server's tasks.
pub(super) fn miscounted(scene: &Scene<'_>) -> Option<String> {
    let (before, after) = (scene.before?, scene.after?);
    if scene.plural != "servers" {
        return None;
    }
    let tasks = after["status"]["tasks"].as_array()?;
    let known = before["status"]["tasks"].as_array().map(Vec::as_slice).unwrap_or_default();
    tasks.iter().find_map(|task| {
        let earlier = known.iter().find(|earlier| earlier["id"] == task["id"]);
        wrong(scene, earlier, task, &after["status"]["lock"])
    })
}

/// Who carries the task out; nobody if its kind is unknown.
fn executor_of(task: &Value) -> &'static str {
    TaskKind::deserialize(&task["kind"]).map_or("", |kind| kind.executor().name())
}

/// Whether this is the task of the lock, and a copy of the task's executor holds it.
fn is_handed_over(task: &Value, lock: &Value) -> bool {
    let holder = text(lock, "/holder").split('/').next();
    lock["taskID"] == task["id"] && holder == Some(executor_of(task))
}

fn wrong(scene: &Scene<'_>, earlier: Option<&Value>, task: &Value, lock: &Value) -> Option<String> {
    let (kind, phase) = (text(task, "/kind"), text(task, "/phase"));
    let named = || format!("{kind} (task {}) of {}", task["id"], scene.place);
    let attempts = |task: &Value| task["attempts"].as_i64().unwrap_or_default();
    let (was, tried) = earlier.map_or(("Pending", 0), |earlier| (text(earlier, "/phase"), attempts(earlier)));
    let executor = scene.author.rsplit(':').next().unwrap_or_default();
    let is_its_own = kind == "Gate" || executor_of(task) == executor || is_handed_over(task, lock);
    if by_berth(scene) && attempts(task) > tried && !is_its_own {
        return Some(format!("{executor} began {}, which is for {}", named(), executor_of(task)));
    }
    if attempts(task) > tried + 1 {
        return Some(format!("{} was begun twice in one write", named()));
    }
    // A failed task may be tried again, and a refused gate be approved after all. What has succeeded stays so.
    let is_revised = was == "Failed" && (phase == "Pending" || kind == "Gate");
    if OVER.contains(&was) && phase != was && !is_revised {
        return Some(format!("{} was {was} and became {phase}", named()));
    }
    None
}
