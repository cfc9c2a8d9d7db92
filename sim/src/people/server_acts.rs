//! What people do with single Servers, and with all of them at once.

use berth_core::api::{Server, State};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::{Act, People};

/// How long a machine is kept: longer than a run.
const KEPT_UNTIL: &str = "2026-12-31T00:00:00Z";

impl People {
    pub(super) async fn act_on_servers(&mut self, fleet: usize, act: &Act) -> kube::Result<String> {
        match act {
            Act::RetryAll => return Ok(format!("retries {}", self.retry_all(fleet).await?.join(", "))),
            Act::ForceAll { state } => return self.on_all(fleet, json!({"force": force(*state)}), "forces").await,
            Act::EditAll { version } => {
                let packages = json!([{"name": "jq", "version": version, "apt": {}}]);
                return self.on_all(fleet, json!({"packages": packages}), "edits").await;
            }
            _ => {}
        }
        let number = match act {
            Act::Force { server, .. }
            | Act::ClearForce { server }
            | Act::TakeOffline { server }
            | Act::Retain { server, .. }
            | Act::Reboot { server }
            | Act::Label { server }
            | Act::DeleteServer { server } => *server,
            _ => return Ok("does nothing".to_owned()),
        };
        let Some(server) = self.server(&self.fleets[fleet], number).await? else {
            return Ok("finds no Server".to_owned());
        };
        let name = server.name();
        let request = self.next();
        let (patch, words) = match act {
            Act::Force { state, .. } => {
                (json!({"spec": {"force": force(*state)}}), format!("forces {name} to {state}"))
            }
            Act::ClearForce { .. } => (json!({"spec": {"force": null}}), format!("ends the force of {name}")),
            Act::TakeOffline { .. } => (json!({"spec": {"offline": true}}), format!("takes {name} offline")),
            Act::Retain { is_kept: true, .. } => {
                let retain = json!({"until": KEPT_UNTIL, "reason": "a person looks at it"});
                (json!({"spec": {"retain": retain}}), format!("keeps {name}"))
            }
            Act::Retain { .. } => (json!({"spec": {"retain": null}}), format!("gives {name} back")),
            Act::Reboot { .. } => {
                let reboot = json!({"id": format!("reboot-{request}"), "reason": "a person asks"});
                (json!({"spec": {"reboot": reboot}}), format!("asks for a reboot of {name}"))
            }
            Act::Label { .. } => {
                let labels = json!({"app": format!("other-{request}"), "note": format!("n{request}")});
                (json!({"metadata": {"labels": labels}}), format!("labels {name}"))
            }
            _ => {
                self.servers(&self.fleets[fleet]).delete(name, &DeleteParams::default()).await?;
                return Ok(format!("deletes {name}"));
            }
        };
        self.patch_server(fleet, &server, &patch).await?;
        Ok(words)
    }

    pub(super) async fn patch_server(&self, fleet: usize, server: &Server, patch: &Value) -> kube::Result<()> {
        let servers = self.servers(&self.fleets[fleet]);
        servers.patch(server.name(), &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
    }

    async fn on_all(&mut self, fleet: usize, spec: Value, words: &str) -> kube::Result<String> {
        let servers = self.list(&self.fleets[fleet]).await?;
        for server in &servers {
            self.patch_server(fleet, server, &json!({"spec": spec})).await?;
        }
        Ok(format!("{words} {}", names(&servers)))
    }

    /// Asks for another attempt at whatever has failed.
    pub(super) async fn retry_all(&mut self, fleet: usize) -> kube::Result<Vec<String>> {
        let request = self.next();
        let retry = json!({"spec": {"retry": {"id": format!("retry-{request}"), "reason": "a person asks"}}});
        let mut names = Vec::new();
        for server in self.list(&self.fleets[fleet]).await? {
            self.patch_server(fleet, &server, &retry).await?;
            names.push(server.name().to_owned());
        }
        Ok(names)
    }
}

fn force(state: State) -> Value {
    json!({"state": state, "reason": "a person knows better"})
}

pub(super) fn names(servers: &[Server]) -> String {
    servers.iter().map(Server::name).collect::<Vec<_>>().join(", ")
}
