//! What proxies do while the EDS server is away, knows nothing, or sends what they do not take.

use std::time::Duration;

use axum::{body::Body, middleware::map_response, response::Response};
use berth_envoy_eds::{EdsError, EdsService, ProxyRules};
use http_body_util::BodyExt as _;

use crate::lab::{Config, EdsServer, LONG, Lab, Load, ONE, Proxy, SERVING, eventually, get};

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_stay_while_the_server_is_away_and_when_it_knows_nothing() {
    let mut lab = Lab::start(Config::recommended()).await;
    let endpoints = lab.endpoints([1; 4], SERVING);
    let version = lab.apply(&endpoints).await;
    let load = Load::start(lab.proxy.listener().await);
    load.more(100).await;
    let updates = || async { lab.proxy.admin.updates("web-cluster").await.unwrap() };
    let before = updates().await;

    lab.server.kill();
    eventually("the proxy misses its server", async || {
        let now = updates().await;
        if now.failed >= before.failed + 2 { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await;
    load.more(200).await;

    let service = EdsService::new(ONE);
    let _server = EdsServer::start(service.router(), Some(lab.server.address()));
    let away = updates().await;
    eventually("the proxy is told that nothing is known", async || {
        let now = updates().await;
        if now.failed >= away.failed + 3 { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await;
    load.more(200).await;

    assert_eq!(service.set("web", &endpoints).unwrap(), version);
    service.wait_acknowledged("web", &version, LONG).await.unwrap();
    assert_eq!(updates().await.applied, before.applied, "the same endpoints are not sent again");
    let version = service.set("web", &endpoints[..3]).unwrap();
    service.wait_acknowledged("web", &version, LONG).await.unwrap();
    load.more(100).await;
    let tally = load.stop().await;
    println!("{} requests, {:?}", tally.answers(), tally.by);
    assert!(tally.failures.is_empty(), "{:?}", tally.failures);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_starts_without_an_endpoint_loses_no_request() {
    let mut lab = Lab::start(Config::with_checks()).await;
    let endpoints = lab.endpoints([1; 4], SERVING);
    lab.apply(&endpoints).await;
    lab.takes_requests(&[1, 2, 3, 4]).await;
    let load = Load::start(lab.proxy.listener().await);
    load.more(100).await;
    lab.server.kill();
    let service = EdsService::new(ONE);
    let _server = EdsServer::start(service.router(), Some(lab.server.address()));
    // That web-4 was there, this process cannot know, so it is left out at once.
    let version = service.set("web", &endpoints[..3]).unwrap();
    service.wait_acknowledged("web", &version, LONG).await.unwrap();
    lab.takes_requests(&[1, 2, 3]).await;
    let before = lab.backends[3].requests();
    load.more(200).await;
    assert_eq!(lab.backends[3].requests(), before);
    let tally = load.stop().await;
    assert!(tally.failures.is_empty(), "{:?}", tally.failures);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_proxy_takes_no_request_before_its_first_endpoints() {
    let lab = Lab::start(Config::recommended()).await;
    eventually("the proxy has asked", async || {
        let updates = lab.proxy.admin.updates("web-cluster").await.map_err(|error| error.to_string())?;
        if updates.failed >= 3 { Ok(()) } else { Err(format!("{updates:?}")) }
    })
    .await;
    let ready = lab.proxy.ready().await.unwrap_err();
    assert!(ready.contains("PRE_INITIALIZING"), "{ready}");
    lab.apply(&lab.endpoints([1; 4], SERVING)).await;
    let tally = lab.ask(100).await;
    assert!(tally.failures.is_empty() && tally.by.len() == 4, "{tally:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_waits_only_for_a_time_refuses_requests_until_it_has_endpoints() {
    let lab = Lab::start(Config { init_fetch_timeout: "0.5s", ..Config::recommended() }).await;
    let listener = lab.proxy.listener().await;
    let refused = get(listener, "/").await.unwrap_err();
    assert!(refused.contains("503") && refused.contains("no healthy upstream"), "{refused}");
    lab.apply(&lab.endpoints([1; 4], SERVING)).await;
    assert!(get(listener, "/").await.is_ok());
}

/// Puts a weight of 0 into an answer, which Envoy rejects.
async fn damage(answer: Response) -> Response {
    let (mut head, body) = answer.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let text = String::from_utf8(body.to_vec())
        .unwrap()
        .replace("\"load_balancing_weight\":77", "\"load_balancing_weight\":0");
    head.headers.remove("content-length");
    Response::from_parts(head, Body::from(text))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_update_is_told_and_changes_nothing() {
    let mut lab = Lab::start(Config::recommended()).await;
    lab.server.kill();
    let server = EdsServer::start(lab.service.router().layer(map_response(damage)), Some(lab.server.address()));
    let good = lab.apply(&lab.endpoints([1; 4], SERVING)).await;
    let load = Load::start(lab.proxy.listener().await);
    let bad = lab.service.set("web", &lab.endpoints([77, 1, 1, 1], SERVING)).unwrap();
    let status = eventually("the rejection is known", async || {
        let known = lab.service.acknowledged("web", &bad).map_err(|error| error.to_string())?;
        let status = known.has_not.into_iter().next().ok_or("nobody has asked")?;
        if status.rejection.is_some() { Ok(status) } else { Err(status.to_string()) }
    })
    .await;
    println!("{status}");
    assert_eq!((status.runs, status.id.as_str()), (Some(good), "edge-1"));
    let rejection = status.rejection.unwrap();
    assert!(rejection.version == bad && rejection.message.contains("the proxy's log says why"), "{rejection:?}");
    let updates = lab.proxy.admin.updates("web-cluster").await.unwrap();
    assert!(updates.rejected >= 2, "{updates:?}");
    let log = lab.proxy.log();
    assert!(log.contains("REST config for /v3/discovery:endpoints rejected"), "{log}");
    assert!(log.contains("LoadBalancingWeight: value must be greater than or equal to 1"), "{log}");
    let error = lab.service.wait_acknowledged("web", &bad, Duration::from_millis(300)).await.unwrap_err();
    assert!(error.to_string().contains("proxy `edge-1` rejects"), "{error}");

    drop(server);
    let _server = EdsServer::start(lab.service.router(), Some(lab.server.address()));
    let acknowledgement = lab.applied(&bad).await;
    assert_eq!(acknowledgement.has[0].rejection, None);
    let tally = load.stop().await;
    assert!(tally.failures.is_empty(), "{:?}", tally.failures);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_counts_when_every_proxy_has_applied_it() {
    let lab = Lab::start(Config::recommended()).await;
    let service = EdsService::new(ProxyRules { expected: Some(2), ..ONE });
    let server = EdsServer::start(service.router(), None);
    let first = Proxy::start("edge-1", server.address(), &Config::recommended()).await;
    let version = service.set("web", &lab.endpoints([1; 4], SERVING)).unwrap();
    let error = service.wait_acknowledged("web", &version, Duration::from_secs(1)).await.unwrap_err();
    assert!(error.to_string().contains("1 of 2 proxies have applied"), "{error}");
    let second = Proxy::start("edge-2", server.address(), &Config::recommended()).await;
    service.wait_acknowledged("web", &version, LONG).await.unwrap();

    second.signal("-STOP");
    let version = service.set("web", &lab.endpoints([1, 1, 1, 2], SERVING)).unwrap();
    let error = service.wait_acknowledged("web", &version, Duration::from_secs(1)).await.unwrap_err();
    assert!(error.to_string().contains("; proxy `edge-2` runs "), "{error}");
    let EdsError::TimedOut { acknowledgement, .. } = error else { panic!("{error}") };
    assert!(acknowledgement.has_not[0].silent_for >= Duration::from_millis(500), "{acknowledgement}");
    second.signal("-CONT");
    service.wait_acknowledged("web", &version, LONG).await.unwrap();
    assert!(first.ready().await.is_ok() && second.ready().await.is_ok());
}
