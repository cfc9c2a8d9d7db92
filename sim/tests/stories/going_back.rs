//! Roll-outs that go back.

use serde_json::json;

use crate::stage::{now, story};

#[test]
fn bad_version() {
    let about = "v2 answers with errors. The canary fails, and gets v1 back by itself; then a person declares v3.";
    story("bad_version", about, &[111], async |stage| {
        let steps = json!([{"servers": 1}, {"pause": {"seconds": 60}}, {"servers": "100%"}]);
        stage.declare(4, json!({"rollout": {"steps": steps, "onFailure": "Rollback", "maxFailed": 0}})).await;
        stage.happens("v2 is a bad version", |world| world.spoil_code("v2", None));
        stage.declares("v2").await;
        stage.until("the roll-out is aborted", |now| now.reason() == "RolloutAborted").await;
        stage.starts_anew().await;
        stage.declares("v3").await;
        stage.until("v3 is stable", |now| now.is_ready_with("v3")).await;
    });
}

#[test]
fn abort_and_retry() {
    let about =
        "A person aborts a roll-out half way, although it is paused, and has it tried again later without steps.";
    story("abort_and_retry", about, &[121], async |stage| {
        let steps = json!([{"servers": 1}, {"servers": "50%"}, {"pause": {}}, {"servers": "100%"}]);
        stage.declare(4, json!({"rollout": {"steps": steps}})).await;
        stage.declares("v2").await;
        stage.until("a person is waited for", |now| now.reason() == "WaitingForPromotion").await;
        stage.ann("pauses everything", json!({"paused": true})).await;
        stage.requests("Abort", "customers complain").await;
        stage.until("v1 is back", |now| now.reason() == "RolloutAborted").await;
        stage.later(60).await;
        stage.ann("lets everything go on", json!({"paused": false})).await;
        stage.requests("Retry", "it was something else").await;
        stage.until("half of them have v2 again", |now| now.reason() == "WaitingForPromotion").await;
        stage.requests("PromoteFull", "no more steps").await;
        stage.until("v2 is stable", |now| now.is_ready_with("v2")).await;
    });
}

#[test]
fn undo() {
    let about = "v3 is everywhere when a person wants v2 back, then the first revision, and at last the declared one after all.";
    story("undo", about, &[132], async |stage| {
        stage.declare(3, json!({})).await;
        for revision in ["v2", "v3"] {
            stage.declares(revision).await;
            stage.until("it is stable", |now| now.is_ready_with(revision)).await;
        }
        stage.requests("Undo", "slow").await;
        stage.until("v2 is back", |now| now.reason() == "RolloutUndone" && now.running("v2") == 3).await;
        stage.starts_anew().await;
        let request = json!({"action": "Undo", "toRevision": 1, "id": "to-the-first", "reason": "slow, too"});
        stage.ann("requests Undo to revision 1: slow, too", json!({"rollout": {"request": request}})).await;
        stage.until("v1 is back", |now| now.reason() == "RolloutUndone" && now.running("v1") == 3).await;
        stage.ann("removes the request", json!({"rollout": {"request": null}})).await;
        stage.requests("Retry", "it was the network").await;
        stage.until("v3 is back", |now| now.is_ready_with("v3")).await;
    });
}

#[test]
fn point_of_no_return() {
    let about = "From step 2 on v1 cannot come back. A failure there stops the roll-out, until a person declares v3.";
    story("point_of_no_return", about, &[141], async |stage| {
        let steps = json!([{"servers": 1}, {"pause": {}}, {"servers": "100%"}]);
        let rollout = json!({"steps": steps, "onFailure": "Rollback", "maxFailed": 0, "irreversibleAfter": 2});
        stage.declare(4, json!({"rollout": rollout})).await;
        stage.declares("v2").await;
        stage.until("a person is waited for", |now| now.reason() == "WaitingForPromotion").await;
        let uid = now(stage).uid("web-3");
        stage.happens("v2 will not work on web-3", |world| world.spoil_code("v2", Some(&uid)));
        stage.requests("Promote", "goes on").await;
        stage.until("it has stopped", |now| now.reason() == "TooManyFailed").await;
        stage.later(60).await;
        stage.starts_anew().await;
        stage.declares("v3").await;
        stage
            .until("a person is waited for again", |now| now.step() == 2 && now.reason() == "WaitingForPromotion")
            .await;
        stage.requests("Promote", "v3 is good").await;
        stage.until("v3 is stable", |now| now.is_ready_with("v3")).await;
    });
}
