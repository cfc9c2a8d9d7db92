//! People send what must be refused.

use berth_core::api::{Server, State};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::{People, bad_input::BadInput, create};
use crate::{Finding, Judge};

impl People {
    /// Sends this. It has to be refused, with the words that say why.
    pub(super) async fn send_bad(&mut self, fleet: usize, input: BadInput) -> Result<String, Finding> {
        let found = |text: String| Err(Finding::new(Judge::Input, text));
        match self.send(fleet, input).await {
            None => Ok(format!("has nothing for {input:?}")),
            Some(Ok(())) => found(format!("{input:?} was accepted")),
            Some(Err(kube::Error::Api(status))) if status.code == 404 => Ok("finds nothing".to_owned()),
            Some(Err(kube::Error::Api(status))) if (400..500).contains(&status.code) => {
                if status.message.contains(input.words()) {
                    return Ok(format!("is refused {input:?}: {}", status.message));
                }
                found(format!("{input:?} was refused without {:?}: {}", input.words(), status.message))
            }
            Some(Err(error)) => found(format!("{input:?} was not refused, but failed: {error}")),
        }
    }

    /// None when there is nothing to send it to.
    async fn send(&mut self, fleet: usize, input: BadInput) -> Option<kube::Result<()>> {
        let of_fleet = match input {
            BadInput::NegativeReplicas => Some(json!({"replicas": -1})),
            BadInput::UnknownGate => Some(json!({"template": {"spec": {"gates": [{"before": "Lunch"}]}}})),
            BadInput::OtherSelector => {
                let labels = json!({"app": "other"});
                Some(json!({"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}}}))
            }
            BadInput::BadPort => {
                Some(json!({"template": {"spec": {"traffic": {"backends": [{"service": "web", "port": 0}]}}}}))
            }
            _ => None,
        };
        let place = &self.fleets[fleet];
        if let Some(spec) = of_fleet {
            if !place.wanted.exists {
                return None;
            }
            let patch = Patch::Merge(json!({"spec": spec}));
            return Some(self.declarations(place).patch(place.name, &PatchParams::default(), &patch).await.map(drop));
        }
        let number = self.next();
        let approval = |spec: Value| json!({"apiVersion": "berth.dev/v1alpha1", "kind": "Approval", "metadata": {"name": format!("bad-{number}")}, "spec": spec});
        let place = &self.fleets[fleet];
        let approvals = kube::Api::<berth_core::api::Approval>::namespaced(self.client.clone(), place.namespace);
        match input {
            BadInput::NoTask => {
                let spec = json!({"target": {"kind": "Server", "name": "web-0"}, "decision": "Approve"});
                return Some(create(&approvals, approval(spec)).await);
            }
            BadInput::BlankCheque => {
                let target = json!({"kind": "VMReplicaSet", "name": place.name, "generation": 1});
                let spec = json!({"target": target, "gate": "DestroyMachine", "decision": "Approve"});
                return Some(create(&approvals, approval(spec)).await);
            }
            _ => {}
        }
        let servers = match self.list(place).await {
            Ok(servers) => servers,
            Err(error) => return Some(Err(error)),
        };
        let server = servers.into_iter().find(runs)?;
        Some(self.send_to_server(fleet, &server, input).await)
    }

    async fn send_to_server(&self, fleet: usize, server: &Server, input: BadInput) -> kube::Result<()> {
        let patch = match input {
            BadInput::UnknownState => json!({"spec": {"force": {"state": "Broken", "reason": "a person errs"}}}),
            BadInput::OtherMachine => json!({"spec": {"machine": {"image": "another"}}}),
            BadInput::NoFinalizer => json!({"metadata": {"finalizers": null}}),
            _ => {
                let state = if server.state() == Some(State::Unknown) { "Ready" } else { "Unknown" };
                let patch = Patch::Merge(json!({"status": {"state": state}}));
                let servers = self.servers(&self.fleets[fleet]);
                return servers.patch_status(server.name(), &PatchParams::default(), &patch).await.map(drop);
            }
        };
        self.patch_server(fleet, server, &patch).await
    }
}

/// Whether the Server has a machine for sure, and stays.
fn runs(server: &Server) -> bool {
    server.machine().is_some_and(|machine| machine.address.is_some()) && server.state() == Some(State::Ready)
}
