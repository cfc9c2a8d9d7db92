//! People decide at gates.

use berth_core::api::{Approval, ApprovalDecision, GatePoint, Server, ServerStatus, Task, TaskKind, TaskPhase};
use kube::Api;
use serde_json::{Value, json};

use super::{Fleet, People, create};

impl People {
    /// Decides on the gate at which one of the fleet's Servers stands.
    pub(super) async fn decide(
        &mut self,
        fleet: usize,
        number: usize,
        decision: ApprovalDecision,
    ) -> kube::Result<String> {
        let servers = self.list(&self.fleets[fleet]).await?;
        let waiting: Vec<(&Server, &Task)> =
            servers.iter().flat_map(|server| gates(server).into_iter().map(move |task| (server, task))).collect();
        if waiting.is_empty() {
            return Ok("finds no gate".to_owned());
        }
        let (server, task) = waiting[number % waiting.len()];
        self.decide_task(fleet, server, task, decision).await
    }

    /// Decides on this task, as one of two people.
    pub(super) async fn decide_task(
        &mut self,
        fleet: usize,
        server: &Server,
        task: &Task,
        decision: ApprovalDecision,
    ) -> kube::Result<String> {
        let target = json!({"kind": "Server", "name": server.name(), "uid": server.uid()});
        self.create_approval(fleet, json!({"target": target, "taskID": task.id, "decision": decision})).await?;
        let gate = task.gate.map(|gate| gate.to_string()).unwrap_or_default();
        Ok(format!("decides {decision:?} on {gate} (task {}) of {}", task.id, server.name()))
    }

    /// Decides on a gate of all Servers of the set.
    pub(super) async fn decide_all(
        &mut self,
        fleet: usize,
        gate: GatePoint,
        decision: ApprovalDecision,
        is_old: bool,
    ) -> kube::Result<String> {
        let place = &self.fleets[fleet];
        let set = self.berth(place, "VMReplicaSet").get(place.name).await?;
        let generation = set.metadata.generation.unwrap_or(1) - i64::from(is_old);
        let target = json!({"kind": "VMReplicaSet", "name": place.name, "generation": generation});
        let mut spec = json!({"target": target, "gate": gate, "decision": decision});
        if gate == GatePoint::DestroyMachine && decision == ApprovalDecision::Approve {
            spec["maxServers"] = 2.into();
        }
        self.create_approval(fleet, spec).await?;
        Ok(format!("decides {decision:?} on {gate} of all, for generation {generation}"))
    }

    async fn create_approval(&mut self, fleet: usize, spec: Value) -> kube::Result<()> {
        let number = self.next();
        let name = format!("decision-{number}");
        let approval =
            json!({"apiVersion": "berth.dev/v1alpha1", "kind": "Approval", "metadata": {"name": name}, "spec": spec});
        let client = if number.is_multiple_of(2) { &self.client } else { &self.other };
        create(&approvals(client.clone(), &self.fleets[fleet]), approval).await
    }
}

fn approvals(client: kube::Client, fleet: &Fleet) -> Api<Approval> {
    Api::namespaced(client, fleet.namespace)
}

/// The gates at which the Server stands, refused ones too.
pub(super) fn gates(server: &Server) -> Vec<&Task> {
    let current = server.status.iter().flat_map(ServerStatus::current_tasks);
    current
        .filter(|task| task.kind == TaskKind::Gate && matches!(task.phase, TaskPhase::Pending | TaskPhase::Failed))
        .collect()
}
