//! Traffic that Servers were promised and do not get yet.
//!
//! The report that traffic is given comes before the write that gives it, and from then on the Server counts as serving: the budget
//! lets the next one be taken away. If that write fails, or the copy that owes it has died, clients would have one Server less
//! than the budget allows. So a write that takes traffic from a Server also gives what is owed to others. This copy knows of it: what
//! it takes was decided after the promise, and the watch shows changes in their order.

use std::{collections::BTreeSet, sync::Arc};

use berth_core::api::{Server, TrafficPhase};
use berth_runtime::resource_version;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use super::{
    endpoint,
    keys::ServiceKey,
    next_writes::{DesiredEndpoint, EndpointSpec},
};
use crate::member::{Registration, ServerRef};

/// What is owed to other Servers of the Service, if one of the desired changes takes traffic away. `find` gives the Server of an endpoint,
/// as the cache has it, and `promised` what load balancers should show of it.
pub(super) fn owed(
    service: &ServiceKey,
    slices: &[Arc<EndpointSlice>],
    desired: &[DesiredEndpoint],
    find: impl Fn(&Endpoint, &str) -> Option<Arc<Server>>,
    promised: impl Fn(&Server) -> Option<Registration>,
) -> Vec<DesiredEndpoint> {
    let taken: BTreeSet<&str> = desired.iter().filter(|d| !d.is_serving()).map(|d| d.server.uid.as_str()).collect();
    let endpoints = || slices.iter().flat_map(|slice| slice.endpoints.iter().flatten());
    let is_taken =
        |found: &Endpoint| endpoint::is_ready(found) && endpoint::uid(found).is_some_and(|uid| taken.contains(uid));
    if !endpoints().any(is_taken) {
        return Vec::new();
    }
    let changed: BTreeSet<&str> = desired.iter().map(|desired| desired.server.uid.as_str()).collect();
    let is_other = |found: &&Endpoint| endpoint::uid(found).is_some_and(|uid| !changed.contains(uid));
    let waiting = endpoints().filter(is_other).filter(|found| !endpoint::is_ready(found));
    let given = waiting.filter_map(|found| {
        let server = find(found, endpoint::uid(found)?)?;
        promise(service, found, &server, promised(&server)?)
    });
    given.collect()
}

/// The endpoint with traffic, if that is what the Server was promised. Another address is left to the Server's own reconcile: it might be
/// refused, and the change that takes traffic away must not fail because of that.
fn promise(
    service: &ServiceKey,
    found: &Endpoint,
    server: &Server,
    registration: Registration,
) -> Option<DesiredEndpoint> {
    if registration.phase != TrafficPhase::Serving {
        return None;
    }
    let backend = registration.services.iter().find(|backend| backend.name == service.name)?;
    let spec = EndpointSpec { backend: backend.clone(), address: registration.address, phase: TrafficPhase::Serving };
    let version = resource_version(server);
    let is_newest = endpoint::version(found) <= version;
    (is_newest && found.addresses == [spec.address.as_str()]).then(|| DesiredEndpoint {
        server: ServerRef::of(server),
        version,
        endpoint: Some(spec),
        must_record_version: false,
        held_for: None,
    })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;
    use serde_json::json;

    use super::*;
    use crate::{
        member::{ServiceBackend, ServicePort},
        plan,
        subsets::Belongs,
    };

    fn backend() -> ServiceBackend {
        ServiceBackend { name: "web".into(), ports: vec![ServicePort { name: "http".into(), port: 80 }], subset: None }
    }

    /// A Server whose traffic is in this phase, by its fact.
    fn server(name: &str, phase: &str) -> Server {
        let traffic = json!({"phase": phase, "address": format!("10.0.0.{}", name.len()), "backends": [{"service": "web", "port": 80, "portName": "http"}]});
        berth_testing::server(json!({
            "metadata": {"name": name, "resourceVersion": "7"},
            "status": {"state": "Ready", "observedGeneration": 1, "traffic": traffic},
        }))
    }

    fn endpoint(server: &Server, phase: TrafficPhase) -> Endpoint {
        endpoint::build(&ServerRef::of(server), 5, &format!("10.0.0.{}", server.name().len()), phase)
    }

    fn change(server: &Server, phase: TrafficPhase) -> DesiredEndpoint {
        DesiredEndpoint {
            server: ServerRef::of(server),
            version: 9,
            endpoint: Some(EndpointSpec { backend: backend(), address: "10.0.0.1".into(), phase }),
            must_record_version: false,
            held_for: None,
        }
    }

    fn owed_beside(servers: &[Server], endpoints: Vec<Endpoint>, desired: &[DesiredEndpoint]) -> Vec<DesiredEndpoint> {
        let slice = EndpointSlice { endpoints: Some(endpoints), ..EndpointSlice::default() };
        let find = |_: &Endpoint, uid: &str| servers.iter().find(|server| server.uid() == uid).cloned().map(Arc::new);
        let promised = |server: &Server| plan::desired(server, Timestamp::UNIX_EPOCH, Belongs::BOTH);
        owed(&ServiceKey::new("default", "web"), &[Arc::new(slice)], desired, find, promised)
    }

    #[test]
    fn whoever_takes_traffic_gives_what_was_promised_to_others() {
        let (taken, promised) = (server("a", "Serving"), server("bb", "Serving"));
        let (held, elsewhere) = (server("ccc", "Held"), server("dddd", "Serving"));
        let (mut moved, decided) = (endpoint(&elsewhere, TrafficPhase::Held), server("eeeee", "Serving"));
        moved.addresses = vec!["10.9.9.9".into()];
        let newer = endpoint::build(&ServerRef::of(&decided), 8, "10.0.0.5", TrafficPhase::Held);
        let endpoints = vec![
            endpoint(&taken, TrafficPhase::Serving),
            endpoint(&promised, TrafficPhase::Held),
            endpoint(&held, TrafficPhase::Held),
            moved,
            newer,
        ];
        let servers = [taken.clone(), promised.clone(), held, elsewhere, decided];
        let owed = |desired: &[DesiredEndpoint]| owed_beside(&servers, endpoints.clone(), desired);
        let given = owed(&[change(&taken, TrafficPhase::Draining)]);
        assert_eq!(given.iter().map(|given| given.server.name.as_str()).collect::<Vec<_>>(), ["bb"]);
        assert!(given[0].is_serving() && given[0].version == 7, "{given:?}");
        assert_eq!(owed(&[change(&taken, TrafficPhase::Serving)]), [], "nothing is taken");
        let both = [change(&taken, TrafficPhase::Draining), change(&promised, TrafficPhase::Held)];
        assert_eq!(owed(&both), [], "a newer decision is on its way");
    }
}
