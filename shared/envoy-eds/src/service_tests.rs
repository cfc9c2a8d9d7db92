use super::*;
use crate::endpoint::EndpointTraffic;

fn endpoints(hosts: &[u8]) -> Vec<Endpoint> {
    let endpoint = |host: &u8| {
        let address = [127, 0, 1, *host].into();
        let traffic = EndpointTraffic::Serving;
        Endpoint { name: format!("web-{host}"), address, port: 80, weight: 1, traffic, zone: String::new() }
    };
    hosts.iter().map(endpoint).collect()
}

fn rules() -> ProxyRules {
    ProxyRules { takes_effect: Duration::ZERO, ..ProxyRules::default() }
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_with_the_request_that_acknowledges() {
    let service = EdsService::new(ProxyRules { expected: Some(1), ..rules() });
    let version = service.set("web", &endpoints(&[1])).unwrap();
    assert!(service.ask("web", "a", None, None).unwrap().is_some());
    let waiting = tokio::spawn({
        let (service, version) = (service.clone(), version.clone());
        async move { service.wait_acknowledged("web", &version, Duration::from_mins(1)).await }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!waiting.is_finished());
    let begin = Instant::now();
    assert!(service.ask("web", "a", Some(&version), None).unwrap().is_none());
    assert!(waiting.await.unwrap().unwrap().complete);
    assert_eq!(begin.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_when_all_proxies_have_had_the_time_to_ask() {
    let service = EdsService::new(rules());
    let version = service.set("web", &endpoints(&[1])).unwrap();
    let begin = Instant::now();
    service.ask("web", "a", Some(&version), None).unwrap();
    service.wait_acknowledged("web", &version, Duration::from_mins(1)).await.unwrap();
    assert_eq!(begin.elapsed(), Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_when_the_workers_act_on_the_version() {
    let service = EdsService::new(ProxyRules { expected: Some(1), ..ProxyRules::default() });
    let version = service.set("web", &endpoints(&[1])).unwrap();
    let begin = Instant::now();
    service.ask("web", "a", Some(&version), None).unwrap();
    service.wait_acknowledged("web", &version, Duration::from_mins(1)).await.unwrap();
    assert_eq!(begin.elapsed(), Duration::from_millis(1200));
}

#[tokio::test(start_paused = true)]
async fn a_wait_says_in_the_end_who_has_not_applied_it() {
    let service = EdsService::new(rules());
    let version = service.set("web", &endpoints(&[1])).unwrap();
    service.ask("web", "a", Some(&version), None).unwrap();
    service.ask("web", "b", None, None).unwrap();
    let error = service.wait_acknowledged("web", &version, Duration::from_secs(20)).await.unwrap_err();
    let expected = format!(
        "cluster `web`: not applied within 20s: 1 of 2 proxies have applied {version}; proxy `b` has applied nothing yet (it \
         asked 20000 ms ago)"
    );
    assert_eq!(error.to_string(), expected);
    let nobody = EdsService::new(rules());
    let version = nobody.set("web", &endpoints(&[1])).unwrap();
    let error = nobody.wait_acknowledged("web", &version, Duration::from_secs(20)).await.unwrap_err().to_string();
    assert!(error.contains("no proxy asks for this cluster: check the address of the EDS server"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_end_of_waiting_for_a_silent_proxy_lets_a_host_go() {
    let service = EdsService::new(ProxyRules { expected: Some(1), ..rules() });
    let both = service.set("web", &endpoints(&[1, 2])).unwrap();
    for proxy in ["a", "dead"] {
        service.ask("web", proxy, Some(&both), None).unwrap();
    }
    let one = service.set("web", &endpoints(&[1])).unwrap();
    let mut runs = Some(both);
    let asks = async {
        for _ in 0..130 {
            if let Some(body) = service.ask("web", "a", runs.as_ref(), None).unwrap() {
                let answer: serde_json::Value = serde_json::from_slice(&body).unwrap();
                runs = answer["version_info"].as_str().map(AssignmentVersion::of_request);
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let begin = Instant::now();
    let wait = async {
        service.wait_acknowledged("web", &one, Duration::from_secs(130)).await.unwrap();
        begin.elapsed()
    };
    let ((), took) = tokio::join!(biased; asks, wait);
    assert!(took >= Duration::from_mins(2) && took < Duration::from_secs(125), "{took:?}");
}

#[tokio::test]
async fn nothing_happens_when_the_same_endpoints_are_set_again() {
    let service = EdsService::new(rules());
    let version = service.set("web", &endpoints(&[1, 2])).unwrap();
    let changes = service.shared.changes.subscribe();
    assert_eq!(service.set("web", &endpoints(&[2, 1])).unwrap(), version);
    assert!(!changes.has_changed().unwrap());
    assert_ne!(service.set("web", &endpoints(&[1])).unwrap(), version);
    assert!(changes.has_changed().unwrap());
}

#[tokio::test]
async fn what_cannot_be_answered_is_said_in_words() {
    let service = EdsService::new(rules());
    let version = service.set("web", &endpoints(&[1])).unwrap();
    let error = service.acknowledged("api", &version).unwrap_err().to_string();
    assert!(error.contains("no endpoints have been set for cluster `api` (known: `web`)"), "{error}");
    let error = service.acknowledged("web", &AssignmentVersion::of_request("x")).unwrap_err().to_string();
    assert!(error.contains("version x of cluster `web` was not set in this process"), "{error}");
    let error = service.set("web", &endpoints(&[1, 1])).unwrap_err().to_string();
    assert!(
        error.starts_with("cannot serve cluster `web`: endpoints `web-1` and `web-1` are both 127.0.1.1:80"),
        "{error}"
    );
    assert!(service.acknowledged("web", &version).is_ok(), "what was set before is still served");
    service.forget("web");
    assert!(service.acknowledged("web", &version).unwrap_err().to_string().contains("(known: none)"));
}
