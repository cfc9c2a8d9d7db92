//! Watches.

use serde_json::{Value, json};

use crate::lab::{Lab, version};

/// Type and name of each event.
fn seen(events: &[Value]) -> Vec<(&str, &str)> {
    events
        .iter()
        .map(|event| (event["type"].as_str().unwrap(), event["object"]["metadata"]["name"].as_str().unwrap()))
        .collect()
}

pub(crate) async fn a_watch_shows_each_change_after_its_version(lab: Lab) {
    let servers = lab.path("servers");
    let before = lab.server("before", &json!({})).await;
    lab.server("a", &json!({"metadata": {"finalizers": ["a.b/c"]}})).await;
    lab.merge(&format!("{servers}/a/status"), &json!({"status": {"waitingFor": "Ann"}})).await.expect(200);
    lab.delete(&format!("{servers}/a")).await.expect(200);
    lab.merge(&format!("{servers}/a"), &json!({"metadata": {"finalizers": null}})).await.expect(200);
    lab.delete(&format!("{servers}/before")).await.expect(200);
    let path = format!("{servers}?watch=true&timeoutSeconds=1&resourceVersion={}", version(&before));
    let events = lab.watch(&path).await;
    assert_eq!(
        seen(&events),
        [("ADDED", "a"), ("MODIFIED", "a"), ("MODIFIED", "a"), ("DELETED", "a"), ("DELETED", "before")]
    );
    let versions: Vec<u64> = events.iter().map(|event| version(&event["object"]).parse().unwrap()).collect();
    assert!(versions.is_sorted_by(|a, b| a < b), "{versions:?}");
    assert_eq!(events[1]["object"]["status"]["waitingFor"], "Ann");
}

pub(crate) async fn a_watch_that_selects_shows_who_comes_and_goes(lab: Lab) {
    let servers = lab.path("servers");
    let created = lab.server("a", &json!({})).await;
    let status = |state: &str| json!({"status": {"state": state}});
    for (state, label) in [("Ready", "x"), ("Unknown", "y"), ("Ready", "z")] {
        lab.merge(&format!("{servers}/a/status"), &status(state)).await.expect(200);
        lab.merge(&format!("{servers}/a"), &json!({"metadata": {"labels": {"l": label}}})).await.expect(200);
    }
    let from = format!("watch=true&timeoutSeconds=1&resourceVersion={}", version(&created));
    let events = lab.watch(&format!("{servers}?{from}&fieldSelector=status.state=Ready")).await;
    assert_eq!(seen(&events), [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a"), ("ADDED", "a"), ("MODIFIED", "a")]);
    assert_eq!(events[2]["object"]["status"]["state"], "Ready", "the last state that was selected");
    let events = lab.watch(&format!("{servers}?{from}&labelSelector=l=y")).await;
    assert_eq!(seen(&events), [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a")]);
}

pub(crate) async fn a_watch_ends_at_its_time(lab: Lab) {
    let created = lab.server("a", &json!({})).await;
    let begun = tokio::time::Instant::now();
    let path = format!("{}?watch=true&timeoutSeconds=2&resourceVersion={}", lab.path("servers"), version(&created));
    assert!(lab.watch(&path).await.is_empty());
    let seconds = begun.elapsed().as_secs_f32();
    assert!((1.5..10.0).contains(&seconds), "{seconds}");
}

pub(crate) async fn a_version_that_is_too_old_is_refused(lab: Lab) {
    lab.server("a", &json!({})).await;
    lab.forget_the_past();
    let events = lab.watch(&format!("{}?watch=true&timeoutSeconds=1&resourceVersion=1", lab.path("servers"))).await;
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!((&events[0]["type"], &events[0]["object"]["code"]), (&json!("ERROR"), &json!(410)));
    assert_eq!(events[0]["object"]["reason"], "Expired");
}

pub(crate) async fn metadata_is_watched_alone(lab: Lab) {
    let created = lab.server("a", &json!({})).await;
    lab.merge(&format!("{}/a", lab.path("servers")), &json!({"metadata": {"labels": {"l": "x"}}})).await.expect(200);
    let path = format!("{}?watch=true&timeoutSeconds=1&resourceVersion={}", lab.path("servers"), version(&created));
    let events = lab.watch_metadata(&path).await;
    assert_eq!(seen(&events), [("MODIFIED", "a")]);
    let object = &events[0]["object"];
    assert_eq!((&object["kind"], &object["metadata"]["labels"]["l"]), (&json!("PartialObjectMetadata"), &json!("x")));
    assert!(object.get("spec").is_none());
}
