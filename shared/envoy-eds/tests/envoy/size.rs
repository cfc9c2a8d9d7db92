//! A large cluster.

use std::{net::Ipv4Addr, time::Instant};

use axum::body::Body;
use berth_envoy_eds::{Endpoint, EndpointTraffic, PATH};
use http::Request;
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

use crate::lab::{Config, Lab};

#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_endpoints_are_applied() {
    let lab = Lab::start(Config::recommended()).await;
    let endpoint = |number: u32| Endpoint {
        name: format!("web-{number}"),
        address: Ipv4Addr::from_bits(Ipv4Addr::new(127, 2, 0, 1).to_bits() + number).into(),
        port: 8080,
        weight: 100,
        traffic: EndpointTraffic::Serving,
        zone: format!("zone-{}", number % 3),
    };
    let mut endpoints: Vec<_> = (0..5000).map(endpoint).collect();
    for what in ["5,000 new endpoints", "one weight changed"] {
        endpoints[17].weight += 1;
        let begin = Instant::now();
        let version = lab.service.set("web", &endpoints).unwrap();
        let built = begin.elapsed();
        lab.applied(&version).await;
        println!("{what}: built in {built:?}, applied after {:?}", begin.elapsed());
        let asked = Instant::now();
        println!("the answer has {} bytes and came after {:?}", answer(&lab).await, asked.elapsed());
        let hosts = lab.proxy.admin.hosts("web").await.unwrap();
        assert_eq!(hosts.len(), 5000);
        assert!(hosts.iter().any(|host| host.weight == endpoints[17].weight));
    }
}

/// The length of the answer to a proxy that has nothing yet.
async fn answer(lab: &Lab) -> usize {
    let question = r#"{"node": {"id": "edge-1"}, "resource_names": ["web"]}"#;
    let request = Request::post(PATH).body(Body::from(question)).unwrap();
    let answer = lab.service.router().oneshot(request).await.unwrap();
    answer.into_body().collect().await.unwrap().to_bytes().len()
}
