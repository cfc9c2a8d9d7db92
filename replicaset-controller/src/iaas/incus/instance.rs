//! Instances as Incus shows them, and the tags by which Berth knows its own.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{Error, Result, parameters::AddressFamily};
use crate::iaas::{MachineInfo, Owner, Phase};

/// Tags: keys of an instance's configuration.
pub(super) mod tag {
    /// Name of the cluster.
    pub(in super::super) const CLUSTER: &str = "user.berth.cluster";
    /// Namespace of the Server.
    pub(in super::super) const NAMESPACE: &str = "user.berth.namespace";
    /// Name of the Server.
    pub(in super::super) const NAME: &str = "user.berth.name";
    /// UID of the Server.
    pub(in super::super) const UID: &str = "user.berth.uid";
    /// Port of the SSH server, as the class said when the machine was made.
    pub(in super::super) const SSH_PORT: &str = "user.berth.ssh-port";
    /// Who logs in, as the class said when the machine was made.
    pub(in super::super) const USER: &str = "user.berth.user";
    /// The public key that may log in.
    pub(in super::super) const AUTHORIZED_KEY: &str = "user.berth.authorized-key";
    /// The machine's SSH host key, once it was read from it.
    pub(in super::super) const HOST_KEY: &str = "user.berth.host-key";
    /// The UUID of the instance that the tags were made for: a copy of it has another.
    pub(in super::super) const INSTANCE: &str = "user.berth.instance";
}

/// Set by Incus when the instance's disk is complete, and unset when it starts for the first time.
const APPLY_TEMPLATE: &str = "volatile.apply_template";
const UUID: &str = "volatile.uuid";
/// Longest name of an instance: it is its host name, too.
const LONGEST_NAME: usize = 63;

/// How far an instance is. The numbers are `shared/api/status_code.go` of Incus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Running,
    Stopped,
    Frozen,
    /// Incus cannot say.
    Broken,
    /// On its way to another.
    Passing,
}

/// An instance, with its state where it was asked for.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Instance {
    pub(super) name: String,
    status_code: u16,
    created_at: Timestamp,
    last_used_at: Timestamp,
    #[serde(default)]
    pub(super) config: BTreeMap<String, String>,
    #[serde(default)]
    expanded_devices: BTreeMap<String, BTreeMap<String, String>>,
    /// Asked for apart, see [`State`].
    #[serde(default)]
    pub(super) state: Option<State>,
}

/// What is known of a running instance only. It is asked for apart: for an instance that is just starting or stopping,
/// Incus 6.0 answers with an error ("Invalid PID"), and refuses with it a whole list that it is part of.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct State {
    #[serde(default)]
    pid: i64,
    #[serde(default)]
    network: Option<BTreeMap<String, Network>>,
}

#[derive(Clone, Debug, Deserialize)]
struct Network {
    #[serde(default)]
    addresses: Vec<Address>,
    #[serde(default)]
    hwaddr: String,
}

#[derive(Clone, Debug, Deserialize)]
struct Address {
    family: String,
    #[serde(rename = "address")]
    ip: String,
    scope: String,
}

/// The name of a Server's instance: the same for whoever makes it, and another for another cluster, even if that was
/// restored from the same backup and has the same UIDs.
pub(super) fn name(cluster: &str, uid: &str) -> Result<String> {
    if uid.is_empty() || uid.ends_with('-') || !uid.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
        return Err(Error::Configuration(format!("{uid:?} is no UID: only letters, digits and - are allowed")));
    }
    let digest = hex::encode(Sha256::digest(cluster.as_bytes()));
    let name = format!("b{}-{uid}", digest.get(..8).unwrap_or_default());
    if name.len() > LONGEST_NAME {
        return Err(Error::Configuration(format!("the UID {uid:?} is too long for the name of an Incus instance")));
    }
    Ok(name)
}

/// The tags of an owner.
pub(super) fn tags(owner: &Owner) -> [(&'static str, String); 4] {
    [
        (tag::CLUSTER, owner.cluster.clone()),
        (tag::NAMESPACE, owner.namespace.clone()),
        (tag::NAME, owner.name.clone()),
        (tag::UID, owner.uid.clone()),
    ]
}

impl Instance {
    /// The value of a key of its configuration.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.config.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Whose machine it is. None for a copy that a person made of a machine: the tags go along, and it is theirs.
    pub(super) fn owner(&self) -> Option<Owner> {
        let text = |key| self.get(key).map(str::to_owned);
        let owner = Owner {
            cluster: text(tag::CLUSTER)?,
            namespace: text(tag::NAMESPACE)?,
            name: text(tag::NAME)?,
            uid: text(tag::UID)?,
        };
        // Before the first start nobody can have renamed what nobody knows.
        let original = match self.get(tag::INSTANCE) {
            Some(uuid) => Some(uuid) == self.get(UUID),
            None => name(&owner.cluster, &owner.uid).is_ok_and(|name| name == self.name),
        };
        original.then_some(owner)
    }

    /// Identifies this instance among all that have had its name.
    pub(super) fn uuid(&self) -> &str {
        self.get(UUID).unwrap_or_default()
    }

    pub(super) fn status(&self) -> Status {
        match self.status_code {
            103 | 113 => Status::Running,
            102 => Status::Stopped,
            110 => Status::Frozen,
            112 => Status::Broken,
            _ => Status::Passing,
        }
    }

    /// Whether its creation may not be finished: its disk was never complete. It has never run, so nothing is on it.
    pub(super) fn is_unfinished(&self) -> bool {
        let never_started = self.last_used_at.as_second() <= 0 && self.get("volatile.last_state.power").is_none();
        never_started && self.get(APPLY_TEMPLATE).is_none() && self.status() != Status::Running
    }

    /// Its address: of the network devices that Incus gave it, and no other (a bridge that is made inside would be one).
    pub(super) fn address(&self, device: Option<&str>, family: AddressFamily) -> Option<String> {
        let networks = self.state.as_ref()?.network.as_ref()?;
        let nics =
            self.expanded_devices.iter().filter(|(_, device)| device.get("type").is_some_and(|kind| kind == "nic"));
        let wanted = nics
            .filter(|(name, nic)| device.is_none_or(|d| d == name.as_str() || nic.get("name").is_some_and(|n| n == d)));
        wanted.filter_map(|(name, nic)| self.of_device(networks, name, nic)).find_map(|network| {
            let fits = |a: &&Address| a.family == family.name() && a.scope == "global";
            network.addresses.iter().find(fits).map(|address| address.ip.clone())
        })
    }

    /// A network device inside: by its hardware address, as a virtual machine gives it a name of its own.
    fn of_device<'a>(
        &self,
        networks: &'a BTreeMap<String, Network>,
        name: &str,
        nic: &BTreeMap<String, String>,
    ) -> Option<&'a Network> {
        let volatile = format!("volatile.{name}.hwaddr");
        let hwaddr = nic.get("hwaddr").map(String::as_str).or_else(|| self.get(&volatile));
        let inside = nic.get("name").map_or(name, String::as_str);
        networks
            .values()
            .find(|network| !network.hwaddr.is_empty() && Some(network.hwaddr.as_str()) == hwaddr)
            .or_else(|| networks.get(inside))
    }

    /// What the provider says of it.
    pub(super) fn info(&self, owner: Owner, device: Option<&str>, family: AddressFamily, port: u16) -> MachineInfo {
        let running = self.status() == Status::Running;
        let address = self.address(device, family).filter(|_| running);
        let host_key = self.get(tag::HOST_KEY).map(str::to_owned);
        MachineInfo {
            owner,
            id: format!("{}/{}", self.name, self.uuid()),
            phase: match self.status() {
                Status::Running if address.is_some() && host_key.is_some() => Phase::Running,
                Status::Running | Status::Passing => Phase::Starting,
                Status::Stopped if self.is_unfinished() => Phase::Starting,
                Status::Stopped | Status::Frozen | Status::Broken => Phase::Stopped,
            },
            address,
            ssh_port: self.get(tag::SSH_PORT).and_then(|port| port.parse().ok()).unwrap_or(port),
            host_key,
            boot_id: running.then(|| self.boot_id()).flatten(),
            created_at: self.created_at,
        }
    }

    /// Incus notes when it started an instance, in nanoseconds, also when it is rebooted from inside.
    fn boot_id(&self) -> Option<String> {
        let pid = self.state.as_ref()?.pid;
        Some(format!("{}-{pid}", self.last_used_at.as_nanosecond()))
    }
}

/// The body that makes an instance's state another.
pub(super) fn action(action: &str, timeout: std::time::Duration) -> Value {
    serde_json::json!({"action": action, "force": true, "timeout": timeout.as_secs(), "stateful": false})
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn instance(changes: &Value) -> Instance {
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
    fn names_follow_from_cluster_and_uid_and_are_host_names() {
        let uuid = "8ad4c9a4-60a5-4a4e-a2f7-3f0d0f0b6f2e";
        assert_eq!(name("c", uuid).unwrap(), name("c", uuid).unwrap());
        assert_ne!(name("c", uuid).unwrap(), name("d", uuid).unwrap());
        assert!(name("c", uuid).unwrap().len() <= LONGEST_NAME);
        for bad in ["", "..", "a/b", "a-", "ä", &"x".repeat(60)] {
            assert!(matches!(name("c", bad), Err(Error::Configuration(_))), "{bad}");
        }
    }

    #[test]
    fn a_copy_of_a_machine_is_no_machine() {
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
    fn the_address_is_of_a_device_that_incus_gave() {
        let machine = instance(&json!({}));
        assert_eq!(machine.address(None, AddressFamily::Inet).as_deref(), Some("10.0.0.2"));
        assert_eq!(machine.address(None, AddressFamily::Inet6).as_deref(), Some("fd00::2"));
        assert_eq!(machine.address(Some("eth1"), AddressFamily::Inet), None);
        assert_eq!(instance(&json!({"state": {"network": null}})).address(None, AddressFamily::Inet), None);
    }

    #[test]
    fn it_runs_when_it_can_be_reached() {
        let phase = |changes: Value| {
            let instance = instance(&changes);
            instance.info(instance.owner().unwrap(), None, AddressFamily::Inet, 22).phase
        };
        let key = json!({"user.berth.host-key": "ssh-ed25519 A"});
        assert_eq!(phase(json!({})), Phase::Starting);
        assert_eq!(phase(json!({"config": key})), Phase::Running);
        assert_eq!(phase(json!({"config": key, "state": {"network": null}})), Phase::Starting);
        assert_eq!(phase(json!({"config": key, "status_code": 102})), Phase::Stopped);
        assert_eq!(phase(json!({"config": key, "status_code": 110})), Phase::Stopped);
        assert_eq!(phase(json!({"config": key, "status_code": 107})), Phase::Starting);
    }

    #[test]
    fn what_never_had_a_whole_disk_is_unfinished() {
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
