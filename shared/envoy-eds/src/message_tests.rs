use serde_json::{Value, json};

use super::*;
use crate::endpoint::{Endpoint, EndpointTraffic};

fn endpoint(address: &str, weight: u32, traffic: EndpointTraffic, zone: &str) -> Endpoint {
    let address = address.parse().unwrap();
    Endpoint { name: "web".to_owned(), address, port: 80, weight, traffic, zone: zone.to_owned() }
}

fn answer(endpoints: &[Endpoint]) -> Answer {
    Answer::new("web", &Assignment::goal(endpoints)).unwrap()
}

#[test]
fn an_answer_has_the_shape_that_envoy_reads() {
    let answer = answer(&[
        endpoint("10.0.0.2", 30, EndpointTraffic::Serving, "a"),
        endpoint("fd00::1", 70, EndpointTraffic::Serving, "b"),
        endpoint("10.0.0.1", 50, EndpointTraffic::Draining, "a"),
        endpoint("10.0.0.9", 10, EndpointTraffic::Serving, "a"),
        endpoint("10.0.0.8", 10, EndpointTraffic::Held, "c"),
    ]);
    let host = |address: &str, health: &str, weight: u32| {
        let socket = json!({"socket_address": {"address": address, "port_value": 80}});
        json!({"endpoint": {"address": socket}, "health_status": health, "load_balancing_weight": weight})
    };
    let a = [host("10.0.0.1", "DRAINING", 1), host("10.0.0.2", "HEALTHY", 30), host("10.0.0.9", "HEALTHY", 10)];
    let expected = json!({
        "version_info": answer.version.to_string(),
        "type_url": TYPE_URL,
        "resources": [{
            "@type": TYPE_URL,
            "cluster_name": "web",
            "endpoints": [
                {"locality": {"zone": "a"}, "load_balancing_weight": 40, "lb_endpoints": a},
                {"locality": {"zone": "b"}, "load_balancing_weight": 70, "lb_endpoints": [host("fd00::1", "HEALTHY", 70)]},
            ],
        }],
    });
    assert_eq!(serde_json::from_slice::<Value>(&answer.body).unwrap(), expected);
}

#[test]
fn the_version_follows_from_what_is_sent_and_from_nothing_else() {
    let one = endpoint("10.0.0.1", 1, EndpointTraffic::Serving, "a");
    let two = endpoint("10.0.0.2", 1, EndpointTraffic::Serving, "a");
    let version = |endpoints: &[Endpoint]| answer(endpoints).version;
    let both = version(&[one.clone(), two.clone()]);
    assert_eq!(both, version(&[two.clone(), one.clone()]), "the order is not sent");
    assert_eq!(
        both,
        version(&[Endpoint { name: "renamed".to_owned(), ..one.clone() }, two.clone()]),
        "nor is the name"
    );
    for changed in [
        Endpoint { weight: 2, ..two.clone() },
        Endpoint { port: 81, ..two.clone() },
        Endpoint { zone: "b".to_owned(), ..two.clone() },
        Endpoint { traffic: EndpointTraffic::Draining, ..two.clone() },
        Endpoint { traffic: EndpointTraffic::Held, ..two },
    ] {
        assert_ne!(both, version(&[one.clone(), changed.clone()]), "{changed:?}");
    }
    assert_ne!(Answer::new("other", &Assignment::default()).unwrap().version, version(&[]), "nor in another cluster");
    // As written by earlier versions of this crate: a proxy must not be made to apply the same endpoints again by an upgrade.
    assert_eq!(version(&[one]).to_string(), "ea63262af9d949cd8e7858ddae3d58d0");
}

#[test]
fn a_request_is_read_in_both_spellings_of_its_fields() {
    for text in [
        r#"{"version_info":"v","node":{"id":"n","extensions":[{}]},"resource_names":["web"],"error_detail":{"code":3,"message":"bad"}}"#,
        r#"{"versionInfo":"v","node":{"id":"n"},"resourceNames":["web"],"errorDetail":{"message":"bad"},"responseNonce":"1"}"#,
    ] {
        let request: DiscoveryRequest = serde_json::from_str(text).unwrap();
        assert_eq!((request.version_info.as_str(), request.resource_names), ("v", vec!["web".to_owned()]));
        assert_eq!(
            (request.node.unwrap().id, request.error_detail.unwrap().message),
            ("n".to_owned(), "bad".to_owned())
        );
    }
}
