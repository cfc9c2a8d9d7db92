//! Roll-outs while machines end.

use serde_json::json;

use crate::stage::{now, story};

#[test]
fn dead_machine() {
    let about = "A machine ends in the middle of a roll-out. Failover replaces it, and the new Server begins with v1.";
    story("dead_machine", about, &[211], async |stage| {
        let steps = json!([{"servers": 2}, {"pause": {"seconds": 180}}, {"servers": "100%"}]);
        let failover = json!({"waitSeconds": 20, "action": "Replace"});
        stage.declare(4, json!({"failover": failover, "rollout": {"steps": steps}})).await;
        stage.declares("v2").await;
        stage.until("the pause", |now| now.reason() == "Pausing").await;
        let uid = now(stage).uid("web-3");
        stage.happens("the machine of web-3 ends", |world| world.crash_machine(&uid));
        stage.until("v2 is stable", |now| now.is_ready_with("v2") && now.running("v2") == 4).await;
    });
}
