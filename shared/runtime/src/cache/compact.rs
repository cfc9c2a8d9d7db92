//! Objects in memory without what only people read.

use std::any::Any;

use berth_core::api::Server;

/// Takes the history off a Server: of these there are thousands.
pub(super) fn compact<K: Any>(object: &mut K) {
    let server = (object as &mut dyn Any).downcast_mut::<Server>();
    if let Some(status) = server.and_then(|server| server.status.as_mut()) {
        status.transitions = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;
    use serde_json::json;

    #[test]
    fn a_server_keeps_everything_but_its_history() {
        let mut server: Server = serde_json::from_value(json!({
            "apiVersion": "berth.dev/v1alpha1", "kind": "Server", "metadata": {"name": "web-0"}, "spec": {"machine": {"className": "c"}},
            "status": {"state": "Ready", "transitions": [{"at": "2026-01-01T00:00:00Z", "to": "Ready", "author": "a", "reason": "r"}]}
        }))
        .unwrap();
        let mut expected = server.clone();
        compact(&mut server);
        expected.status.as_mut().unwrap().transitions.clear();
        assert_eq!(serde_json::to_value(&server).unwrap(), serde_json::to_value(&expected).unwrap());
    }

    #[test]
    fn other_objects_stay_as_they_are() {
        let mut map = ConfigMap { immutable: Some(true), ..ConfigMap::default() };
        compact(&mut map);
        assert_eq!(map.immutable, Some(true));
    }
}
