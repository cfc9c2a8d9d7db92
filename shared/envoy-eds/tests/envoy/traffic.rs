//! What becomes of requests while endpoints come, change and go.

use std::{net::SocketAddr, time::Duration};

use berth_envoy_eds::{
    EndpointTraffic::{Draining, Held, Serving},
    ProxyRules,
};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::lab::{Backend, Config, Lab, Load, ONE, SERVING, eventually, get};

/// Checks that of 2,000 requests each server gets its share, within two points.
async fn shares(lab: &Lab, percent: [f64; 4]) {
    let tally = lab.ask(2000).await;
    assert!(tally.failures.is_empty(), "{:?}", tally.failures);
    for (backend, percent) in lab.backends.iter().zip(percent) {
        let share = tally.share(&backend.name);
        assert!((share - percent).abs() <= 2.0, "{}: {share} % instead of {percent} %: {:?}", backend.name, tally.by);
    }
    println!("{percent:?} %: {:?}", tally.by);
}

#[tokio::test(flavor = "multi_thread")]
async fn shares_are_as_declared_when_endpoints_are_added_and_weights_change() {
    let lab = Lab::start(Config::recommended()).await;
    lab.apply(&lab.endpoints([10, 45, 45, 0], SERVING)).await;
    shares(&lab, [10.0, 45.0, 45.0, 0.0]).await;
    let load = Load::start(lab.proxy.listener().await);
    load.more(50).await;
    lab.apply(&lab.endpoints([10, 45, 45, 100], SERVING)).await;
    shares(&lab, [5.0, 22.5, 22.5, 50.0]).await;
    lab.apply(&lab.endpoints([1, 1, 1, 1], SERVING)).await;
    shares(&lab, [25.0; 4]).await;
    lab.apply(&lab.endpoints([1, 0, 1, 98], SERVING)).await;
    shares(&lab, [1.0, 0.0, 1.0, 98.0]).await;
    let tally = load.stop().await;
    assert!(tally.failures.is_empty(), "{:?}", tally.failures);
}

#[tokio::test(flavor = "multi_thread")]
async fn shares_are_as_declared_with_weighted_localities() {
    let weighted = json!({"common_lb_config": {"locality_weighted_lb_config": {}, "update_merge_window": "0s"}});
    let lab = Lab::start(Config { cluster: weighted, ..Config::recommended() }).await;
    // Zone a has the servers 1 and 3, zone b has 2 and 4.
    lab.apply(&lab.endpoints([10, 60, 10, 20], SERVING)).await;
    shares(&lab, [10.0, 60.0, 10.0, 20.0]).await;
    lab.apply(&lab.endpoints([10, 60, 10, 20], [Serving, Draining, Serving, Serving])).await;
    shares(&lab, [25.0, 0.0, 25.0, 50.0]).await;
}

/// By its documentation, Envoy merges changes of weight and health that follow each other within a second, after it has said that
/// it has applied them. Version 1.40 does so with the results of checks only: if this fails, [`ProxyRules::takes_effect`] is due.
#[tokio::test(flavor = "multi_thread")]
async fn a_drain_right_after_another_change_is_not_put_off_by_the_merge_window() {
    let rules = ProxyRules { takes_effect: Duration::ZERO, ..ONE };
    let defaults = json!({"ignore_health_on_host_removal": true});
    let lab = Lab::start_with(Config { cluster: defaults, ..Config::with_checks() }, rules).await;
    lab.apply(&lab.endpoints([1; 4], SERVING)).await;
    lab.takes_requests(&[1, 2, 3, 4]).await;
    let load = Load::start(lab.proxy.listener().await);
    for round in 2..5 {
        load.more(50).await;
        lab.apply(&lab.endpoints([1, 1, 1, round], SERVING)).await;
        lab.apply(&lab.endpoints([1, 1, 1, round], [Serving, Serving, Serving, Draining])).await;
        let before = lab.backends[3].requests();
        load.more(200).await;
        assert_eq!(lab.backends[3].requests(), before, "in round {round}");
        lab.apply(&lab.endpoints([1, 1, 1, round], SERVING)).await;
    }
    let tally = load.stop().await;
    assert!(tally.failures.is_empty(), "{:?}", tally.failures);
}

/// The slow requests at all servers.
fn waiting(lab: &Lab) -> usize {
    lab.backends.iter().map(Backend::waiting).sum()
}

/// Sends slow requests until web-4 has one of them. Returns the tasks that wait for the answers.
async fn slow_requests(lab: &Lab) -> Vec<JoinHandle<Result<String, String>>> {
    let address = lab.proxy.listener().await;
    let mut tasks = Vec::new();
    while lab.backends[3].waiting() == 0 {
        let seen: Vec<_> = lab.backends.iter().map(|backend| (backend.waiting(), backend.requests())).collect();
        assert!(tasks.len() < 40, "web-4 gets no slow request: {seen:?}\n{:?}", lab.proxy.admin.hosts("web").await);
        let before = waiting(lab);
        tasks.push(tokio::spawn(get_slowly(address)));
        eventually("the request arrives", async || if waiting(lab) > before { Ok(()) } else { Err(String::new()) })
            .await;
    }
    tasks
}

async fn get_slowly(address: SocketAddr) -> Result<String, String> {
    get(address, "/slow").await
}

/// How many requests to web-4 are in flight, by the proxy's account; none when it does not know that server.
async fn in_flight(lab: &Lab) -> Option<u64> {
    let hosts = lab.proxy.admin.hosts("web").await.unwrap();
    hosts.iter().find(|host| host.socket == lab.backends[3].address).map(|host| host.active_requests)
}

/// Answers the slow requests, and checks that none failed.
async fn finish(lab: &Lab, waiting: Vec<JoinHandle<Result<String, String>>>) {
    lab.backends.iter().for_each(Backend::release);
    for answer in waiting {
        answer.await.unwrap().unwrap();
    }
    lab.backends.iter().for_each(Backend::hold);
}

/// Drains web-4, takes it out and puts it back, and takes it out at once, with requests going on and requests in flight.
async fn comings_and_goings(config: Config) {
    let lab = Lab::start(config).await;
    let last = |traffic| lab.endpoints([1; 4], [Serving, Serving, Serving, traffic]);
    lab.apply(&last(Serving)).await;
    lab.takes_requests(&[1, 2, 3, 4]).await;
    let waiting = slow_requests(&lab).await;
    let load = Load::start(lab.proxy.listener().await);
    load.more(100).await;

    lab.apply(&last(Draining)).await;
    let before = lab.backends[3].requests();
    load.more(200).await;
    assert_eq!(lab.backends[3].requests(), before, "a draining endpoint gets no new request");
    assert!(in_flight(&lab).await.unwrap() >= 1, "the slow one is in flight");
    finish(&lab, waiting).await;
    eventually("web-4 is drained", async || match in_flight(&lab).await {
        Some(0) => Ok(()),
        other => Err(format!("{other:?} in flight")),
    })
    .await;

    lab.apply(&last(Held)).await;
    assert_eq!(in_flight(&lab).await, None, "Envoy no longer knows it");
    load.more(200).await;
    assert_eq!(lab.backends[3].requests(), before);

    lab.apply(&last(Serving)).await;
    lab.takes_requests(&[1, 2, 3, 4]).await;
    let waiting = slow_requests(&lab).await;
    lab.apply(&last(Serving)[..3]).await;
    let before = lab.backends[3].requests();
    load.more(200).await;
    assert_eq!(lab.backends[3].requests(), before, "an endpoint that was taken out gets no new request");
    finish(&lab, waiting).await;

    let tally = load.stop().await;
    println!("{} requests, {:?}", tally.answers(), tally.by);
    assert!(tally.failures.is_empty(), "{:?}", tally.failures);
}

#[tokio::test(flavor = "multi_thread")]
async fn drain_and_removal_lose_no_request() {
    comings_and_goings(Config::recommended()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn drain_and_removal_lose_no_request_with_active_checks() {
    comings_and_goings(Config::with_checks()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_recommended_option_a_removed_host_stays_known_and_gets_no_request() {
    let lab = Lab::start(Config {
        cluster: json!({"common_lb_config": {"update_merge_window": "0s"}}),
        ..Config::with_checks()
    })
    .await;
    lab.apply(&lab.endpoints([1; 4], SERVING)).await;
    lab.takes_requests(&[1, 2, 3, 4]).await;
    lab.apply(&lab.endpoints([1; 4], [Serving, Serving, Serving, Held])).await;
    let hosts = lab.proxy.admin.hosts("web").await.unwrap();
    let fourth = hosts.iter().find(|host| host.socket == lab.backends[3].address);
    println!("{fourth:?}");
    let tally = lab.ask(300).await;
    assert!(tally.failures.is_empty() && tally.share("web-4") < 0.1, "{tally:?}");
}

/// With its defaults, Envoy in panic does not care about health: <https://github.com/envoyproxy/envoy/issues/46800>.
async fn nobody_serves(config: Config) {
    let lab = Lab::start(config).await;
    lab.apply(&lab.endpoints([1; 4], SERVING)).await;
    lab.takes_requests(&[1, 2, 3, 4]).await;
    lab.apply(&lab.endpoints([1; 4], [Draining; 4])).await;
    let tally = lab.ask(40).await;
    // If this fails, Envoy has been mended, and held endpoints could be shown as draining.
    assert!(tally.failures.is_empty() && tally.by.len() == 4, "draining endpoints get requests in panic: {tally:?}");
    lab.apply(&lab.endpoints([1; 4], [Held; 4])).await;
    let before: usize = lab.backends.iter().map(Backend::requests).sum();
    let tally = lab.ask(40).await;
    assert_eq!(tally.failures.len(), 40, "{tally:?}");
    assert!(tally.failures.iter().all(|failure| failure.contains("503")), "{tally:?}");
    assert_eq!(lab.backends.iter().map(Backend::requests).sum::<usize>(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn held_endpoints_get_no_request_even_when_nobody_serves() {
    nobody_serves(Config::recommended()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn held_endpoints_get_no_request_even_when_nobody_serves_with_active_checks() {
    nobody_serves(Config::with_checks()).await;
}
