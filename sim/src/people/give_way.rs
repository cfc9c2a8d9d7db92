//! People end what keeps a fleet from what they have declared: they help once, take their decisions back, and agree at gates.

use berth_core::api::{ApprovalDecision, FailoverAction, MachineClass, State, TaskPhase};
use kube::{Api, api::DeleteParams};
use serde_json::json;

use super::{People, approvals::gates, server_acts::names};

impl People {
    /// Does what people do who were asked to: lets everything that has failed be tried again, and gives up the machines that are
    /// out of reach. Returns it in words.
    pub(crate) async fn repair(&mut self) -> kube::Result<String> {
        let mut words = Vec::new();
        for fleet in 0..self.fleets.len() {
            let mut given_up = Vec::new();
            for server in self.list(&self.fleets[fleet]).await? {
                if server.state() == Some(State::Unknown) {
                    let servers = self.servers(&self.fleets[fleet]);
                    servers.delete(server.name(), &DeleteParams::default()).await?;
                    given_up.push(server.name().to_owned());
                }
            }
            let retried = self.retry_all(fleet).await?;
            if self.is_turned(fleet).await? {
                let revision = format!("repaired-{}", self.next());
                self.fleets[fleet].wanted.revision.clone_from(&revision);
                let app = self.fleets[fleet].app();
                self.patch(fleet, json!({"app": app})).await?;
                words.push(format!("declares {revision}"));
            }
            words.push(format!("gives up [{}] and retries [{}]", given_up.join(", "), retried.join(", ")));
        }
        Ok(words.join("; "))
    }

    /// Takes back every decision that keeps a fleet from what is declared. Returns it in words.
    pub(crate) async fn give_way(&mut self) -> kube::Result<String> {
        let mut words = Vec::new();
        for fleet in 0..self.fleets.len() {
            words.push(self.redeclare(fleet).await?);
            let wanted = &mut self.fleets[fleet].wanted;
            (wanted.paused, wanted.partition, wanted.action) = (false, 0, FailoverAction::Replace);
            wanted.most = wanted.most.map(|most| most.max(1));
            let most = wanted.most;
            let mut spec = json!({"paused": false, "updateStrategy": {"partition": 0, "maxUnavailable": most}});
            spec["failover"] = self.fleets[fleet].failover();
            let rollout = self.let_code_go_on(fleet).await?;
            if !self.fleets[fleet].shape.is_plain_set {
                spec["rollout"] = rollout;
            }
            self.patch(fleet, spec).await?;
            let mut servers = self.list(&self.fleets[fleet]).await?;
            servers.retain(|server| server.spec.force.is_some() || server.spec.retain.is_some());
            for server in &servers {
                self.patch_server(fleet, server, &json!({"spec": {"force": null, "retain": null}})).await?;
            }
            words.push(format!("lets {} go", names(&servers)));
        }
        Ok(words.join("; "))
    }

    /// Approves whatever waits at a gate. Returns it in words; nothing when nothing waits.
    pub(crate) async fn agree(&mut self) -> kube::Result<String> {
        let mut words = Vec::new();
        for fleet in 0..self.fleets.len() {
            for server in self.list(&self.fleets[fleet]).await? {
                let waiting =
                    gates(&server).into_iter().filter(|task| server.is_open(task) || task.phase == TaskPhase::Failed);
                for task in waiting {
                    words.push(self.decide_task(fleet, &server, task, ApprovalDecision::Approve).await?);
                }
            }
        }
        Ok(words.join("; "))
    }

    /// Removes the class of machines, while it is in use, and the fleets.
    pub(crate) async fn remove(&mut self) -> kube::Result<()> {
        let classes: Api<MachineClass> = Api::all(self.client.clone());
        classes.delete("small", &DeleteParams::default()).await?;
        for fleet in 0..self.fleets.len() {
            if self.fleets[fleet].wanted.exists {
                let place = &self.fleets[fleet];
                self.declarations(place).delete(place.name, &DeleteParams::default()).await?;
                self.fleets[fleet].wanted.exists = false;
            }
        }
        Ok(())
    }
}
