//! One endpoint: what it says of a Server, and how it is read. Pure.

use berth_core::api::TrafficPhase;
use k8s_openapi::api::{
    core::v1::ObjectReference,
    discovery::v1::{Endpoint, EndpointConditions},
};

/// Which Server, as of which version of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Who {
    /// Its namespace.
    pub(crate) namespace: String,
    /// Its name.
    pub(crate) name: String,
    /// Its UID: a later Server of the same name is another one.
    pub(crate) uid: String,
    /// The `resourceVersion` of the Server that was decided upon. An endpoint remembers it, and what was decided on
    /// an older version never replaces what was decided on a newer one.
    pub(crate) version: u64,
}

/// The endpoint of a Server.
pub(crate) fn build(who: &Who, address: &str, phase: TrafficPhase) -> Endpoint {
    Endpoint {
        addresses: vec![address.to_owned()],
        conditions: Some(conditions(phase)),
        target_ref: Some(ObjectReference {
            api_version: Some(format!("{}/{}", berth_core::GROUP, berth_core::VERSION)),
            kind: Some("Server".to_owned()),
            name: Some(who.name.clone()),
            namespace: Some(who.namespace.clone()),
            uid: Some(who.uid.clone()),
            resource_version: Some(who.version.to_string()),
            field_path: None,
        }),
        ..Endpoint::default()
    }
}

/// Held: neither ready nor serving. Draining: as Kubernetes marks a Pod that is terminating, so that open connections
/// may finish. Serving: ready.
fn conditions(phase: TrafficPhase) -> EndpointConditions {
    let (ready, serving, terminating) = match phase {
        TrafficPhase::Held => (false, false, false),
        TrafficPhase::Draining => (false, true, true),
        TrafficPhase::Serving => (true, true, false),
    };
    EndpointConditions { ready: Some(ready), serving: Some(serving), terminating: Some(terminating) }
}

/// The UID of the endpoint's Server; nothing when it is not one of ours.
pub(crate) fn uid(endpoint: &Endpoint) -> Option<&str> {
    endpoint.target_ref.as_ref().filter(|target| target.kind.as_deref() == Some("Server"))?.uid.as_deref()
}

/// The version of the Server that the endpoint was decided upon.
pub(crate) fn version(endpoint: &Endpoint) -> u64 {
    let target = endpoint.target_ref.as_ref();
    target.and_then(|target| target.resource_version.as_deref()).and_then(|v| v.parse().ok()).unwrap_or(0)
}

/// Whether two endpoints say the same, whatever version they were decided upon.
pub(crate) fn same(a: &Endpoint, b: &Endpoint) -> bool {
    let timeless = |endpoint: &Endpoint| {
        let mut endpoint = endpoint.clone();
        if let Some(target) = &mut endpoint.target_ref {
            target.resource_version = None;
        }
        endpoint
    };
    timeless(a) == timeless(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(version: u64) -> Who {
        Who { namespace: "ns".into(), name: "web-0".into(), uid: "u".into(), version }
    }

    #[test]
    fn only_serving_is_ready() {
        for (phase, ready) in
            [(TrafficPhase::Held, false), (TrafficPhase::Draining, false), (TrafficPhase::Serving, true)]
        {
            assert_eq!(build(&who(1), "10.0.0.1", phase).conditions.unwrap().ready, Some(ready));
        }
    }

    #[test]
    fn the_version_does_not_make_a_difference_but_everything_else_does() {
        let held = build(&who(1), "10.0.0.1", TrafficPhase::Held);
        assert!(same(&held, &build(&who(2), "10.0.0.1", TrafficPhase::Held)));
        assert!(!same(&held, &build(&who(1), "10.0.0.2", TrafficPhase::Held)));
        assert!(!same(&held, &build(&who(1), "10.0.0.1", TrafficPhase::Draining)));
        assert_eq!((uid(&held), version(&held)), (Some("u"), 1));
        assert_eq!((uid(&Endpoint::default()), version(&Endpoint::default())), (None, 0));
    }
}
