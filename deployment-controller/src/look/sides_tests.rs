use serde_json::json;

use super::*;
use crate::{
    replica_set::newest_app,
    testing::{deployment, server},
};

/// The names on both sides, and how the other one is named, with these steps done of `servers`, `baseline` and `pause`.
fn sides(steps_done: i32, none: Option<&str>, marks: &[&str]) -> (Vec<String>, Vec<String>, String, Option<String>) {
    let steps = json!([{"servers": 1}, {"baseline": {"servers": 2}}, {"pause": {}}]);
    let deployment = deployment("v2", |spec| spec["rollout"] = json!({"steps": steps}));
    let mut servers = vec![server("web-0", "v2", "Ready", 9)];
    for (n, mark) in marks.iter().enumerate() {
        let mut old = server(&format!("web-{}", n + 1), "v1", "Ready", 9);
        old.spec.app.as_mut().unwrap().baseline = (!mark.is_empty()).then(|| (*mark).to_owned());
        servers.push(old);
    }
    let progress = serde_json::from_value(json!({"digest": "x", "healthyReplicas": 1, "stepsDone": steps_done,
        "baseline": {"mark": "m", "since": "2026-11-28T00:00:00Z", "none": none}}));
    let progress = progress.unwrap();
    let servers: Vec<&Server> = servers.iter().collect();
    let sides = Sides::of(&deployment, &servers, &newest_app(&deployment), Some(&progress));
    let names = |names: &BTreeSet<&str>| names.iter().map(|name| (*name).to_owned()).collect();
    (names(&sides.canary), names(&sides.baseline), sides.which(), sides.nobody())
}

#[test]
fn the_restarted_servers_of_this_attempt_are_the_other_side_once_the_step_is_done() {
    let (canary, all, which, _) = sides(1, None, &["m", "", "older"]);
    assert_eq!(
        (canary.join(" "), all.join(" "), which),
        ("web-0".into(), "web-1 web-2 web-3".into(), "with another one".into())
    );
    let (canary, baseline, which, nobody) = sides(2, None, &["m", "", "older"]);
    assert_eq!((canary.join(" "), baseline.join(" ")), ("web-0".to_owned(), "web-1".to_owned()));
    assert_eq!((which.as_str(), nobody), ("of the baseline (web-1)", None));
    let (_, _, which, _) = sides(3, None, &["m", "m", "m", "m", "m"]);
    assert_eq!(which, "of the baseline (web-1, web-2, web-3 and 2 more)");
}

#[test]
fn nobody_takes_the_place_of_a_baseline_that_is_gone_and_without_any_it_is_said() {
    let (_, baseline, _, nobody) = sides(2, None, &["", ""]);
    assert!(baseline.is_empty() && nobody.is_some_and(|text| text.starts_with("no Server is left that was restarted")));
    let (_, others, which, nobody) = sides(2, Some("because"), &["", ""]);
    assert_eq!((others.len(), which.as_str(), nobody), (2, "with another one (there is no baseline: because)", None));
}
