//! What a class should show when this copy of the program begins to follow it, for load balancers that ask for it.

use std::{collections::BTreeMap, sync::Arc};

use berth_core::api::{Server, TrafficPhase};
use berth_runtime::{ApiError, Backoff, Guarded};
use k8s_openapi::jiff::Timestamp;
use kube::{Api, api::ListParams};

use super::{
    driver::{Entry, EntryKey},
    shared::Shared,
    view::entries_of,
};
use crate::{
    member::ServerRef,
    plan::{Seen, plan},
    subsets::Belongs,
};

/// Reads it from the API server, until that succeeds. The cache may be older than what the copy in charge before has reported.
pub(super) async fn entries(shared: &Shared, class: &str) -> BTreeMap<EntryKey, Entry> {
    let api = Api::<Guarded<Server>>::all(shared.ctx.client.clone());
    let mut failures = 0;
    loop {
        let listed = api.list(&ListParams::default()).await.map_err(ApiError::doing("list the Servers"));
        match listed {
            Ok(list) => {
                let now = shared.ctx.clock.now();
                let servers: Vec<_> = list.items.into_iter().filter_map(|server| server.0.ok()).map(Arc::new).collect();
                let wanted = servers.iter().flat_map(|server| wanted(class, server, shared.subsets.of(server), now));
                let mut entries: BTreeMap<EntryKey, Entry> = wanted.collect();
                for (key, weight) in shared.weights(class, &servers, now) {
                    entries.entry(key).and_modify(|entry| entry.weight = weight);
                }
                return entries;
            }
            Err(error) => tracing::warn!(%error, class, "the class is not served before all Servers are known"),
        }
        failures += 1;
        tokio::time::sleep(Backoff::CALL.delay(failures)).await;
    }
}

/// What the class should show of a Server. A sick or silent one keeps its traffic: whether it may lose it is decided together with the
/// others of its backend.
fn wanted(class: &str, server: &Server, belongs: Belongs, now: Timestamp) -> BTreeMap<EntryKey, Entry> {
    let plan = plan(server, Seen { now, is_idle: false, belongs });
    let mut desired = plan.desired;
    if plan.held_for.is_some()
        && let Some(desired) = &mut desired
    {
        desired.phase = TrafficPhase::Serving;
    }
    entries_of(class, &ServerRef::of(server), desired.as_ref())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn phases(state: &str, phase: &str) -> Vec<TrafficPhase> {
        let backends = json!([{"class": "edge", "name": "web", "port": 80}]);
        let server = berth_testing::server(json!({
            "spec": {"traffic": {"backends": backends, "drain": {"seconds": 30}}},
            "status": {"state": state, "traffic": {"phase": phase, "backends": backends, "address": "10.0.0.1"}},
        }));
        assert!(wanted("other", &server, Belongs::BOTH, Timestamp::UNIX_EPOCH).is_empty());
        wanted("edge", &server, Belongs::BOTH, Timestamp::UNIX_EPOCH).into_values().map(|entry| entry.phase).collect()
    }

    #[test]
    fn a_server_begins_with_what_it_was_promised() {
        assert_eq!(phases("Ready", "Serving"), [TrafficPhase::Serving]);
        assert_eq!(phases("Ready", "Held"), [TrafficPhase::Held]);
        assert_eq!(phases("Offline", "Serving"), [TrafficPhase::Draining], "that is deliberate");
    }

    #[test]
    fn whether_a_silent_server_may_go_is_not_decided_here() {
        assert_eq!(
            phases("Unknown", "Serving"),
            [TrafficPhase::Serving],
            "it is decided with the others of its backend"
        );
        assert_eq!(phases("Unknown", "Held"), [TrafficPhase::Held], "that was decided");
    }
}
