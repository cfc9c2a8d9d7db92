//! The servers of each backend as lines of HAProxy's configuration.
//!
//! HAProxy forgets servers that were added at run time when it is reloaded or restarted. A script beside it asks for these lines first,
//! and puts them into the configuration: see `deploy/haproxy`. Every copy of this program answers from its cache.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Router,
    extract::{Path, State},
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{CONTENT_TYPE, ETAG, IF_NONE_MATCH},
    },
    response::{IntoResponse, Response},
    routing::get,
};
use berth_core::api::{Server, TrafficPhase, VMDeployment};
use berth_haproxy::config::{ConfiguredServer, etag, server_list};
use berth_runtime::{Cache, Context};
use futures::{FutureExt as _, future};
use k8s_openapi::jiff::Timestamp;
use tokio::net::TcpListener;

use super::driver::new_server;
use crate::{
    classes::{
        driver::{Entry, EntryKey},
        view::entries_of_server,
        weights,
    },
    subsets::Subsets,
};

/// What the lists are made of.
#[derive(Clone)]
pub(crate) struct Lists {
    pub(crate) ctx: Context,
    pub(crate) servers: Cache<Server>,
    pub(crate) deployments: Cache<VMDeployment>,
    pub(crate) subsets: Subsets,
}

/// Serves until shutdown, together with what is for other load balancers.
pub(crate) async fn serve(lists: Lists, listener: TcpListener, others: Router) {
    let shutdown = lists.ctx.shutdown.clone();
    let router = Router::new().route("/haproxy/{class}/{backend}", get(list)).with_state(lists).merge(others);
    if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned()).await {
        tracing::error!(%error, "the lists of servers for HAProxy are served no longer");
    }
}

/// The servers of a backend. Before the first list of Servers the answer is an error: an empty list would empty the backend.
async fn list(
    State(lists): State<Lists>,
    Path((class, backend)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let ready = future::join3(lists.servers.ready(), lists.deployments.ready(), lists.subsets.ready());
    if ready.now_or_never().is_none() {
        return (StatusCode::SERVICE_UNAVAILABLE, "the Servers are not known yet\n").into_response();
    }
    let servers = lists.servers.store().state();
    let now = lists.ctx.clock.now();
    let weights = weights(&class, &servers, &lists.subsets, &lists.deployments, now);
    let configured = configured(&class, &backend, &servers, &lists.subsets, &weights, now);
    let text = match server_list(&backend, &configured) {
        Ok(text) => text,
        Err(error) => return (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
    };
    let tag = etag(&text);
    let Ok(header) = HeaderValue::from_str(&tag) else {
        return (StatusCode::INTERNAL_SERVER_ERROR, "the list has no tag\n").into_response();
    };
    if headers.get(IF_NONE_MATCH) == Some(&header) {
        return (StatusCode::NOT_MODIFIED, [(ETAG, header)]).into_response();
    }
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    ([(ETAG, header), (CONTENT_TYPE, kind)], text).into_response()
}

/// The servers of a backend of a class. Only those with traffic are enabled. `weights` are those that differ from the declared ones.
fn configured(
    class: &str,
    backend: &str,
    servers: &[Arc<Server>],
    subsets: &Subsets,
    weights: &BTreeMap<EntryKey, u16>,
    now: Timestamp,
) -> Vec<ConfiguredServer> {
    let entries = servers.iter().flat_map(|server| entries_of_server(class, server, subsets.of(server), now));
    let of_backend = entries.filter(|(key, _)| key.backend == backend);
    let line = |(key, mut entry): (EntryKey, Entry)| {
        entry.weight = weights.get(&key).copied().unwrap_or(entry.weight);
        let server = new_server(&key, &entry)?;
        Some(ConfiguredServer { server, enabled: entry.phase == TrafficPhase::Serving })
    };
    of_backend.filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn server(name: &str, class: &str, phase: &str) -> Arc<Server> {
        let backends = json!([{"class": class, "name": "web", "port": 80}]);
        Arc::new(berth_testing::server(json!({
            "metadata": {"name": name},
            "spec": {"traffic": {"backends": backends}},
            "status": {"state": "Ready", "traffic": {"phase": phase, "backends": backends, "address": "10.0.0.1"}},
        })))
    }

    fn listed(servers: &[Arc<Server>], backend: &str, weights: &BTreeMap<EntryKey, u16>) -> Vec<ConfiguredServer> {
        configured("edge", backend, servers, &Subsets::default(), weights, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn a_backend_has_the_servers_of_its_class_and_only_those_with_traffic_are_enabled() {
        let servers = [server("a", "edge", "Serving"), server("b", "edge", "Held"), server("c", "other", "Serving")];
        let text = server_list("web", &listed(&servers, "web", &BTreeMap::new())).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(lines[1].contains(":a:") && !lines[1].ends_with("disabled"), "{text}");
        assert!(lines[2].contains(":b:") && lines[2].ends_with("disabled"), "{text}");
        assert_eq!(listed(&servers, "api", &BTreeMap::new()), []);
    }

    #[test]
    fn a_reload_keeps_the_weights_of_a_roll_out() {
        let servers = [server("a", "edge", "Serving"), server("b", "edge", "Serving")];
        let entries = entries_of_server("edge", &servers[0], Subsets::default().of(&servers[0]), Timestamp::UNIX_EPOCH);
        let weights = entries.into_keys().map(|key| (key, 0)).collect();
        let weights: Vec<u16> = listed(&servers, "web", &weights).iter().map(|line| line.server.weight).collect();
        assert_eq!(weights, [0, 100]);
    }
}
