//! Monitoring targets, as Prometheus' HTTP service discovery reads them.

use std::collections::BTreeMap;

use berth_core::{
    api::{MonitoringPhase, Server},
    lifecycle,
};
use serde::Serialize;

/// One target group.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub struct TargetGroup {
    /// `address:port` of the one target.
    pub targets: [String; 1],
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// The Server's target, when it is bound or paused as declared. A Server whose declaration or address has changed since is none
/// until it is bound again.
#[must_use]
pub fn target(server: &Server) -> Option<TargetGroup> {
    let status = server.status.as_ref()?;
    let fact = status.monitoring.as_ref()?;
    let declared = server.spec.monitoring.as_ref()?;
    if lifecycle::monitoring_digest(server).as_ref() != Some(&fact.digest) {
        return None;
    }
    let address = status.machine.as_ref()?.address.as_ref()?;
    let mut labels = declared.labels.clone();
    labels.insert("namespace".to_owned(), server.metadata.namespace.clone().unwrap_or_default());
    labels.insert("server".to_owned(), server.metadata.name.clone().unwrap_or_default());
    labels.insert("__metrics_path__".to_owned(), declared.path.clone());
    if fact.phase == MonitoringPhase::Paused {
        labels.insert("berth_paused".to_owned(), "true".to_owned());
    }
    Some(TargetGroup { targets: [host_and_port(address, declared.port)], labels })
}

/// An IPv6 address needs brackets.
fn host_and_port(address: &str, port: i32) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn server(phase: &str) -> Server {
        let mut server: Server = serde_json::from_value(json!({
            "apiVersion": "berth.dev/v1alpha1", "kind": "Server", "metadata": {"name": "web-0", "namespace": "shop"},
            "spec": {"machine": {"className": "c"}, "monitoring": {"port": 9100, "labels": {"team": "a", "server": "x"}}},
            "status": {"machine": {"phase": "Running", "address": "10.0.0.1"},
                       "monitoring": {"phase": phase, "digest": ""}}
        }))
        .unwrap();
        let digest = lifecycle::monitoring_digest(&server).unwrap();
        server.status.as_mut().unwrap().monitoring.as_mut().unwrap().digest = digest;
        server
    }

    #[test]
    fn a_bound_server_is_a_target_with_its_labels() {
        let json = serde_json::to_value(target(&server("Bound"))).unwrap();
        let labels = json!({"team": "a", "namespace": "shop", "server": "web-0", "__metrics_path__": "/metrics"});
        assert_eq!(json, json!({"targets": ["10.0.0.1:9100"], "labels": labels}));
    }

    #[test]
    fn a_paused_one_says_so() {
        assert_eq!(target(&server("Paused")).unwrap().labels["berth_paused"], "true");
    }

    #[test]
    fn out_of_date_or_unbound_servers_are_none() {
        let mut moved = server("Bound");
        moved.status.as_mut().unwrap().machine.as_mut().unwrap().address = Some("10.0.0.2".into());
        assert_eq!(target(&moved), None);
        let mut unbound = server("Bound");
        unbound.status.as_mut().unwrap().monitoring = None;
        assert_eq!(target(&unbound), None);
    }

    #[test]
    fn ipv6_addresses_get_brackets() {
        assert_eq!(host_and_port("fd00::1", 9100), "[fd00::1]:9100");
    }
}
