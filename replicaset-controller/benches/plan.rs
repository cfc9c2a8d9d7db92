//! Plan and status of a set of 5,000 Servers against a set of 500. Every change of a Server leads to a reconcile of its set, so
//! that it must cost the same per Server however many there are.

#![expect(clippy::unwrap_used, reason = "a bench may panic")]
#![expect(clippy::cast_precision_loss, reason = "counts are small")]

use std::{
    collections::BTreeSet,
    hint::black_box,
    time::{Duration, Instant},
};

use berth_core::api::{Server, VMReplicaSet};
use k8s_openapi::jiff::Timestamp;
use replicaset_controller::set::{
    drift_repair::DriftView,
    finding::MachineAnswers,
    plan::{PlanInput, SetLimits, plan},
    status::status,
    template::new_server,
    zone::FailureDomains,
};
use serde_json::json;

/// Servers of the small and of the large set, and rounds of measurement. They are measured in turns, so that a machine that is
/// busy for a while is so for both.
const SIZES: [usize; 3] = [500, 5_000, 40];
/// The same in a smoke test, which only shows that the bench works.
const SMOKE_SIZES: [usize; 3] = [5, 50, 2];
const MOST: f64 = 1.3;

fn now() -> Timestamp {
    Timestamp::from_second(1_000_000).unwrap()
}

/// A set whose template has ten packages of this version.
fn set(replicas: usize, version: &str) -> VMReplicaSet {
    let labels = json!({"app": "web", "tier": "front"});
    let package = |n| {
        let archive = json!({"url": format!("http://packages.example/{n}"), "sha256": "a".repeat(64)});
        json!({"name": format!("package-{n}"), "version": version, "archive": archive})
    };
    let packages: Vec<_> = (0..10).map(package).collect();
    let spec = json!({
        "machine": {"className": "c"}, "packages": packages, "healthCheck": {"httpGet": {"port": 80}},
        "traffic": {"backends": [{"service": "web", "port": 80}]}, "monitoring": {"port": 9100},
    });
    berth_testing::replica_set(json!({"metadata": {"name": "web", "namespace": "n", "uid": "u", "generation": 1},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }))
}

fn fleet(set: &VMReplicaSet, count: usize) -> Vec<Server> {
    let like = |ordinal: usize| {
        let mut server = serde_json::to_value(new_server(set, &format!("web-{ordinal}"))).unwrap();
        server["metadata"]["uid"] = format!("uid-{ordinal}").into();
        server["metadata"]["generation"] = 1.into();
        server["metadata"]["creationTimestamp"] = "1970-01-02T00:00:00Z".into();
        server["status"] = json!({"state": "Ready", "stateSince": "1970-01-02T00:00:00Z", "observedGeneration": 1});
        serde_json::from_value(server).unwrap()
    };
    (0..count).map(like).collect()
}

fn reconcile_once(set: &VMReplicaSet, servers: &[Server]) {
    let servers: Vec<&Server> = servers.iter().collect();
    let plan = plan(PlanInput {
        set,
        servers: &servers,
        now: now(),
        limits: SetLimits { creating: 50, replicas: 10_000, zone_brake: 40 },
        foreign_names: &BTreeSet::new(),
        no_machines: None,
        drift: &DriftView::default(),
        answers: &MachineAnswers::new(),
        domains: &FailureDomains::new(),
    });
    black_box(status(set, &servers, &plan, now()));
}

fn main() {
    let is_smoke_test = std::env::var_os("BERTH_BENCH_SMOKE").is_some();
    let [small_size, large_size, rounds] = if is_smoke_test { SMOKE_SIZES } else { SIZES };
    println!("plan and status of a set, time per Server, median of {rounds}");
    println!("figure | {large_size} Servers | {small_size} Servers (reference) | ratio | target");
    // Whether the Servers have an older template, how many of a hundred are there, and whether the ledger is full.
    for (figure, outdated, present, entered) in [
        ("at rest", false, 100, false),
        ("scaling out, half there", false, 50, false),
        ("a roll-out begins", true, 100, false),
        ("a roll-out under way, a quarter entered", true, 100, true),
    ] {
        let case = |size: usize| {
            let mut set = set(size, "2");
            let old = self::set(size, if outdated { "1" } else { "2" });
            if entered {
                let disturbed: Vec<_> =
                    (0..size / 4).map(|n| json!({"server": format!("web-{n}"), "axis": "Environment"})).collect();
                set.status = Some(serde_json::from_value(json!({"disturbed": disturbed})).unwrap());
            }
            let servers = fleet(&old, size * present / 100);
            (set, servers)
        };
        let (small, large) = (case(small_size), case(large_size));
        let (mut short, mut long) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let begun = Instant::now();
            (0..large_size / small_size).for_each(|_| reconcile_once(&small.0, &small.1));
            short.push(begun.elapsed());
            let begun = Instant::now();
            reconcile_once(&large.0, &large.1);
            long.push(begun.elapsed());
        }
        let per_server = |times: &mut Vec<Duration>| {
            times.sort_unstable();
            times[rounds / 2].as_secs_f64() * 1e9 / large_size as f64
        };
        let (short, long) = (per_server(&mut short), per_server(&mut long));
        let verdict = if long / short <= MOST { "met" } else { "MISSED" };
        println!("{figure} | {long:.0} ns | {short:.0} ns | {:.2} | <= {MOST}, {verdict}", long / short);
    }
}
