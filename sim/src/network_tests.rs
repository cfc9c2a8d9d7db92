//! What faults do to single requests.

use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    api::{ListParams, Patch, PatchParams, PostParams, WatchParams},
    core::WatchEvent,
};
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use crate::{ApiServer, Dice, Faults, SimClock, faults::ActiveFaults, link::Link, network::Network};

/// An API server, a way to it with these faults, and a client at its end that waits for 10 s.
struct Lab {
    api: ApiServer,
    link: Link,
    maps: Api<ConfigMap>,
}

fn lab(faults: Faults) -> Lab {
    // Other tests of this process need the first use of hashers to be seeded.
    crate::randomness::seed_this_thread(1);
    let (api, link) = (ApiServer::new(SimClock::start(), None).unwrap(), Link::new());
    let network = Network {
        api: api.clone(),
        user: "ann".into(),
        dice: Dice::new(1),
        faults: ActiveFaults::new(faults),
        meter: crate::meter::Meter::default(),
        link: link.clone(),
        crash_point: crate::crash_point::CrashPoint::default(),
    };
    let client = Client::new(berth_runtime::with_timeouts(network.service(), Duration::from_secs(10)), "default");
    Lab { api, link, maps: Api::default_namespaced(client) }
}

fn map(name: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name}})).unwrap()
}

impl Lab {
    async fn create(&self, name: &str) -> kube::Result<ConfigMap> {
        self.maps.create(&PostParams::default(), &map(name)).await
    }

    /// The codes with which the API server has answered writes.
    fn answers(&self) -> Vec<String> {
        let log = self.api.log();
        let writes = log.iter().filter(|line| !line.contains(": GET "));
        writes.filter_map(|line| Some(line.rsplit_once("-> ")?.1.split(':').next()?.to_owned())).collect()
    }
}

fn code(result: kube::Result<ConfigMap>) -> u16 {
    match result.unwrap_err() {
        kube::Error::Api(status) => status.code,
        other => panic!("no answer of the API server: {other}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_repeated_write_arrives_twice_and_either_answer_is_seen() {
    let lab = lab(Faults { repeats: 1.0, ..Faults::default() });
    let mut seen = Vec::new();
    for n in 0..20 {
        seen.push(lab.create(&format!("m{n}")).await.map_or_else(|error| code(Err(error)), |_| 201));
    }
    assert_eq!(lab.answers(), ["201", "409"].repeat(20));
    assert!(seen.contains(&201) && seen.contains(&409), "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn a_write_that_times_out_has_its_effect() {
    let lab = lab(Faults { timeouts: 1.0, ..Faults::default() });
    let (mut answered, mut given_up) = (0, 0);
    for n in 0..20 {
        match lab.create(&format!("m{n}")).await.unwrap_err() {
            kube::Error::Api(status) if status.code == 504 => answered += 1,
            kube::Error::Service(_) => given_up += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(answered > 0 && given_up > 0, "{answered} were answered, {given_up} given up");
    sleep(Duration::from_mins(1)).await;
    assert_eq!(lab.answers(), ["201"].repeat(20));
}

#[tokio::test(start_paused = true)]
async fn a_contended_write_is_refused_without_effect() {
    let lab = lab(Faults { conflicts: 1.0, ..Faults::default() });
    assert_eq!(code(lab.create("m").await), 409);
    let patch = Patch::Merge(json!({"data": {"a": "b"}}));
    assert_eq!(code(lab.maps.patch("m", &PatchParams::default(), &patch).await), 409);
    assert!(lab.answers().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_busy_api_server_says_when_to_come_back() {
    let lab = lab(Faults { refusals: 1.0, ..Faults::default() });
    let mut codes: Vec<u16> = Vec::new();
    for n in 0..20 {
        codes.push(code(lab.create(&format!("m{n}")).await));
    }
    codes.sort_unstable();
    codes.dedup();
    assert_eq!(codes, [429, 500, 503]);
    assert!(lab.answers().is_empty());
    let busy = ApiServer::troubled(crate::apiserver::trouble::Trouble::IsBusy);
    assert_eq!(busy.headers()["retry-after"], "1");
}

#[tokio::test(start_paused = true)]
async fn what_refers_to_the_past_expires() {
    let lab = lab(Faults { expirations: 1.0, ..Faults::default() });
    for name in ["a", "b"] {
        lab.create(name).await.unwrap();
    }
    let page = lab.maps.list(&ListParams::default().limit(1)).await.unwrap();
    let next = ListParams::default().limit(1).continue_token(page.metadata.continue_.as_deref().unwrap());
    let error = lab.maps.list(&next).await.unwrap_err();
    assert!(matches!(&error, kube::Error::Api(status) if status.code == 410), "{error:?}");
    let version = page.metadata.resource_version.unwrap();
    let mut events = lab.maps.watch(&WatchParams::default(), &version).await.unwrap().boxed();
    let first = events.next().await.unwrap().unwrap();
    assert!(matches!(&first, WatchEvent::Error(status) if status.code == 410), "{first:?}");
    assert!(events.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_watch_is_behind_by_minutes() {
    let lab = lab(Faults { stuck_watches: 1.0, ..Faults::default() });
    let version = lab.create("a").await.unwrap().metadata.resource_version.unwrap();
    let params = WatchParams::default().timeout(290);
    let mut events = lab.maps.watch(&params, &version).await.unwrap().boxed();
    lab.create("b").await.unwrap();
    let begun = Instant::now();
    assert!(matches!(events.next().await.unwrap().unwrap(), WatchEvent::Added(_)));
    assert!(begun.elapsed() >= Duration::from_mins(1), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_a_hanging_copy_sends_leaves_it_when_it_goes_on() {
    let lab = lab(Faults::default());
    lab.link.set_hanging(true);
    let error = lab.create("a").await.unwrap_err();
    assert!(error.to_string().contains("did not answer within 10 s") || matches!(error, kube::Error::Service(_)));
    assert!(lab.answers().is_empty());
    lab.link.set_hanging(false);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(lab.answers(), ["201"]);
}

#[tokio::test(start_paused = true)]
async fn nothing_passes_while_the_api_server_is_out_of_reach() {
    let lab = lab(Faults::default());
    let version = lab.create("a").await.unwrap().metadata.resource_version.unwrap();
    let params = WatchParams::default().timeout(290);
    let mut events = lab.maps.watch(&params, &version).await.unwrap().boxed();
    lab.link.set_parted(true);
    lab.create("b").await.unwrap_err();
    let person = Api::<ConfigMap>::default_namespaced(lab.api.client("bob"));
    person.create(&PostParams::default(), &map("c")).await.unwrap();
    assert!(timeout(Duration::from_mins(1), events.next()).await.is_err());
    lab.link.set_parted(false);
    let Some(Ok(WatchEvent::Added(seen))) = events.next().await else { panic!("nothing is seen") };
    assert_eq!(seen.metadata.name.as_deref(), Some("c"));
    assert_eq!(lab.answers(), ["201", "201"], "what was sent in the meantime is lost");
}
