//! Many Servers in one backend of a real HAProxy: how long a decision takes until HAProxy shows it, and what lb-controller needs.

use std::time::{Duration, Instant};

use berth_core::api::BalancerClass;
use berth_testing::manifest;
use berth_tests::{Berth, HaProxy, Options, Part, free_address};
use kube::{Api, api::PostParams};
use serde_json::json;

use crate::{
    REST, SHORT_REST, at_most,
    fleet::{self, Fleet},
    is_smoke_test,
    meter::{label, value},
    options, say,
    usage::Usage,
};

/// Servers whose traffic is held and released for other code, in the midst of the others.
const CHANGED: usize = 100;
const SMOKE_CHANGED: usize = 2;
/// Times that the list of servers is read.
const READS: usize = 20;

/// Half of a core, in percent.
const CORE: f64 = 50.0;
/// Seconds from a decision until HAProxy shows it, at the 99th percentile.
const CHANGE: f64 = 1.0;
/// Milliseconds for the list of servers that a reload asks for.
const LIST: f64 = 50.0;

/// Brings `size` Servers up behind an HAProxy, and changes some of them.
pub(crate) async fn run(size: usize) {
    say(&format!("{size} Servers behind one HAProxy"));
    let haproxy = HaProxy::start().await.unwrap();
    let lists = free_address().unwrap();
    let mut options = options();
    options.arguments.insert(Part::LbController, vec![format!("--servers-address={lists}")]);
    let berth = Berth::start(Options { ..options }).await.unwrap();
    let spec = json!({"driver": "HAProxy", "haproxy": {"addresses": [haproxy.address()]}});
    let class: BalancerClass = serde_json::from_value(manifest("BalancerClass", "edge", spec)).unwrap();
    Api::all(berth.client()).create(&PostParams::default(), &class).await.unwrap();

    let mut fleet = Fleet::declare_behind_class(&berth, "balanced", size, fleet::listen().await, "edge").await;
    fleet.ready().await;
    fleet.settled().await;
    let rest = if is_smoke_test() { SHORT_REST } else { REST };
    let before = Usage::of(&berth);
    tokio::time::sleep(rest).await;
    share("at rest", &Usage::of(&berth).since(&before), rest);
    read_list(&format!("http://{lists}/haproxy/edge/web"), size).await;

    let changed = if is_smoke_test() { SMOKE_CHANGED } else { CHANGED };
    let (before, usage, begin) = (Buckets::of(&berth).await, Usage::of(&berth), Instant::now());
    fleet.deploy_to("2", changed).await;
    let took = begin.elapsed();
    share("while traffic is held and released", &Usage::of(&berth).since(&usage), took);
    let seen = Buckets::of(&berth).await.since(&before);
    say(&format!("{} changes in {took:.1?}", seen.count()));
    at_most(&format!("seconds until HAProxy with {size} servers shows a change, p99"), seen.quantile(0.99), CHANGE);
    fleet.forget();
    berth.stop().await.unwrap();
}

fn share(when: &str, usage: &Usage, time: Duration) {
    at_most(
        &format!("% of a core {when}, lb-controller"),
        usage.cpu(Part::LbController) / time.as_secs_f64() * 100.0,
        CORE,
    );
}

/// The longest time that the list of servers takes.
async fn read_list(url: &str, size: usize) {
    let mut longest = Duration::ZERO;
    for _ in 0..READS {
        let begin = Instant::now();
        let list = reqwest::get(url).await.unwrap().error_for_status().unwrap().text().await.unwrap();
        longest = longest.max(begin.elapsed());
        let servers = list.lines().filter(|line| line.trim_start().starts_with("server ")).count();
        assert_eq!(servers, size, "the list is not complete: {list:.1000}");
    }
    at_most(&format!("ms for a list of {size} servers, the longest of {READS}"), longest.as_secs_f64() * 1e3, LIST);
}

/// How many changes took at most so long, by that time in seconds.
struct Buckets(Vec<(f64, f64)>);

impl Buckets {
    async fn of(berth: &Berth) -> Self {
        let instance = berth.instance(Part::LbController, 1).unwrap();
        let metrics = berth.metrics(&instance).await.unwrap();
        let lines = metrics.lines().filter(|line| line.starts_with("berth_balancer_change_seconds_bucket"));
        let limit = |line: &str| match label(line, "le").unwrap() {
            "+Inf" => f64::INFINITY,
            seconds => seconds.parse().unwrap(),
        };
        Self(lines.map(|line| (limit(line), value(line))).collect())
    }

    fn since(&self, before: &Self) -> Self {
        Self(self.0.iter().zip(&before.0).map(|((limit, now), (_, then))| (*limit, now - then)).collect())
    }

    fn count(&self) -> f64 {
        self.0.last().map_or(0.0, |(_, count)| *count)
    }

    /// The limit of the bucket that so large a part of the changes is in.
    fn quantile(&self, part: f64) -> f64 {
        let enough = self.0.iter().find(|(_, count)| *count >= part * self.count());
        enough.map_or(f64::INFINITY, |(limit, _)| *limit)
    }
}
