use berth_testing::DeployFault;
use serde_json::{Value, json};

use super::{super::testing::World, *};
use crate::testing::{now, server};

/// A Server whose task 7 has this phase, under the lock for this task.
fn with_task(kind: &str, phase: &str, locked: i64) -> Server {
    let mut server = server("web-0", "v1", "Unknown", 60);
    server.metadata.uid = Some("u-1".into());
    server.spec.app.as_mut().unwrap().executor =
        serde_json::from_value(json!({"type": "External", "className": "ci"})).unwrap();
    let status = server.status.as_mut().unwrap();
    let task = json!({"id": 7, "kind": kind, "step": 1, "phase": phase, "attempts": 2});
    status.tasks = vec![serde_json::from_value(task).unwrap()];
    let lock = json!({"holder": "deployment-controller/dead", "taskID": locked, "acquiredAt": now().to_string(),
        "renewedAt": now().to_string(), "durationSeconds": 30});
    status.lock = serde_json::from_value(lock).unwrap();
    server
}

#[test]
fn a_job_is_left_when_its_task_was_cancelled_and_its_lock_was_not_released() {
    let left = with_task("DeployApp", "Cancelled", 7);
    let job = left_job(&left).unwrap();
    assert_eq!((job.task.id, &job.classes[..]), (7, &["ci"][..]));
    assert_eq!(job.keys(&left).collect::<Vec<_>>(), ["u-1-7-2", "u-1-7-1"]);
    for other in [
        with_task("DeployApp", "Running", 7),
        with_task("DeployApp", "Cancelled", 8),
        with_task("InstallPackages", "Cancelled", 7),
    ] {
        assert_eq!(left_job(&other), None, "{other:?}");
    }
    let mut released = with_task("DeployApp", "Cancelled", 7);
    released.status.as_mut().unwrap().lock = None;
    assert_eq!(left_job(&released), None);
}

/// Another executor was declared meanwhile.
#[test]
fn the_class_that_has_deployed_before_may_have_the_job_too() {
    let mut server = with_task("DeployApp", "Cancelled", 7);
    let fact = |class: Value| serde_json::from_value(json!({"revision": "v0", "deployClass": class})).unwrap();
    server.status.as_mut().unwrap().app = fact("ci".into());
    assert_eq!(left_job(&server).unwrap().classes, ["ci"]);
    server.spec.app.as_mut().unwrap().executor = serde_json::from_value(json!({"type": "SSH"})).unwrap();
    assert_eq!(left_job(&server).unwrap().classes, ["ci"]);
    server.status.as_mut().unwrap().app = fact(Value::Null);
    assert_eq!(left_job(&server), None);
}

fn keys() -> impl Iterator<Item = String> {
    [2, 1].map(World::key).into_iter()
}

#[tokio::test]
async fn the_newest_job_that_is_known_is_cancelled_until_it_has_ended() {
    let world = World::new().await;
    assert_eq!(end(&world.system, keys()).await, Ending::Unknown);
    world.fake.state().set(&World::key(1), json!({"state": "Running", "digest": "d"}));
    world.fake.state().ignores_cancel = true;
    assert_eq!(end(&world.system, keys()).await, Ending::GoesOn);
    world.fake.state().ignores_cancel = false;
    // The newest attempt may have been made by SSH, under the same lock.
    assert_eq!(end(&world.system, keys()).await, Ending::Unknown);
    world.fake.state().set(&World::key(2), json!({"state": "Running", "digest": "d"}));
    world.fake.state().calls.clear();
    assert_eq!(end(&world.system, keys()).await, Ending::Ended);
    assert_eq!(world.fake.state().calls, [format!("POST {}", World::key(2))]);
}

#[tokio::test]
async fn a_deploy_system_that_does_not_say_what_became_of_a_job_is_asked_again() {
    for fault in [
        DeployFault::NoAnswer,
        DeployFault::CutOff,
        DeployFault::Refused(503, Value::Null),
        DeployFault::Refused(401, Value::Null),
    ] {
        let world = World::new().await;
        world.fake.state().set(&World::key(2), json!({"state": "Running", "digest": "d"}));
        world.faults([fault.clone()]);
        assert_eq!(end(&world.system, keys()).await, Ending::Unclear, "{fault:?}");
        assert_eq!(end(&world.system, keys()).await, Ending::Ended, "{fault:?}");
    }
}
