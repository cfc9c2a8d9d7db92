//! Monitoring targets: the page that Prometheus' HTTP service discovery reads.

use std::{collections::BTreeMap, time::Duration};

use axum::{Json, Router, http::StatusCode, routing::get};
use berth_core::api::{MonitoringPhase, Server};
use kube::runtime::reflector::Store;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// A target group of one Server, in Prometheus' format.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub(crate) struct TargetGroup {
    /// `address:port` of the one target.
    targets: [String; 1],
    labels: BTreeMap<String, String>,
}

/// Serves `/targets` until shutdown.
pub(crate) async fn serve(shutdown: CancellationToken, listener: TcpListener, servers: Store<Server>) {
    let router = Router::new().route("/targets", get(move || async move { target_groups(&servers).await }));
    let served = axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned()).await;
    if let Err(error) = served {
        tracing::error!(%error, "/targets is served no longer");
    }
}

/// All targets. Before the first list of Servers the answer is an error: an empty list would make Prometheus drop every target.
async fn target_groups(servers: &Store<Server>) -> Result<Json<Vec<TargetGroup>>, (StatusCode, &'static str)> {
    if tokio::time::timeout(Duration::ZERO, servers.wait_until_ready()).await.is_err() {
        return Err((StatusCode::SERVICE_UNAVAILABLE, "the Servers are not known yet\n"));
    }
    let mut groups: Vec<_> = servers.state().iter().filter_map(|server| target_group(server)).collect();
    groups.sort_by(|a, b| a.targets.cmp(&b.targets));
    Ok(Json(groups))
}

/// The Server's target, if monitoring is bound or paused as declared. After a change of the declaration or the address there is
/// none until monitoring is bound again.
fn target_group(server: &Server) -> Option<TargetGroup> {
    let fact = server.status.as_ref()?.monitoring.as_ref()?;
    let declared = server.spec.monitoring.as_ref()?;
    if server.monitoring_digest().as_ref() != Some(&fact.digest) {
        return None;
    }
    let address = server.address()?;
    let mut labels: BTreeMap<_, _> =
        declared.target_labels().map(|(name, value)| (name.clone(), value.clone())).collect();
    labels.insert("namespace".to_owned(), server.namespace().to_owned());
    labels.insert("server".to_owned(), server.name().to_owned());
    labels.insert("__metrics_path__".to_owned(), declared.path.clone());
    if fact.phase == MonitoringPhase::Paused {
        labels.insert("berth_paused".to_owned(), "true".to_owned());
    }
    Some(TargetGroup { targets: [host_and_port(address, declared.port)], labels })
}

/// `host:port`, with the brackets that an IPv6 address needs.
fn host_and_port(address: &str, port: i32) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

#[cfg(test)]
mod tests {
    use kube::runtime::{reflector, watcher::Event};
    use serde_json::json;

    use super::*;

    fn server(phase: &str) -> Server {
        let mut server: Server = berth_testing::server(json!({"metadata": {"name": "web-0", "namespace": "shop"},
            "spec": {"machine": {"className": "c"}, "monitoring": {"port": 9100, "labels": {"team": "a", "server": "x"}}},
            "status": {"machine": {"phase": "Running", "address": "10.0.0.1"},
                       "monitoring": {"phase": phase, "digest": ""}}
        }));
        let digest = server.monitoring_digest().unwrap();
        server.status.as_mut().unwrap().monitoring.as_mut().unwrap().digest = digest;
        server
    }

    #[test]
    fn a_bound_server_is_a_target_with_its_labels() {
        let json = serde_json::to_value(target_group(&server("Bound"))).unwrap();
        let labels = json!({"team": "a", "namespace": "shop", "server": "web-0", "__metrics_path__": "/metrics"});
        assert_eq!(json, json!({"targets": ["10.0.0.1:9100"], "labels": labels}));
    }

    #[test]
    fn labels_that_prometheus_would_reject_or_that_pass_for_others_are_dropped() {
        let mut server = server("Bound");
        let declared = json!({"team": "a", "": "x", "a-b": "x", "1": "x", "__address__": "x", "__param_x": "x", "job": "x",
            "instance": "x", "namespace": "x", "server": "x", "berth_paused": "true", "long": "x".repeat(257)});
        server.spec.monitoring.as_mut().unwrap().labels = serde_json::from_value(declared).unwrap();
        let digest = server.monitoring_digest().unwrap();
        server.status.as_mut().unwrap().monitoring.as_mut().unwrap().digest = digest;
        let labels = json!({"team": "a", "namespace": "shop", "server": "web-0", "__metrics_path__": "/metrics"});
        assert_eq!(serde_json::to_value(target_group(&server).unwrap().labels).unwrap(), labels);
    }

    #[test]
    fn a_paused_target_has_a_label_that_says_so() {
        assert_eq!(target_group(&server("Paused")).unwrap().labels["berth_paused"], "true");
    }

    #[test]
    fn outdated_and_unbound_servers_are_no_targets() {
        let mut moved = server("Bound");
        moved.status.as_mut().unwrap().machine.as_mut().unwrap().address = Some("10.0.0.2".into());
        assert_eq!(target_group(&moved), None);
        let mut unbound = server("Bound");
        unbound.status.as_mut().unwrap().monitoring = None;
        assert_eq!(target_group(&unbound), None);
    }

    #[test]
    fn ipv6_addresses_get_brackets() {
        assert_eq!(host_and_port("fd00::1", 9100), "[fd00::1]:9100");
    }

    #[tokio::test]
    async fn there_is_no_answer_before_the_first_list_of_servers() {
        let (store, mut writer) = reflector::store::<Server>();
        assert_eq!(target_groups(&store).await.unwrap_err().0, StatusCode::SERVICE_UNAVAILABLE);
        writer.apply_watcher_event(&Event::Init);
        writer.apply_watcher_event(&Event::InitApply(server("Bound")));
        writer.apply_watcher_event(&Event::InitDone);
        let Json(groups) = target_groups(&store).await.unwrap();
        assert_eq!(groups[0].targets, ["10.0.0.1:9100"]);
    }
}
