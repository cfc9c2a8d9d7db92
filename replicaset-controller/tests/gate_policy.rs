//! Who may take away a gate: the shipped admission policy and roles of people on a real kube-apiserver, without the webhook.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::{path::Path, time::Duration};

use berth_control_plane::{ControlPlane, ControlPlaneOptions};
use berth_core::api::{Approval, Server, VMDeployment, VMReplicaSet};
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

/// How long roles and the policy may take to have an effect.
const LIMIT: Duration = Duration::from_secs(30);

async fn bind(admin: &Client, role: &str, user: &str) {
    let binding = json!({
        "metadata": {"name": format!("{role}-{user}")},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": user}],
    });
    let api: Api<RoleBinding> = Api::default_namespaced(admin.clone());
    api.create(&PostParams::default(), &serde_json::from_value(binding).unwrap()).await.unwrap();
}

fn spec(gates: &[&str]) -> Value {
    let gates: Vec<Value> = gates.iter().map(|before| json!({"before": before})).collect();
    json!({"machine": {"className": "local"}, "gates": gates})
}

fn template(gates: &[&str]) -> Value {
    let labels = json!({"app": "web"});
    json!({"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": spec(gates)}})
}

async fn create<K>(client: &Client, kind: &str, spec: &Value)
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    K: Clone + std::fmt::Debug + DeserializeOwned + serde::Serialize,
{
    let object = json!({
        "apiVersion": "berth.dev/v1alpha1", "kind": kind,
        "metadata": {"name": "web", "annotations": {"berth.dev/set-generation": "3"}}, "spec": spec,
    });
    let api: Api<K> = Api::default_namespaced(client.clone());
    api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
}

/// Tries a change without making it; gives the refusal.
async fn refusal<K>(client: &Client, change: &Value) -> Option<String>
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope> + Clone + DeserializeOwned,
    K: std::fmt::Debug,
{
    let api: Api<K> = Api::default_namespaced(client.clone());
    let dry_run = PatchParams { dry_run: true, ..PatchParams::default() };
    api.patch("web", &dry_run, &Patch::Merge(change)).await.err().map(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_may_approve_takes_a_gate_away() {
    let control_plane = ControlPlane::start(ControlPlaneOptions::default()).await.unwrap();
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    let report = control_plane.install(&deploy, None).await.unwrap();
    assert!(report.warnings.is_empty(), "{:?}", report.warnings);
    let admin = control_plane.admin_client();
    for (role, user) in [("berth-operator", "ann"), ("berth-operator", "bob"), ("berth-approver", "bob")] {
        bind(&admin, role, user).await;
    }
    let gates = ["CreateMachine", "DestroyMachine"];
    create::<Server>(&admin, "Server", &spec(&gates)).await;
    create::<VMReplicaSet>(&admin, "VMReplicaSet", &template(&gates)).await;
    let mut deployment = template(&gates);
    let artifact = json!({"url": "http://127.0.0.1/w.tgz", "sha256": "b".repeat(64)});
    deployment["app"] = json!({"name": "web", "artifact": artifact, "command": "./run"});
    create::<VMDeployment>(&admin, "VMDeployment", &deployment).await;
    let operator = control_plane.user_client("ann", &[]).await.unwrap();
    let approver = control_plane.user_client("bob", &[]).await.unwrap();
    let less = spec(&["CreateMachine"]);
    let less_in_template = json!({"spec": {"template": {"spec": &less}}});

    let deadline = Instant::now() + LIMIT;
    let is_refused =
        |said: Option<String>| said.is_some_and(|said| said.contains("removing the gate before DestroyMachine"));
    while !is_refused(refusal::<Server>(&operator, &json!({"spec": &less})).await) {
        assert!(
            Instant::now() < deadline,
            "the policy has no effect: {:?}",
            refusal::<Server>(&operator, &json!({"spec": &less})).await
        );
        sleep(Duration::from_millis(200)).await;
    }
    while let Some(said) = refusal::<Server>(&approver, &json!({"spec": &less})).await {
        assert!(Instant::now() < deadline, "{said}");
        sleep(Duration::from_millis(200)).await;
    }
    assert!(is_refused(refusal::<VMReplicaSet>(&operator, &less_in_template).await));
    assert!(is_refused(refusal::<VMDeployment>(&operator, &less_in_template).await));
    assert_eq!(refusal::<VMReplicaSet>(&approver, &less_in_template).await, None);
    assert_eq!(refusal::<VMDeployment>(&approver, &less_in_template).await, None);
    for (annotation, value) in
        [("set-generation", json!("2")), ("set-generation", Value::Null), ("abandon", json!("mine"))]
    {
        let change = json!({"metadata": {"annotations": {format!("berth.dev/{annotation}"): value}}});
        let said = refusal::<Server>(&operator, &change).await.unwrap_or_else(|| panic!("{annotation} {value}"));
        assert!(said.contains(&format!("berth.dev/{annotation}")) && said.contains("create Approvals"), "{said}");
        assert_eq!(refusal::<Server>(&approver, &change).await, None);
    }
    // Everything else is the operator's, also to ask for more.
    let more = json!({"spec": spec(&["CreateMachine", "DestroyMachine", "DeployApp"])});
    for change in [more, json!({"spec": {"offline": true}}), json!({"metadata": {"annotations": {"note": "x"}}})] {
        assert_eq!(refusal::<Server>(&operator, &change).await, None);
    }
    // The controllers carry a checked declaration on.
    for name in ["replicaset-controller", "deployment-controller"] {
        let controller = control_plane.service_account_client("berth-system", name).await.unwrap();
        assert_eq!(refusal::<VMReplicaSet>(&controller, &less_in_template).await, None, "{name}");
        assert_eq!(refusal::<Server>(&controller, &json!({"spec": &less})).await, None, "{name}");
    }
    // Only replicaset-controller enters Servers in an Approval.
    let target = json!({"kind": "VMReplicaSet", "name": "web", "generation": 1});
    let approval = json!({"target": target, "gate": "DestroyMachine", "maxServers": 1, "decision": "Approve"});
    create::<Approval>(&approver, "Approval", &approval).await;
    let entered = Patch::Merge(json!({"status": {"servers": [{"name": "web-0", "uid": "u"}]}}));
    let controller = control_plane.service_account_client("berth-system", "replicaset-controller").await.unwrap();
    for (client, may) in [(operator, false), (approver, false), (controller, true)] {
        let api: Api<Approval> = Api::default_namespaced(client);
        assert_eq!(api.patch_status("web", &PatchParams::default(), &entered).await.is_ok(), may);
    }
    control_plane.stop().await.unwrap();
}
