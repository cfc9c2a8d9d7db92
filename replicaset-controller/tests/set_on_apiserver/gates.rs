//! One Approval for all Servers of a set.

use berth_core::api::{Approval, ApprovalDecision, ApprovalSpec, Outcome, Server};
use kube::{Api, api::PostParams};
use replicaset_controller::server::approvals_of_set::settlement_by_current_set;
use serde_json::{Value, json};

use super::lab::Lab;

fn approval(name: &str, target: &Value, gate: Option<&str>) -> Approval {
    berth_testing::approval(json!({
        "metadata": {"name": name},
        "spec": {
            "target": target, "gate": gate, "reason": "budget granted",
            // There is no webhook to stamp it.
            "approver": {"username": "ann", "at": "2026-01-01T00:00:00Z"},
        },
    }))
}

async fn approve(lab: &Lab, approval: Approval) -> Result<Approval, kube::Error> {
    let approvals: Api<Approval> = Api::default_namespaced(lab.control_plane.admin_client());
    approvals.create(&PostParams::default(), &approval).await
}

/// The Server with this gate before it.
fn at_gate(server: &Server, gate: &str) -> Server {
    let mut server = server.clone();
    let task = json!({"id": 1, "kind": "Gate", "gate": gate, "step": 1, "phase": "Pending"});
    let status = json!({"state": "Initializing", "firstTaskID": 1, "lastTaskID": 1, "tasks": [task]});
    server.status = Some(serde_json::from_value(status).unwrap());
    server
}

pub(crate) async fn one_approval_settles_the_gates_of_a_whole_scale_out(lab: &Lab) {
    let controller = lab.controller("a").await;
    lab.create("gated", json!({"replicas": 2})).await;
    lab.until(&controller, "gated", |_, servers| servers.len() == 2).await;
    lab.change("gated", json!({"replicas": 4})).await;
    lab.until(&controller, "gated", |_, servers| servers.len() == 4).await;
    let (set, servers) = lab.read("gated").await;
    let generation = set.metadata.generation.unwrap();
    let target = json!({"kind": "VMReplicaSet", "name": "gated", "generation": generation});
    let create = approve(lab, approval("scale-out", &target, Some("CreateMachine"))).await.unwrap();
    let release = approve(lab, approval("release", &target, Some("ReleaseTraffic"))).await.unwrap();

    let client = lab.control_plane.service_account_client("berth-system", "replicaset-controller").await.unwrap();
    let decide = async |server: &Server, gate: &str| {
        let now = k8s_openapi::jiff::Timestamp::now();
        settlement_by_current_set(&client, &at_gate(server, gate), [&create, &release].into_iter(), now).await.unwrap()
    };
    for server in &servers {
        let settlement = decide(server, "CreateMachine").await;
        let is_younger = ["gated-2", "gated-3"].contains(&server.name());
        assert_eq!(settlement.is_some(), is_younger, "the first two were created for another generation");
        if let Some(settlement) = settlement {
            assert_eq!((settlement.task_id, settlement.outcome), (1, Outcome::Succeeded));
            let said = format!("approved by ann for VMReplicaSet gated, generation {generation}: budget granted");
            assert_eq!(settlement.message, said);
        }
        assert!(decide(server, "ReleaseTraffic").await.is_some(), "the set is at this generation");
        assert!(decide(server, "DeployApp").await.is_none(), "no Approval names that gate");
    }

    // The set has another generation now, whatever a cache still shows; Servers that were created before keep theirs.
    lab.change("gated", json!({"minReadySeconds": 5})).await;
    for server in &servers[2..] {
        assert!(decide(server, "ReleaseTraffic").await.is_none());
        assert!(decide(server, "CreateMachine").await.is_some());
    }
}

pub(crate) async fn an_approval_of_a_set_names_generation_and_gate(lab: &Lab) {
    let bare = json!({"kind": "VMReplicaSet", "name": "gated"});
    let whole = json!({"kind": "VMReplicaSet", "name": "gated", "generation": 1});
    for (name, target, gate) in [("a", &bare, Some("CreateMachine")), ("b", &whole, None), ("c", &bare, None)] {
        let error = approve(lab, approval(name, target, gate)).await.unwrap_err().to_string();
        assert!(error.contains("spec.target.generation and spec.gate are required"), "{error}");
    }
    let destroy = |name: &str, change: &dyn Fn(&mut ApprovalSpec)| {
        let mut value = approval(name, &whole, Some("DestroyMachine"));
        change(&mut value.spec);
        value
    };
    let named = || vec!["gated-0".to_owned()];
    let error = approve(lab, destroy("d", &|_| {})).await.unwrap_err().to_string();
    assert!(error.contains("spec.servers or spec.maxServers is required to approve DestroyMachine"), "{error}");
    let both = destroy("e", &|spec| (spec.servers, spec.max_servers) = (named(), Some(1)));
    let error = approve(lab, both).await.unwrap_err().to_string();
    assert!(error.contains("not both"), "{error}");
    approve(lab, destroy("f", &|spec| spec.decision = ApprovalDecision::Refuse)).await.unwrap();
    approve(lab, destroy("g", &|spec| spec.servers = named())).await.unwrap();
    let single = json!({"kind": "Server", "name": "gated-0"});
    let mut limited = approval("h", &single, None);
    (limited.spec.task_id, limited.spec.max_servers) = (Some(1), Some(1));
    let error = approve(lab, limited).await.unwrap_err().to_string();
    assert!(error.contains("allowed only for a VMReplicaSet"), "{error}");
}
