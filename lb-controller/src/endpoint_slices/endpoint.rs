//! The endpoint of one Server: building and reading it. Pure.

use berth_core::api::TrafficPhase;
use k8s_openapi::api::{
    core::v1::ObjectReference,
    discovery::v1::{Endpoint, EndpointConditions},
};

use crate::member::ServerRef;

/// The endpoint of a Server. It records the version of the Server that was decided on, so that a decision on an older version
/// never replaces it.
pub(crate) fn build(server: &ServerRef, version: u64, address: &str, phase: TrafficPhase) -> Endpoint {
    Endpoint {
        addresses: vec![address.to_owned()],
        conditions: Some(conditions(phase)),
        target_ref: Some(ObjectReference {
            api_version: Some(format!("{}/{}", berth_core::GROUP, berth_core::VERSION)),
            kind: Some("Server".to_owned()),
            name: Some(server.name.clone()),
            namespace: Some(server.namespace.clone()),
            uid: Some(server.uid.clone()),
            resource_version: Some(version.to_string()),
            field_path: None,
        }),
        ..Endpoint::default()
    }
}

/// Draining is what Kubernetes shows of a Pod that terminates: no new connections, but open ones may finish.
fn conditions(phase: TrafficPhase) -> EndpointConditions {
    let (ready, serving, terminating) = match phase {
        TrafficPhase::Held => (false, false, false),
        TrafficPhase::Draining => (false, true, true),
        TrafficPhase::Serving => (true, true, false),
    };
    EndpointConditions { ready: Some(ready), serving: Some(serving), terminating: Some(terminating) }
}

/// The UID of the endpoint's Server; none for an endpoint that this program has not added.
pub(crate) fn uid(endpoint: &Endpoint) -> Option<&str> {
    endpoint.target_ref.as_ref().filter(|target| target.kind.as_deref() == Some("Server"))?.uid.as_deref()
}

/// Whether the endpoint gets traffic.
pub(crate) fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().is_some_and(|conditions| conditions.ready == Some(true))
}

/// The version of the Server that was decided on.
pub(crate) fn version(endpoint: &Endpoint) -> u64 {
    let target = endpoint.target_ref.as_ref();
    target.and_then(|target| target.resource_version.as_deref()).and_then(|v| v.parse().ok()).unwrap_or(0)
}

/// Whether two endpoints show the same, whatever version of the Server was decided on.
pub(crate) fn is_same(a: &Endpoint, b: &Endpoint) -> bool {
    let without_version = |endpoint: &Endpoint| {
        let mut endpoint = endpoint.clone();
        if let Some(target) = &mut endpoint.target_ref {
            target.resource_version = None;
        }
        endpoint
    };
    without_version(a) == without_version(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(version: u64, address: &str, phase: TrafficPhase) -> Endpoint {
        let server = ServerRef { namespace: "ns".into(), name: "web-0".into(), uid: "u".into() };
        build(&server, version, address, phase)
    }

    #[test]
    fn only_serving_is_ready() {
        for (phase, ready) in
            [(TrafficPhase::Held, false), (TrafficPhase::Draining, false), (TrafficPhase::Serving, true)]
        {
            assert_eq!(endpoint(1, "10.0.0.1", phase).conditions.unwrap().ready, Some(ready));
        }
    }

    #[test]
    fn endpoints_are_compared_by_all_but_the_version() {
        let held = endpoint(1, "10.0.0.1", TrafficPhase::Held);
        assert!(is_same(&held, &endpoint(2, "10.0.0.1", TrafficPhase::Held)));
        assert!(!is_same(&held, &endpoint(1, "10.0.0.2", TrafficPhase::Held)));
        assert!(!is_same(&held, &endpoint(1, "10.0.0.1", TrafficPhase::Draining)));
        assert_eq!((uid(&held), version(&held)), (Some("u"), 1));
        assert_eq!((uid(&Endpoint::default()), version(&Endpoint::default())), (None, 0));
    }
}
