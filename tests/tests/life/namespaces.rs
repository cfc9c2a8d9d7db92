//! The end of a namespace whose Servers wait at a gate.

use berth_core::{
    api::{Approval, Server, VMDeployment},
    lifecycle::ABANDON_ANNOTATION,
};
use berth_tests::eventually;
use k8s_openapi::api::{
    core::v1::{Namespace, Service},
    rbac::v1::ClusterRoleBinding,
};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::json;

use crate::world::{LONG, World, check, is_settled};

/// In the whole cluster: RoleBindings end with their namespace.
async fn bind(world: &World, role: &str, user: &str) {
    let binding = json!({
        "metadata": {"name": format!("{role}-{user}")},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": user}],
    });
    let api: Api<ClusterRoleBinding> = Api::all(world.berth.client());
    api.create(&PostParams::default(), &serde_json::from_value(binding).unwrap()).await.unwrap();
}

/// A namespace `shop` with a VMDeployment of one Server.
async fn shop(world: &World) -> (Api<Namespace>, Api<Server>) {
    let client = world.berth.client();
    world.deploy(0, |v| v["spec"]["template"]["spec"]["gates"] = json!([{"before": "DestroyMachine"}])).await;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let shop = serde_json::from_value(json!({"metadata": {"name": "shop"}})).unwrap();
    namespaces.create(&PostParams::default(), &shop).await.unwrap();
    let services: Api<Service> = Api::namespaced(client.clone(), "shop");
    let service =
        json!({"metadata": {"name": "web"}, "spec": {"ports": [{"name": "http", "port": 80, "targetPort": 8080}]}});
    services.create(&PostParams::default(), &serde_json::from_value(service).unwrap()).await.unwrap();
    let mut spec = world.deployments().get("web").await.unwrap().spec;
    spec.replicas = 1;
    let deployments: Api<VMDeployment> = Api::namespaced(client.clone(), "shop");
    deployments.create(&PostParams::default(), &VMDeployment::new("web", spec)).await.unwrap();
    (namespaces, Api::namespaced(client, "shop"))
}

async fn take_gates_away(client: &Client) -> Result<Server, kube::Error> {
    let servers: Api<Server> = Api::namespaced(client.clone(), "shop");
    servers.patch("web-0", &PatchParams::default(), &Patch::Merge(json!({"spec": {"gates": null}}))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_settles_a_gate_in_a_namespace_that_is_being_deleted() {
    let world = World::start().await;
    let (namespaces, servers) = shop(&world).await;
    let ready = eventually("web-0 is Ready", LONG, async || match servers.get_opt("web-0").await.unwrap() {
        Some(server) if is_settled(&server) => Ok(server),
        other => Err(format!("{:?}", other.and_then(|server| server.status))),
    });
    let uid = ready.await.unwrap().uid().to_owned();
    for (role, user) in [("berth-operator", "ann"), ("berth-operator", "bob"), ("berth-approver", "bob")] {
        bind(&world, role, user).await;
    }
    namespaces.delete("shop", &DeleteParams::default()).await.unwrap();

    let command = r#"kubectl -n shop patch server web-0 --type=merge -p '{"spec":{"gates":null}}'"#;
    let told = eventually("the Server says what to do", LONG, async || {
        let status = servers.get("web-0").await.unwrap().status.unwrap_or_default();
        let waiting = status.waiting_for.unwrap_or_default();
        if waiting.contains(command) { Ok(status.tasks) } else { Err(waiting) }
    });
    let gate = told.await.unwrap().into_iter().find(|task| task.gate.is_some()).unwrap();
    assert!(world.has_machine(&uid), "nobody has decided");

    // An Approval cannot be created any more.
    let approvals: Api<Approval> = Api::namespaced(world.berth.client(), "shop");
    let approval = berth_testing::approval(json!({"metadata": {"namespace": "shop"}, "spec": {"taskID": gate.id}}));
    let refused = approvals.create(&PostParams::default(), &approval).await.unwrap_err().to_string();
    assert!(refused.contains("being terminated"), "{refused}");
    // It stays the decision of somebody who may approve.
    let control_plane = world.berth.control_plane();
    let operator = control_plane.user_client("ann", &[]).await.unwrap();
    let refused = take_gates_away(&operator).await.unwrap_err().to_string();
    assert!(refused.contains("removing the gate before DestroyMachine"), "{refused}");
    let abandon = Patch::Merge(json!({"metadata": {"annotations": {ABANDON_ANNOTATION: "away with it"}}}));
    let by_operator: Api<Server> = Api::namespaced(operator, "shop");
    by_operator.patch("web-0", &PatchParams::default(), &abandon).await.unwrap_err();
    assert!(world.has_machine(&uid));

    take_gates_away(&control_plane.user_client("bob", &[]).await.unwrap()).await.unwrap();
    let gone = eventually("namespace and machine are gone", LONG, async || {
        let left = servers.get_opt("web-0").await.map_err(|e| e.to_string())?.and_then(|server| server.status);
        check(!world.has_machine(&uid), || format!("the machine exists: {left:?}"))?;
        let namespace = namespaces.get_opt("shop").await.map_err(|e| e.to_string())?;
        check(namespace.is_none(), || format!("{namespace:?}"))
    });
    if let Err(error) = gone.await {
        panic!("{error}\n{}", world.logs());
    }
    world.end().await;
}
