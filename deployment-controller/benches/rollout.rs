//! The plan of a roll-out over 10,000 Servers, in every kind of step: what is counted, decided and said at each reconcile of a VMDeployment,
//! and the next move. Every change of a Server leads to one, so it must not take long.

#![expect(clippy::unwrap_used, reason = "a bench may panic")]

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use berth_core::api::{Server, State, VMDeployment, VMReplicaSet};
use berth_runtime::{Change, ServerIndex};
use deployment_controller::plan::{desired_set, plan};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

/// Servers of the small and of the large VMDeployment, and rounds of measurement.
const SIZES: [usize; 3] = [1_000, 10_000, 15];
/// The same in a smoke test, which only shows that the bench works.
const SMOKE_SIZES: [usize; 3] = [10, 100, 2];
/// Servers of the set that is looked at beside others.
const SMALL_SET: usize = 10;
/// A look may cost so much more with ten times as many others beside the set: it costs the same, and figures vary.
const BESIDE: f64 = 1.2;
const MOST: Duration = Duration::from_millis(20);
const NOW: i64 = 1_000_000;

/// A VMDeployment that rolls this revision out, with this declaration of how.
fn deployment(replicas: usize, revision: &str, rollout: &Value) -> VMDeployment {
    let check = |name: &str| json!({"name": name, "source": "main", "query": "up", "condition": "> 0"});
    let mut declared = json!({"checks": [check("slo"), check("errors")]});
    declared.as_object_mut().unwrap().extend(rollout.as_object().unwrap().clone());
    berth_testing::deployment(json!({"metadata": {"generation": 2}, "spec": {
        "replicas": replicas, "app": {"revision": revision}, "updateStrategy": {"maxUnavailable": "10%"}, "rollout": declared,
    }}))
}

/// Servers in ten zones, so many of which have v2; a tenth of these is being deployed if the step that has its turn is about that.
fn servers(deployment: &VMDeployment, count: usize, updated: usize, is_deploying: bool) -> Vec<Server> {
    let revisions = ["v1", "v2"].map(|revision| {
        let mut app = deployment.spec.app.clone();
        app.revision = Some(revision.to_owned());
        app
    });
    let new = |n: usize| {
        let state = if is_deploying && n < updated && n.is_multiple_of(10) { State::Deploying } else { State::Ready };
        let mut server = berth_testing::server(json!({
            "metadata": {"name": format!("web-{n}"), "uid": format!("uid-{n}"), "generation": 1,
                "creationTimestamp": "1970-01-02T00:00:00Z",
                "labels": {"topology.kubernetes.io/zone": format!("zone-{}", n % 10)}},
            "status": {"state": state, "stateSince": "1970-01-02T00:00:00Z", "observedGeneration": 1},
        }));
        server.spec.app = Some(revisions[usize::from(n < updated)].clone());
        server
    };
    (0..count).map(new).collect()
}

/// One case: the declaration, the objects, and what is stored of the roll-out once nothing changes any more.
struct Case {
    deployment: VMDeployment,
    set: VMReplicaSet,
    servers: Vec<Server>,
}

impl Case {
    /// `step` is how many steps are done: others are being deployed only in the first one, because a step waits for them.
    fn new(count: usize, updated: usize, rollout: &Value, step: i32) -> Self {
        let now = Timestamp::from_second(NOW).unwrap();
        let mut deployment = deployment(count, "v2", rollout);
        let stable = berth_testing::deployment(json!({"spec": {"app": {"revision": "v1"}}})).spec.app;
        deployment.status = Some(serde_json::from_value(json!({"stableRevision": "v1", "stableApp": stable})).unwrap());
        let servers = servers(&deployment, count, updated, step == 0);
        let set = desired_set(&deployment);
        let mut case = Self { deployment, set, servers };
        for _ in 0..rollout["steps"].as_array().map_or(0, Vec::len) + 2 {
            let list: Vec<&Server> = case.servers.iter().collect();
            let (status, ..) = plan(&case.deployment, &case.set, &list, now);
            case.deployment.status = Some(status);
        }
        let done = case.deployment.status.as_ref().unwrap().rollout.as_ref().unwrap().steps_done;
        assert_eq!(done, step, "it is not in the step that is to be measured: {rollout}");
        case
    }

    /// How long one plan takes.
    fn measure(&self) -> Duration {
        let list: Vec<&Server> = self.servers.iter().collect();
        let begun = Instant::now();
        black_box(plan(&self.deployment, &self.set, &list, Timestamp::from_second(NOW).unwrap()));
        begun.elapsed()
    }

    /// Median of so many rounds, in milliseconds.
    fn median(&self, rounds: usize) -> f64 {
        let mut times: Vec<Duration> = (0..rounds).map(|_| self.measure()).collect();
        times.sort_unstable();
        times[rounds / 2].as_secs_f64() * 1e3
    }
}

/// How long it takes to find the Servers of a small set beside so many others and to plan its roll-out, in milliseconds.
fn beside(others: usize, rounds: usize) -> f64 {
    let case = Case::new(SMALL_SET, SMALL_SET / 2, &json!({}), 0);
    let index = ServerIndex::default();
    let follow = |uid: &str, mut server: Server| {
        let owner = json!([{"apiVersion": "berth.dev/v1alpha1", "kind": "VMReplicaSet", "name": "web", "uid": uid, "controller": true}]);
        server.metadata.owner_references = serde_json::from_value(owner).unwrap();
        index.follow(&Change::Present(Arc::new(server)));
    };
    let mut set = case.set.clone();
    set.metadata.uid = Some("ours".into());
    for (n, mut server) in servers(&case.deployment, others, 0, false).into_iter().enumerate() {
        server.metadata.name = Some(format!("other-{n}"));
        follow(&format!("other-{}", n / SMALL_SET), server);
    }
    for server in &case.servers {
        follow("ours", server.clone());
    }
    let mut times: Vec<Duration> = (0..rounds)
        .map(|_| {
            let begun = Instant::now();
            let found = index.of(&set);
            let list: Vec<&Server> = found.iter().map(AsRef::as_ref).collect();
            assert_eq!(list.len(), SMALL_SET);
            black_box(plan(&case.deployment, &case.set, &list, Timestamp::from_second(NOW).unwrap()));
            begun.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[rounds / 2].as_secs_f64() * 1e3
}

fn main() {
    let is_smoke_test = std::env::var_os("BERTH_BENCH_SMOKE").is_some();
    let [small_size, large_size, rounds] = if is_smoke_test { SMOKE_SIZES } else { SIZES };
    println!("plan and status of a roll-out, median of {rounds}");
    println!("figure | {large_size} Servers | {small_size} Servers (reference) | ratio | target");
    let alarms = json!({"source": "main", "names": ["A", "B"]});
    let spread = json!({"bakeSeconds": 900});
    // The figure, the declaration, how many of a hundred Servers have the new version, and how many steps are done.
    for (figure, rollout, updated, step) in [
        ("step servers", json!({"steps": [{"servers": "50%"}]}), 25, 0),
        ("step pause", json!({"steps": [{"servers": 0}, {"pause": {}}]}), 25, 1),
        ("step analysis", json!({"steps": [{"analysis": {"checks": ["slo", "errors"]}}]}), 25, 0),
        ("step approve", json!({"steps": [{"approve": {"evidence": ["slo"]}}]}), 25, 0),
        ("step bake", json!({"steps": [{"servers": 0}, {"bake": {"seconds": 600}}]}), 90, 1),
        ("step baseline", json!({"steps": [{"weight": 0}, {"baseline": {"servers": "25%"}}]}), 25, 1),
        ("step weight", json!({"steps": [{"weight": 10}]}), 0, 0),
        ("no steps", json!({}), 50, 0),
        ("checks in the background", json!({"background": {"checks": ["slo", "errors"]}}), 50, 0),
        ("alarms", json!({"alarms": alarms}), 50, 0),
        ("one zone at a time", json!({"spread": spread, "order": "Priority"}), 50, 0),
        (
            "all of it",
            json!({"steps": [{"servers": "50%"}], "background": {"checks": ["slo"]}, "spread": spread}),
            25,
            0,
        ),
    ] {
        let [short, long] =
            [small_size, large_size].map(|size| Case::new(size, size * updated / 100, &rollout, step).median(rounds));
        let verdict = if long <= MOST.as_secs_f64() * 1e3 { "met" } else { "MISSED" };
        println!(
            "{figure} | {long:.2} ms | {short:.3} ms | {:.1} | <= {} ms, {verdict}",
            long / short,
            MOST.as_millis()
        );
    }
    let rounds = rounds * SMALL_SET;
    let (few, many) = (beside(small_size, rounds), beside(large_size, rounds));
    let verdict = if many <= few * BESIDE { "met" } else { "MISSED" };
    println!(
        "the look at {SMALL_SET} Servers beside {large_size} others, and beside {small_size} | {many:.3} ms | {few:.3} ms | {:.2} | <= {BESIDE}, {verdict}",
        many / few
    );
}
