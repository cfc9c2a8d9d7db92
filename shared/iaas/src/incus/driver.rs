//! Makes Incus providers for MachineClasses.

use std::sync::Arc;

use berth_core::api::MachineClassSpec;

use super::{client::IncusClient, parameters::IncusParameters, provider::IncusProvider};
use crate::{
    driver::{Driver, SecretData},
    error::Result,
    provider::Provider,
};

/// Makes providers for MachineClasses whose `spec.provider` is `incus`.
#[derive(Clone, Debug)]
pub struct IncusDriver {
    cluster: String,
}

impl IncusDriver {
    /// Makes providers for machines of the cluster of this name.
    pub fn new(cluster: impl Into<String>) -> Self {
        Self { cluster: cluster.into() }
    }
}

impl Driver for IncusDriver {
    fn connect(&self, class: &MachineClassSpec, credentials: Option<&SecretData>) -> Result<Arc<dyn Provider>> {
        let parameters = IncusParameters::read(class)?;
        let client = IncusClient::new(class, &parameters, credentials)?;
        Ok(Arc::new(IncusProvider {
            client,
            cluster: self.cluster.clone(),
            parameters,
            access: class.access.clone(),
            image: class.image.clone(),
            flavor: class.flavor.clone(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn place(parameters: &Value) -> String {
        let class = json!({"provider": "incus", "parameters": parameters});
        IncusDriver::new("here").connect(&serde_json::from_value(class).unwrap(), None).unwrap().place()
    }

    #[test]
    fn the_admission_policy_fixes_what_makes_the_place() {
        let policy = include_str!("../../../../deploy/base/machine-class-use.yaml");
        let fixed = r#""incus": {"endpoint": "", "project": "default"}"#;
        assert!(policy.contains(fixed), "deploy/base/machine-class-use.yaml");
        let socket = "unix:///run/incus/unix.socket";
        let plain = place(&json!({"endpoint": socket}));
        assert_eq!(place(&json!({"endpoint": socket, "project": "default"})), plain);
        assert_ne!(place(&json!({"endpoint": socket, "project": "shop"})), plain);
        assert_ne!(place(&json!({"endpoint": "unix:///run/other.socket"})), plain);
        for (name, value) in [
            ("type", json!("virtual-machine")),
            ("profiles", json!(["big"])),
            ("config", json!({"limits.cpu": 2})),
            ("devices", json!({"root": {"type": "disk", "path": "/", "pool": "fast"}})),
            ("imageServer", json!({"url": "https://images.example.org"})),
            ("target", json!("node-1")),
            ("interface", json!("eth1")),
            ("addressFamily", json!("inet6")),
            ("hostKeyFiles", json!(["/etc/dropbear/key.pub"])),
        ] {
            assert_eq!(place(&json!({"endpoint": socket, name: value})), plain, "{name}");
        }
    }
}
