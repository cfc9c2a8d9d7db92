//! New code goes out.

use serde_json::json;

use crate::stage::{packages, story};

#[test]
fn gray_roll_out() {
    let about = "One canary, then a minute's pause, then half of the Servers, then a person's word, then all.";
    story("gray_roll_out", about, &[11], async |stage| {
        let steps = json!([{"servers": 1}, {"pause": {"seconds": 60}}, {"servers": "50%"}, {"approve": {}}, {"servers": "100%"}]);
        stage.declare(4, json!({"rollout": {"steps": steps}})).await;
        stage.declares("v2").await;
        stage.until("a person is waited for", |now| now.reason() == "WaitingForPromotion").await;
        stage.starts_anew().await;
        stage.later(30).await;
        stage.requests("Promote", "looks good").await;
        stage.until("v2 is stable", |now| now.is_ready_with("v2")).await;
    });
}

#[test]
fn turned_around() {
    let about = "v3 is declared while v2 is half way. It goes directly to all Servers: none is taken back through v1.";
    story("turned_around", about, &[21], async |stage| {
        stage.declare(4, json!({})).await;
        stage.declares("v2").await;
        stage.until("half of them have v2", |now| now.running("v2") == 2).await;
        stage.declares("v3").await;
        stage.until("v3 is stable", |now| now.is_ready_with("v3")).await;
    });
}

#[test]
fn pause_and_partition() {
    let about = "A partition keeps two Servers with v1. A person pauses the roll-out in the middle, lets it go on, and takes the \
                 partition away.";
    story("pause_and_partition", about, &[31], async |stage| {
        stage.declare(6, json!({"minReadySeconds": 30, "rollout": {"partition": 2}})).await;
        stage.declares("v2").await;
        stage.until("the first Server has v2", |now| now.running("v2") == 1).await;
        stage.ann("pauses the roll-out", json!({"rollout": {"paused": true}})).await;
        stage.later(60).await;
        stage.starts_anew().await;
        stage.ann("lets it go on", json!({"rollout": {"paused": false}})).await;
        stage.until("four Servers have v2", |now| now.is_ready_with("v2")).await;
        stage.later(30).await;
        stage.ann("takes the partition away", json!({"rollout": {"partition": 0}})).await;
        stage.until("all have v2", |now| now.is_ready_with("v2") && now.running("v2") == 6).await;
    });
}

#[test]
fn code_and_environment() {
    let about = "Code and a package are changed at once, and then a package in the middle of a roll-out of code.";
    story("code_and_environment", about, &[41], async |stage| {
        stage.declare(3, json!({})).await;
        let both = json!({"app": crate::stage::app("v2"), "template": {"spec": {"packages": packages("2")}}});
        stage.ann("declares v2 and package 2", both).await;
        stage.until("both are everywhere", |now| now.is_ready_with("v2")).await;
        stage.declares("v3").await;
        stage.until("one Server has v3", |now| now.running("v3") == 1).await;
        stage.ann("declares package 3", json!({"template": {"spec": {"packages": packages("3")}}})).await;
        stage.until("both are everywhere", |now| now.is_ready_with("v3")).await;
    });
}

#[test]
fn scaled_meanwhile() {
    let about =
        "A person wants two more Servers in the middle of a roll-out, and then three fewer. New ones begin with v1.";
    story("scaled_meanwhile", about, &[51], async |stage| {
        let steps = json!([{"servers": 2}, {"pause": {"seconds": 120}}, {"servers": "100%"}]);
        stage.declare(4, json!({"rollout": {"steps": steps}})).await;
        stage.declares("v2").await;
        stage.until("the pause", |now| now.reason() == "Pausing").await;
        stage.ann("wants 6 Servers", json!({"replicas": 6})).await;
        stage.until("more Servers have v2 than before", |now| now.servers() == 6 && now.running("v2") == 3).await;
        stage.ann("wants 3 Servers", json!({"replicas": 3})).await;
        stage.until("v2 is stable", |now| now.is_ready_with("v2") && now.servers() == 3).await;
    });
}

#[test]
fn zone_after_zone() {
    let about = "Three zones, one at a time: each bakes for half a minute before the next one is touched.";
    story("zone_after_zone", about, &[61], async |stage| {
        let spread = json!({"bakeSeconds": 30});
        stage.declare(6, json!({"updateStrategy": {"maxUnavailable": 2}, "rollout": {"spread": spread}})).await;
        for (number, zone) in ["a", "a", "b", "b", "c", "c"].into_iter().enumerate() {
            stage.labels(&format!("web-{number}"), "topology.kubernetes.io/zone", zone).await;
        }
        stage.declares("v2").await;
        stage.until("v2 is stable", |now| now.is_ready_with("v2")).await;
    });
}

#[test]
fn restart() {
    let about =
        "A person has every application started anew, as when certificates have changed. The code stays as it is.";
    story("restart", about, &[71], async |stage| {
        stage.declare(3, json!({})).await;
        stage.requests("Restart", "new certificates").await;
        stage.until("restarts are under way", |now| now.reason() == "Restarting").await;
        stage.until("v1 is stable", |now| now.is_ready_with("v1")).await;
    });
}
