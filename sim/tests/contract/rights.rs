//! Rights.

use serde_json::json;

use crate::lab::{Lab, server};

const NOBODY: &str = "system:serviceaccount:default:nobody";

pub(crate) async fn who_has_no_right_is_refused_in_words(lab: Lab) {
    lab.server("a", &json!({})).await;
    let (servers, nobody) = (lab.path("servers"), lab.as_user(NOBODY));
    let refusal = |verb: &str, what: &str, resource: &str| {
        format!(
            "servers.berth.dev{what} is forbidden: User \"{NOBODY}\" cannot {verb} resource \"{resource}\" in API group \
             \"berth.dev\" in the namespace \"{}\"",
            lab.namespace
        )
    };
    let named = " \"a\"";
    let path = format!("{servers}/a");
    assert_eq!(nobody.get(&path).await.refused(403, "Forbidden"), refusal("get", named, "servers"));
    assert_eq!(nobody.get(&servers).await.refused(403, "Forbidden"), refusal("list", "", "servers"));
    let watch = nobody.get(&format!("{servers}?watch=true&resourceVersion=1")).await;
    assert_eq!(watch.refused(403, "Forbidden"), refusal("watch", "", "servers"));
    let one = nobody.get(&format!("{servers}?fieldSelector=metadata.name=a")).await;
    assert_eq!(one.refused(403, "Forbidden"), refusal("list", named, "servers"));
    let created = nobody.post(&servers, &server("b", &json!({}))).await;
    assert_eq!(created.refused(403, "Forbidden"), refusal("create", "", "servers"));
    let patched = nobody.merge(&format!("{path}/status"), &json!({"status": {}})).await;
    assert_eq!(patched.refused(403, "Forbidden"), refusal("patch", named, "servers/status"));
    assert_eq!(nobody.delete(&path).await.refused(403, "Forbidden"), refusal("delete", named, "servers"));
    lab.get(&path).await.expect(200);
}

pub(crate) async fn a_refusal_names_the_place(lab: Lab) {
    let nobody = lab.as_user(NOBODY);
    let everywhere = nobody.get("/apis/berth.dev/v1alpha1/servers").await.refused(403, "Forbidden");
    assert!(everywhere.ends_with("in API group \"berth.dev\" at the cluster scope"), "{everywhere}");
    let core = nobody.get("/api/v1/namespaces/default/configmaps/x").await.refused(403, "Forbidden");
    let expected = format!(
        "configmaps \"x\" is forbidden: User \"{NOBODY}\" cannot get resource \"configmaps\" in API group \"\" in the namespace \
         \"default\""
    );
    assert_eq!(core, expected);
}
