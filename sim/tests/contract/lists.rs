//! Lists, selectors, pages and views.

use serde_json::json;

use crate::lab::{Lab, names, version};

pub(crate) async fn a_list_is_in_the_order_of_names(lab: Lab) {
    for name in ["b", "c", "a"] {
        lab.server(name, &json!({})).await;
    }
    let list = lab.get(&lab.path("servers")).await.expect(200);
    assert_eq!((&list["kind"], names(&list)), (&json!("ServerList"), vec!["a", "b", "c"]));
    let newest = list["items"].as_array().unwrap().iter().map(|item| version(item).parse::<u64>().unwrap()).max();
    assert!(version(&list).parse::<u64>().unwrap() >= newest.unwrap());
}

pub(crate) async fn labels_select(lab: Lab) {
    for (name, labels) in [("a", json!({"app": "web", "b.c/d": "e"})), ("b", json!({"app": "db"})), ("c", json!({}))] {
        lab.server(name, &json!({"metadata": {"labels": labels}})).await;
    }
    for (selector, selected) in [
        ("app=web", vec!["a"]),
        ("app%3D%3Ddb", vec!["b"]),
        ("app!=web", vec!["b", "c"]),
        ("app", vec!["a", "b"]),
        ("!app", vec!["c"]),
        ("app+in+(web,db),b.c/d", vec!["a"]),
        ("app+notin+(web)", vec!["b", "c"]),
    ] {
        let list = lab.get(&format!("{}?labelSelector={selector}", lab.path("servers"))).await.expect(200);
        assert_eq!(names(&list), selected, "{selector}");
    }
}

pub(crate) async fn fields_select(lab: Lab) {
    for name in ["a", "b"] {
        lab.server(name, &json!({})).await;
    }
    lab.merge(&format!("{}/b/status", lab.path("servers")), &json!({"status": {"state": "Ready"}})).await.expect(200);
    for (selector, selected) in [
        ("metadata.name=a", vec!["a"]),
        ("metadata.name!=a", vec!["b"]),
        ("status.state=Ready", vec!["b"]),
        ("status.state!=", vec!["b"]),
        ("status.state=", vec!["a"]),
        ("status.state!=Ready", vec!["a"]),
    ] {
        let list = lab.get(&format!("{}?fieldSelector={selector}", lab.path("servers"))).await.expect(200);
        assert_eq!(names(&list), selected, "{selector}");
    }
    lab.get(&format!("{}?fieldSelector=spec.offline=true", lab.path("servers"))).await.refused(400, "BadRequest");
}

pub(crate) async fn pages_show_one_moment(lab: Lab) {
    for name in ["a", "b", "c", "d", "e"] {
        lab.server(name, &json!({})).await;
    }
    let servers = lab.path("servers");
    let first = lab.get(&format!("{servers}?limit=2")).await.expect(200);
    assert_eq!((names(&first), &first["metadata"]["remainingItemCount"]), (vec!["a", "b"], &json!(3)));
    lab.delete(&format!("{servers}/c")).await.expect(200);
    lab.server("dd", &json!({})).await;
    lab.merge(&format!("{servers}/e"), &json!({"spec": {"offline": true}})).await.expect(200);
    let token = first["metadata"]["continue"].as_str().unwrap();
    let second = lab.get(&format!("{servers}?limit=2&continue={token}")).await.expect(200);
    assert_eq!((names(&second), version(&second)), (vec!["c", "d"], version(&first)));
    let token = second["metadata"]["continue"].as_str().unwrap();
    let last = lab.get(&format!("{servers}?limit=2&continue={token}")).await.expect(200);
    assert_eq!(names(&last), ["e"]);
    assert_ne!(last["items"][0]["spec"]["offline"], true, "the page shows the moment of the first");
    assert!(last["metadata"].get("continue").is_none_or(|token| token == ""));
}

pub(crate) async fn metadata_is_shown_alone(lab: Lab) {
    lab.server("a", &json!({"metadata": {"labels": {"app": "web"}}})).await;
    let one = lab.metadata(&format!("{}/a", lab.path("servers")), "").await.expect(200);
    assert_eq!((&one["kind"], &one["metadata"]["labels"]), (&json!("PartialObjectMetadata"), &json!({"app": "web"})));
    assert!(one.get("spec").is_none());
    let list = lab.metadata(&lab.path("servers"), "List").await.expect(200);
    assert_eq!((&list["kind"], names(&list)), (&json!("PartialObjectMetadataList"), vec!["a"]));
    assert!(list["items"][0].get("spec").is_none());
}

pub(crate) async fn what_is_not_there_is_not_found(lab: Lab) {
    let message = lab.get(&format!("{}/a", lab.path("servers"))).await.refused(404, "NotFound");
    assert_eq!(message, "servers.berth.dev \"a\" not found");
    let path = format!("/api/v1/namespaces/{}/configmaps/a", lab.namespace);
    assert_eq!(lab.get(&path).await.refused(404, "NotFound"), "configmaps \"a\" not found");
    assert_eq!(lab.get(&lab.path("spaceships")).await.code, 404);
}
