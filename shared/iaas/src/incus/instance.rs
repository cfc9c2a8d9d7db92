//! Instances as Incus returns them, and the tags that Berth sets on them.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::parameters::AddressFamily;
use crate::{
    error::{ProviderError, Result},
    provider::{MachineOwner, ProviderMachine, ProviderMachinePhase},
};

/// Tags: keys in the configuration of an instance.
pub(super) mod tag {
    /// Name of the cluster.
    pub(in crate::incus) const CLUSTER: &str = "user.berth.cluster";
    /// Namespace of the Server.
    pub(in crate::incus) const NAMESPACE: &str = "user.berth.namespace";
    /// Name of the Server.
    pub(in crate::incus) const NAME: &str = "user.berth.name";
    /// UID of the Server.
    pub(in crate::incus) const UID: &str = "user.berth.uid";
    /// Port of the SSH server, from the class when the machine was created.
    pub(in crate::incus) const SSH_PORT: &str = "user.berth.ssh-port";
    /// Login name, from the class when the machine was created.
    pub(in crate::incus) const USER: &str = "user.berth.user";
    /// The public key that the machine accepts.
    pub(in crate::incus) const AUTHORIZED_KEY: &str = "user.berth.authorized-key";
    /// The machine's SSH host key, once Berth has read it.
    pub(in crate::incus) const HOST_KEY: &str = "user.berth.host-key";
    /// The UUID of the instance that the tags belong to: a copy of the instance has another UUID.
    pub(in crate::incus) const INSTANCE: &str = "user.berth.instance";
}

/// Incus sets it when the instance's disk is complete, and removes it at the first start.
const APPLY_TEMPLATE: &str = "volatile.apply_template";
const UUID: &str = "volatile.uuid";
/// Longest name of an instance: the name is also its host name.
const LONGEST_NAME: usize = 63;

/// Status of an instance. The numbers are in `shared/api/status_code.go` of Incus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InstanceStatus {
    Running,
    Stopped,
    Frozen,
    /// Incus cannot read it.
    Broken,
    /// It is changing to another status.
    Changing,
}

/// An instance.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct IncusInstance {
    pub(super) name: String,
    status_code: u16,
    created_at: Timestamp,
    last_used_at: Timestamp,
    #[serde(default)]
    pub(super) config: BTreeMap<String, String>,
    #[serde(default)]
    expanded_devices: BTreeMap<String, BTreeMap<String, String>>,
    /// Read by a separate call, see [`InstanceState`].
    #[serde(default)]
    pub(super) state: Option<InstanceState>,
}

/// The part of an instance that only exists while it runs. It has to be read by a separate call: while an instance starts
/// or stops, Incus 6.0 answers with an error ("Invalid PID"), and a list with states fails as a whole.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct InstanceState {
    #[serde(default)]
    pid: i64,
    #[serde(default)]
    network: Option<BTreeMap<String, InstanceNetwork>>,
}

#[derive(Clone, Debug, Deserialize)]
struct InstanceNetwork {
    #[serde(default)]
    addresses: Vec<InstanceAddress>,
    #[serde(default)]
    hwaddr: String,
}

#[derive(Clone, Debug, Deserialize)]
struct InstanceAddress {
    family: String,
    #[serde(rename = "address")]
    ip: String,
    scope: String,
}

/// The name of the instance of a Server. It is derived from the UID, so that every process uses the same one, and from the
/// cluster, because a cluster that was restored from the backup of another has the same UIDs.
pub(super) fn name(cluster: &str, uid: &str) -> Result<String> {
    if uid.is_empty() || uid.ends_with('-') || !uid.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
        return Err(ProviderError::Configuration(format!("{uid:?} is no UID: only letters, digits and - are allowed")));
    }
    let digest = hex::encode(Sha256::digest(cluster.as_bytes()));
    let name = format!("b{}-{uid}", digest.get(..8).unwrap_or_default());
    if name.len() > LONGEST_NAME {
        return Err(ProviderError::Configuration(format!(
            "the UID {uid:?} is too long for the name of an Incus instance"
        )));
    }
    Ok(name)
}

/// The tags that name an owner.
pub(super) fn tags(owner: &MachineOwner) -> [(&'static str, String); 4] {
    [
        (tag::CLUSTER, owner.cluster.clone()),
        (tag::NAMESPACE, owner.namespace.clone()),
        (tag::NAME, owner.name.clone()),
        (tag::UID, owner.uid.clone()),
    ]
}

impl IncusInstance {
    /// A value of its configuration; none if it is empty.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.config.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The owner in its tags. None for a copy of a machine: a copy has the same tags, but belongs to the person who made it.
    pub(super) fn owner(&self) -> Option<MachineOwner> {
        let text = |key| self.get(key).map(str::to_owned);
        let owner = MachineOwner {
            cluster: text(tag::CLUSTER)?,
            namespace: text(tag::NAMESPACE)?,
            name: text(tag::NAME)?,
            uid: text(tag::UID)?,
        };
        // Before the first start the UUID is not in the tags yet. Then only an instance with the original name counts.
        let original = match self.get(tag::INSTANCE) {
            Some(uuid) => Some(uuid) == self.get(UUID),
            None => name(&owner.cluster, &owner.uid).is_ok_and(|name| name == self.name),
        };
        original.then_some(owner)
    }

    /// Tells this instance apart from earlier instances of the same name.
    pub(super) fn uuid(&self) -> &str {
        self.get(UUID).unwrap_or_default()
    }

    pub(super) fn status(&self) -> InstanceStatus {
        match self.status_code {
            103 | 113 => InstanceStatus::Running,
            102 => InstanceStatus::Stopped,
            110 => InstanceStatus::Frozen,
            112 => InstanceStatus::Broken,
            _ => InstanceStatus::Changing,
        }
    }

    /// Whether its creation was interrupted: its disk was never complete. It has never run, so that it holds no data.
    pub(super) fn is_unfinished(&self) -> bool {
        let never_started = self.last_used_at.as_second() <= 0 && self.get("volatile.last_state.power").is_none();
        never_started && self.get(APPLY_TEMPLATE).is_none() && self.status() != InstanceStatus::Running
    }

    /// Its address on a network device that Incus gave it; a bridge inside the machine has addresses of its own.
    pub(super) fn address(&self, device: Option<&str>, family: AddressFamily) -> Option<String> {
        let networks = self.state.as_ref()?.network.as_ref()?;
        let nics =
            self.expanded_devices.iter().filter(|(_, device)| device.get("type").is_some_and(|kind| kind == "nic"));
        let wanted = nics
            .filter(|(name, nic)| device.is_none_or(|d| d == name.as_str() || nic.get("name").is_some_and(|n| n == d)));
        wanted.filter_map(|(name, nic)| self.network_of_device(networks, name, nic)).find_map(|network| {
            let fits = |a: &&InstanceAddress| a.family == family.name() && a.scope == "global";
            network.addresses.iter().find(fits).map(|address| address.ip.clone())
        })
    }

    /// The network of a device: by hardware address, because a virtual machine names its devices itself.
    fn network_of_device<'a>(
        &self,
        networks: &'a BTreeMap<String, InstanceNetwork>,
        name: &str,
        nic: &BTreeMap<String, String>,
    ) -> Option<&'a InstanceNetwork> {
        let volatile = format!("volatile.{name}.hwaddr");
        let hwaddr = nic.get("hwaddr").map(String::as_str).or_else(|| self.get(&volatile));
        let inside = nic.get("name").map_or(name, String::as_str);
        networks
            .values()
            .find(|network| !network.hwaddr.is_empty() && Some(network.hwaddr.as_str()) == hwaddr)
            .or_else(|| networks.get(inside))
    }

    /// The machine of this owner.
    pub(super) fn machine(
        &self,
        owner: MachineOwner,
        device: Option<&str>,
        family: AddressFamily,
        port: u16,
    ) -> ProviderMachine {
        let running = self.status() == InstanceStatus::Running;
        let address = self.address(device, family).filter(|_| running);
        let host_key = self.get(tag::HOST_KEY).map(str::to_owned);
        ProviderMachine {
            owner,
            id: format!("{}/{}", self.name, self.uuid()),
            phase: match self.status() {
                InstanceStatus::Running if address.is_some() && host_key.is_some() => ProviderMachinePhase::Running,
                InstanceStatus::Running | InstanceStatus::Changing => ProviderMachinePhase::Starting,
                InstanceStatus::Stopped if self.is_unfinished() => ProviderMachinePhase::Starting,
                InstanceStatus::Stopped | InstanceStatus::Frozen | InstanceStatus::Broken => {
                    ProviderMachinePhase::Stopped
                }
            },
            address,
            ssh_port: self.get(tag::SSH_PORT).and_then(|port| port.parse().ok()).unwrap_or(port),
            host_key,
            boot_id: running.then(|| self.boot_id()).flatten(),
            created_at: self.created_at,
        }
    }

    /// Incus stores when it last started the instance, in nanoseconds, also after a reboot from inside.
    fn boot_id(&self) -> Option<String> {
        let pid = self.state.as_ref()?.pid;
        Some(format!("{}-{pid}", self.last_used_at.as_nanosecond()))
    }
}

/// The body of a request that changes the status of an instance, as `start` or `stop`.
pub(super) fn status_change(action: &str, timeout: std::time::Duration) -> Value {
    serde_json::json!({"action": action, "force": true, "timeout": timeout.as_secs(), "stateful": false})
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn instance(changes: &Value) -> IncusInstance {
        let mut all = json!({
            "name": name("c", "u-1").unwrap(), "status_code": 103,
            "created_at": "2026-01-01T00:00:00Z", "last_used_at": "2026-01-01T00:00:01Z",
            "config": {
                "user.berth.cluster": "c", "user.berth.namespace": "n", "user.berth.name": "s", "user.berth.uid": "u-1",
                "volatile.uuid": "i-1", "volatile.eth0.hwaddr": "00:16:3e:00:00:01",
            },
            "expanded_devices": {"eth0": {"type": "nic"}, "root": {"type": "disk"}},
            "state": {"pid": 7, "network": {
                "docker0": {"addresses": [{"family": "inet", "address": "172.17.0.1", "scope": "global"}], "hwaddr": "x"},
                "enp5s0": {"addresses": [
                    {"family": "inet6", "address": "fe80::1", "scope": "link"},
                    {"family": "inet6", "address": "fd00::2", "scope": "global"},
                    {"family": "inet", "address": "10.0.0.2", "scope": "global"}], "hwaddr": "00:16:3e:00:00:01"},
            }},
        });
        json_patch::merge(&mut all, changes);
        serde_json::from_value(all).unwrap()
    }

    #[test]
    fn names_are_derived_from_cluster_and_uid_and_are_host_names() {
        let uuid = "8ad4c9a4-60a5-4a4e-a2f7-3f0d0f0b6f2e";
        assert_eq!(name("c", uuid).unwrap(), name("c", uuid).unwrap());
        assert_ne!(name("c", uuid).unwrap(), name("d", uuid).unwrap());
        assert!(name("c", uuid).unwrap().len() <= LONGEST_NAME);
        for bad in ["", "..", "a/b", "a-", "ä", &"x".repeat(60)] {
            assert!(matches!(name("c", bad), Err(ProviderError::Configuration(_))), "{bad}");
        }
    }

    #[test]
    fn a_copy_of_a_machine_has_no_owner() {
        assert_eq!(instance(&json!({})).owner().unwrap().uid, "u-1");
        assert_eq!(instance(&json!({"name": "copy"})).owner(), None);
        let marked = |more: Value| {
            let mut all = json!({"config": {"user.berth.instance": "i-1"}});
            json_patch::merge(&mut all, &more);
            instance(&all).owner().is_some()
        };
        assert!(marked(json!({})));
        assert!(marked(json!({"name": "renamed"})));
        assert!(!marked(json!({"name": "copy", "config": {"volatile.uuid": "i-2"}})));
        assert_eq!(instance(&json!({"config": {"user.berth.cluster": null}})).owner(), None);
    }

    #[test]
    fn the_address_is_on_a_device_that_incus_gave() {
        let machine = instance(&json!({}));
        assert_eq!(machine.address(None, AddressFamily::Inet).as_deref(), Some("10.0.0.2"));
        assert_eq!(machine.address(None, AddressFamily::Inet6).as_deref(), Some("fd00::2"));
        assert_eq!(machine.address(Some("eth1"), AddressFamily::Inet), None);
        assert_eq!(instance(&json!({"state": {"network": null}})).address(None, AddressFamily::Inet), None);
    }

    #[test]
    fn a_machine_with_address_and_host_key_is_running() {
        let phase = |changes: Value| {
            let instance = instance(&changes);
            instance.machine(instance.owner().unwrap(), None, AddressFamily::Inet, 22).phase
        };
        let key = json!({"user.berth.host-key": "ssh-ed25519 A"});
        assert_eq!(phase(json!({})), ProviderMachinePhase::Starting);
        assert_eq!(phase(json!({"config": key})), ProviderMachinePhase::Running);
        assert_eq!(phase(json!({"config": key, "state": {"network": null}})), ProviderMachinePhase::Starting);
        assert_eq!(phase(json!({"config": key, "status_code": 102})), ProviderMachinePhase::Stopped);
        assert_eq!(phase(json!({"config": key, "status_code": 110})), ProviderMachinePhase::Stopped);
        assert_eq!(phase(json!({"config": key, "status_code": 107})), ProviderMachinePhase::Starting);
    }

    #[test]
    fn an_instance_whose_disk_was_never_complete_is_unfinished() {
        let never = |more: Value| {
            let mut all = json!({"status_code": 102, "last_used_at": "1970-01-01T00:00:00Z"});
            json_patch::merge(&mut all, &more);
            instance(&all).is_unfinished()
        };
        assert!(never(json!({})));
        assert!(!never(json!({"config": {"volatile.apply_template": "create"}})));
        assert!(!never(json!({"last_used_at": "2026-01-01T00:00:00Z"})));
        assert!(!never(json!({"config": {"volatile.last_state.power": "STOPPED"}})));
    }
}
