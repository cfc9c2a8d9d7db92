//! How people steer the roll-out of code: steps, zones, pauses, requests.

use berth_core::api::{Server, VMDeployment};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use super::{Act, People, fleet::PLANS};

/// The label with a Server's zone.
const ZONE: &str = "topology.kubernetes.io/zone";

impl People {
    /// Does this with a fleet that is a VMDeployment. Returns it in words; none when the act is another one.
    pub(super) async fn steer(&mut self, number: usize, act: &Act) -> kube::Result<Option<String>> {
        let is_about_code = matches!(
            act,
            Act::Steps { .. } | Act::OnFailure { .. } | Act::PauseCode { .. } | Act::Zones { .. } | Act::Request { .. }
        );
        if !is_about_code {
            return Ok(None);
        }
        if self.fleets[number].shape.is_plain_set {
            return Ok(Some("has no roll-out of code".to_owned()));
        }
        let request = self.next();
        let wanted = &mut self.fleets[number].wanted.code;
        let (rollout, words) = match act {
            Act::Steps { plan } => {
                wanted.plan = plan % PLANS.len();
                let steps = PLANS[wanted.plan];
                (
                    json!({"steps": serde_json::from_str::<Value>(steps).unwrap_or_default()}),
                    format!("declares {steps}"),
                )
            }
            Act::OnFailure { rolls_back } => {
                wanted.rolls_back = *rolls_back;
                let (what, most) = if *rolls_back { ("Rollback", json!(0)) } else { ("Pause", Value::Null) };
                (json!({"onFailure": what, "maxFailed": most}), format!("declares onFailure: {what}"))
            }
            Act::PauseCode { paused } => {
                wanted.paused = *paused;
                (json!({"paused": paused}), format!("sets rollout.paused to {paused}"))
            }
            Act::Zones { one_at_a_time } => {
                self.label_zones(number).await?;
                let spread = one_at_a_time.then(|| json!({"topologyKey": ZONE, "bakeSeconds": 20}));
                (json!({"spread": spread}), format!("wants one zone at a time: {one_at_a_time}"))
            }
            Act::Request { action } => {
                wanted.is_steered = true;
                let request = json!({"action": action, "id": format!("request-{request}"), "reason": "a person asks", "toRevision": null});
                (json!({"request": request}), format!("requests {action:?}"))
            }
            _ => return Ok(None),
        };
        self.patch(number, json!({"rollout": rollout})).await?;
        Ok(Some(words))
    }

    /// Servers with an even number are in one zone, the others in another one.
    async fn label_zones(&self, number: usize) -> kube::Result<()> {
        let fleet = &self.fleets[number];
        for server in self.list(fleet).await? {
            let is_odd = server.name().ends_with(['1', '3', '5', '7', '9']);
            let labels = json!({"metadata": {"labels": {ZONE: if is_odd { "b" } else { "a" }}}});
            let servers: Api<Server> = self.servers(fleet);
            servers.patch(server.name(), &PatchParams::default(), &Patch::Merge(&labels)).await?;
        }
        Ok(())
    }

    /// What lets the roll-out of code of this fleet go on by itself.
    pub(super) async fn let_code_go_on(&mut self, number: usize) -> kube::Result<Value> {
        let request = self.next();
        let is_turned = self.is_turned(number).await?;
        self.fleets[number].wanted.code = super::fleet::WantedRollout::default();
        let retry = json!({"action": "Retry", "id": format!("request-{request}"), "reason": "a person gives way"});
        Ok(json!({"partition": 0, "paused": false, "steps": [], "onFailure": "Pause", "maxFailed": null,
                  "request": if is_turned { retry } else { Value::Null }}))
    }

    /// Whether the roll-out of code was aborted, or a person has undone what is declared.
    pub(super) async fn is_turned(&self, number: usize) -> kube::Result<bool> {
        let fleet = &self.fleets[number];
        if fleet.shape.is_plain_set {
            return Ok(false);
        }
        let deployments: Api<VMDeployment> = Api::namespaced(self.client.clone(), fleet.namespace);
        let found = deployments.get_opt(fleet.name).await?;
        let progress = found.and_then(|deployment| deployment.status?.rollout);
        Ok(progress.is_some_and(|progress| progress.aborted.is_some() || progress.undone.is_some()))
    }
}
