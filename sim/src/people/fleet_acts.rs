//! What people do with a whole fleet.

use berth_core::api::{FailoverAction, MachineClass};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    core::DynamicObject,
};
use serde_json::{Value, json};

use super::{
    Act, People, create,
    fleet::{Wanted, WantedRollout},
};

impl People {
    pub(super) async fn act_on_fleet(&mut self, number: usize, act: &Act) -> kube::Result<String> {
        match act {
            Act::EditClass { boot_ms } => return self.edit_class(*boot_ms).await,
            Act::Redeclare => return self.redeclare(number).await,
            Act::DeleteService => {
                let fleet = &self.fleets[number];
                self.services(fleet).delete(fleet.name, &DeleteParams::default()).await?;
                self.fleets[number].wanted.has_service = false;
                return Ok("deletes the Service".to_owned());
            }
            _ if !self.fleets[number].wanted.exists => return Ok("finds no fleet".to_owned()),
            Act::DeleteFleet => {
                let fleet = &self.fleets[number];
                self.declarations(fleet).delete(fleet.name, &DeleteParams::default()).await?;
                self.fleets[number].wanted.exists = false;
                return Ok("deletes the fleet".to_owned());
            }
            Act::DeleteSet => {
                let fleet = &self.fleets[number];
                self.berth(fleet, "VMReplicaSet").delete(fleet.name, &DeleteParams::default()).await?;
                self.fleets[number].wanted.exists = !self.fleets[number].shape.is_plain_set;
                return Ok("deletes the set".to_owned());
            }
            Act::Restore { ago, has_version } => return self.restore(number, *ago, *has_version).await,
            _ => {}
        }
        if let Some(words) = self.steer(number, act).await? {
            return Ok(words);
        }
        let Some((spec, words)) = self.declared(number, act) else { return Ok("leaves that as it is".to_owned()) };
        self.patch(number, spec).await?;
        Ok(words)
    }

    /// The part of the declaration that changes with this act, and what it is in words; none when the fleet has no such thing.
    fn declared(&mut self, number: usize, act: &Act) -> Option<(Value, String)> {
        let fleet = &mut self.fleets[number];
        Some(match act {
            Act::Scale { replicas } => {
                fleet.wanted.replicas = *replicas;
                (json!({"replicas": replicas}), format!("scales to {replicas}"))
            }
            Act::DeclareCode { revision } if !fleet.shape.is_plain_set => {
                fleet.wanted.revision.clone_from(revision);
                (json!({"app": fleet.app()}), format!("declares code {revision}"))
            }
            Act::DeclarePackage { version } => {
                fleet.wanted.package.clone_from(version);
                let spec = json!({"template": {"spec": {"packages": fleet.packages()}}});
                (spec, format!("declares package {version}"))
            }
            Act::DeclareFlavor { flavor } if fleet.shape.replaces => {
                fleet.wanted.flavor.clone_from(flavor);
                let spec = json!({"template": {"spec": {"machine": {"flavor": flavor}}}});
                (spec, format!("declares flavor {flavor}"))
            }
            Act::Pause { paused } => {
                fleet.wanted.paused = *paused;
                (json!({"paused": paused}), format!("sets paused to {paused}"))
            }
            Act::Partition { partition } => {
                fleet.wanted.partition = *partition;
                let mut spec = json!({"updateStrategy": {"partition": partition}});
                if !fleet.shape.is_plain_set {
                    spec["rollout"] = json!({"partition": partition});
                }
                (spec, format!("sets partition to {partition}"))
            }
            Act::MaxUnavailable { most } => {
                fleet.wanted.most = Some(*most);
                (json!({"updateStrategy": {"maxUnavailable": most}}), format!("sets maxUnavailable to {most}"))
            }
            Act::Gates { gates } => {
                fleet.wanted.gates.clone_from(gates);
                (json!({"template": {"spec": {"gates": fleet.gates()}}}), format!("declares the gates {gates:?}"))
            }
            Act::Failover { action } => {
                fleet.wanted.action = *action;
                fleet.may_shrink |= *action == FailoverAction::Shrink;
                (json!({"failover": fleet.failover()}), format!("declares failover {action:?}"))
            }
            _ => return None,
        })
    }

    pub(super) async fn patch(&mut self, number: usize, spec: Value) -> kube::Result<()> {
        let fleet = &self.fleets[number];
        let patch = Patch::Merge(json!({"spec": spec}));
        let stored = self.declarations(fleet).patch(fleet.name, &PatchParams::default(), &patch).await?;
        self.remember(number, &stored);
        Ok(())
    }

    async fn edit_class(&self, boot_ms: u64) -> kube::Result<String> {
        let classes: Api<MachineClass> = Api::all(self.client.clone());
        let patch = Patch::Merge(json!({"spec": {"parameters": {"boot": {"uniformMs": [boot_ms / 2, boot_ms]}}}}));
        classes.patch("small", &PatchParams::default(), &patch).await?;
        Ok(format!("lets machines boot in {boot_ms} ms"))
    }

    /// Declares anew what was deleted.
    pub(super) async fn redeclare(&mut self, number: usize) -> kube::Result<String> {
        let fleet = &self.fleets[number];
        let (has_service, exists) = (fleet.wanted.has_service, fleet.wanted.exists);
        if !has_service {
            create(&self.services(fleet), fleet.service()).await?;
            self.fleets[number].wanted.has_service = true;
        }
        if !exists {
            let wanted = &mut self.fleets[number].wanted;
            (wanted.exists, wanted.paused, wanted.partition, wanted.most) = (true, false, 0, None);
            wanted.code = WantedRollout::default();
            self.create_fleet(number).await?;
        }
        Ok(format!("declares anew: Service {}, fleet {}", !has_service, !exists))
    }

    /// Declares again what was declared last: the API server may have forgotten it.
    pub(crate) async fn declare_again(&mut self) -> kube::Result<()> {
        for number in 0..self.fleets.len() {
            let spec = self.fleets[number].declaration()["spec"].take();
            self.patch(number, spec).await?;
        }
        Ok(())
    }

    /// Writes an earlier declaration, as somebody does who has an old file.
    async fn restore(&mut self, number: usize, ago: usize, has_version: bool) -> kube::Result<String> {
        let fleet = &self.fleets[number];
        let Some((stored, wanted)) = fleet.history.iter().rev().nth(ago).cloned() else {
            return Ok("has no earlier declaration".to_owned());
        };
        let declarations = self.declarations(fleet);
        let written = if has_version {
            let object: DynamicObject = serde_json::from_value(stored).map_err(kube::Error::SerdeError)?;
            declarations.replace(fleet.name, &PostParams::default(), &object).await?
        } else {
            let mut spec = stored["spec"].clone();
            // The selector of what is there cannot be changed; it has always been the same.
            spec["selector"] = json!({"matchLabels": {"app": fleet.name}});
            let patch: json_patch::Patch =
                serde_json::from_value(json!([{"op": "replace", "path": "/spec", "value": spec}]))
                    .map_err(kube::Error::SerdeError)?;
            declarations.patch(fleet.name, &PatchParams::default(), &Patch::Json::<()>(patch)).await?
        };
        let fleet = &mut self.fleets[number];
        let is_steered = fleet.wanted.code.is_steered || wanted.code.is_steered;
        fleet.wanted = Wanted { exists: true, has_service: fleet.wanted.has_service, ..wanted };
        // An old request may be done again.
        fleet.wanted.code.is_steered = is_steered;
        self.remember(number, &written);
        Ok(format!("restores the declaration of {ago} ago"))
    }
}
