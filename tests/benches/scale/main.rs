//! Whole fleets: how fast they become Ready and go, and what they cost at rest, on a real control plane and with simulated
//! machines that answer at once.
//!
//! The references are measured in the same run on the same control plane: kube-controller-manager's ReplicaSet, which creates as
//! many pods, and a bare client that sends the same writes through the same webhook. kube-apiserver collects garbage less often
//! than by default, for all measurements (`GOGC=400`, unless this process has the variable). Takes about ten minutes.
//! First comes what all of it costs kube-apiserver (see `cost.rs`); with `BERTH_BENCH_BASE` or `BERTH_BENCH_COST_ONLY`,
//! only that. At the end Servers come up behind an HAProxy (see `balancer.rs`); with `BERTH_BENCH_BALANCER_ONLY`, only that.
//! `BERTH_BENCH_SERVERS` sets the size of the fleet (default 1,000); the large fleet has five times as many Servers.
//! `BERTH_BENCH_SMOKE` makes everything as small and short as possible, only to show that the bench works.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a bench may panic")]
#![expect(clippy::cast_precision_loss, reason = "counts are small")]

mod balancer;
mod bare;
mod cost;
mod fleet;
mod meter;
mod reference;
mod three_fields;
mod usage;

use std::{collections::BTreeMap, time::Duration};

use berth_core::api::Server;
use berth_tests::{Berth, Options, Part};

use fleet::Fleet;
use usage::{Requests, Usage};

/// For how long writes and CPU time are measured at rest.
const REST: Duration = Duration::from_secs(20);
/// The same in a smoke test, which only shows that the bench works.
const SHORT_REST: Duration = Duration::from_secs(1);
/// Servers of the fleet, and in a smoke test.
const SIZE: usize = 1_000;
const SMOKE_SIZE: usize = 4;
/// The most writes per Server for other code, with a load balancer and without.
const WRITES_OF_CODE: f64 = 7.0;
const WRITES_OF_CODE_WITHOUT_BALANCER: f64 = 5.0;

fn is_smoke_test() -> bool {
    std::env::var_os("BERTH_BENCH_SMOKE").is_some()
}

fn main() {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(run());
}

async fn run() {
    let default = if is_smoke_test() { SMOKE_SIZE } else { SIZE };
    let size: usize = std::env::var("BERTH_BENCH_SERVERS").map_or(default, |n| n.parse().unwrap());
    println!("figure | value | reference | ratio | target");
    if std::env::var_os("BERTH_BENCH_BALANCER_ONLY").is_some() {
        balancer::run(size * 5).await;
        return;
    }
    cost::run().await;
    if cost::base().is_some() || std::env::var_os("BERTH_BENCH_COST_ONLY").is_some() {
        return;
    }
    let berth = Berth::start(options()).await.unwrap();
    say("pods of a ReplicaSet");
    let pods = reference::pods_per_second(&berth, size).await;
    let port = fleet::listen().await;
    let bench = ScaleBench { berth, size, port, pods };

    bench.smallest().await;
    let (mut fleet, up) = bench.becomes_ready().await;
    let model = bench.rests(&fleet).await;
    let code = bench.gets_other_code(&fleet, WRITES_OF_CODE).await;
    let with_other_code = fleet.one().await;
    let down = bench.goes(&mut fleet).await;
    fleet.delete().await;
    bench.other_code_without_balancer().await;
    bench.small_and_large().await;
    let imitated = bare::Imitated {
        model: &model,
        with_other_code: &with_other_code,
        up: &up.writes,
        code: &code.writes,
        down: &down.writes,
    };
    let bare = bench.bare_client(&imitated).await;
    at_least("writes per second on the way to Ready / bare client", up.writes_per_second(), bare.up, 0.6);
    at_least("writes per second of a roll-out / bare client", code.writes_per_second(), bare.code, 0.6);
    at_least("writes per second on the way out / bare client", down.writes_per_second(), bare.down, 0.6);
    bench.berth.stop().await.unwrap();
    balancer::run(size * 5).await;
}

/// A running Berth, and what is measured on it.
struct ScaleBench {
    berth: Berth,
    /// Servers of the fleet.
    size: usize,
    /// The port that probes of all machines connect to.
    port: u16,
    /// Pods of a ReplicaSet created per second.
    pods: f64,
}

/// The writes that a fleet cost until it was Ready or gone, and the time that this took.
struct FleetCost {
    writes: Requests,
    time: Duration,
}

impl FleetCost {
    fn writes_per_second(&self) -> f64 {
        self.writes.total() as f64 / self.time.as_secs_f64()
    }

    fn writes_per_server(&self, size: usize) -> f64 {
        self.writes.about_servers() as f64 / size as f64
    }
}

impl ScaleBench {
    async fn smallest(&self) {
        say("the smallest Servers");
        let smallest = fleet::smallest_per_second(&self.berth, self.size, self.port).await;
        at_least("smallest Servers created per second / smallest pods of a ReplicaSet", smallest, self.pods, 0.5);
    }

    async fn becomes_ready(&self) -> (Fleet, FleetCost) {
        say("a fleet comes");
        let before = Requests::of(&self.berth).await;
        let mut fleet = Fleet::declare(&self.berth, "fleet", self.size, self.port).await;
        let created = self.size as f64 / fleet.created().await.as_secs_f64();
        at_least("full Servers created per second / smallest pods of a ReplicaSet", created, self.pods, 0.5);
        let time = fleet.ready().await;
        let up = FleetCost { writes: Requests::of(&self.berth).await.since(&before), time };
        at_most("seconds until all are Ready", time.as_secs_f64(), 30.0);
        at_most("writes per Server on the way to Ready", up.writes_per_server(self.size), 12.0);
        let set_writes = fleet.set_writes_per_second();
        at_most("writes per second to the set's own status meanwhile", set_writes, 1.2);
        say(&up.writes.to_string());
        (fleet, up)
    }

    /// Returns one of the Servers.
    async fn rests(&self, fleet: &Fleet) -> Server {
        say("a fleet at rest");
        fleet.settled().await;
        let model = fleet.one().await;
        let (usage, writes) = (Usage::of(&self.berth), Requests::of(&self.berth).await);
        let rest = if is_smoke_test() { SHORT_REST } else { REST };
        tokio::time::sleep(rest).await;
        let resting = Usage::of(&self.berth).since(&usage);
        at_most("writes at rest", Requests::of(&self.berth).await.since(&writes).total() as f64, 0.0);
        let share = resting.cpu(Part::ReplicasetController) / rest.as_secs_f64() * 100.0;
        at_most("% of a core at rest, replicaset-controller", share, 1.0);
        model
    }

    /// Other code for all Servers at once.
    async fn gets_other_code(&self, fleet: &Fleet, limit: f64) -> FleetCost {
        say("other code");
        let before = Requests::of(&self.berth).await;
        let time = fleet.deploy("2").await;
        let code = FleetCost { writes: Requests::of(&self.berth).await.since(&before), time };
        fleet.settled().await;
        at_most("seconds until all have other code", time.as_secs_f64(), 30.0);
        at_most("writes per Server for other code", code.writes_per_server(self.size), limit);
        say(&code.writes.to_string());
        code
    }

    async fn other_code_without_balancer(&self) {
        say("a fleet without a load balancer");
        let mut fleet = Fleet::declare_without_balancer(&self.berth, "unbalanced", self.size, self.port).await;
        fleet.ready().await;
        fleet.settled().await;
        self.gets_other_code(&fleet, WRITES_OF_CODE_WITHOUT_BALANCER).await;
        fleet.delete().await;
    }

    async fn goes(&self, fleet: &mut Fleet) -> FleetCost {
        say("a fleet goes");
        let before = Requests::of(&self.berth).await;
        let time = fleet.scale_to_nothing().await;
        let down = FleetCost { writes: Requests::of(&self.berth).await.since(&before), time };
        at_most("writes per Server on the way out", down.writes_per_server(self.size), 8.0);
        say(&down.writes.to_string());
        down
    }

    async fn small_and_large(&self) {
        say("a small and a large fleet");
        let (few, many) = (self.size / 2, self.size * 5);
        let mut small = Fleet::declare(&self.berth, "small", few, self.port).await;
        let small_time = small.ready().await.as_secs_f64() / few as f64;
        small.delete().await;
        let empty = Usage::of(&self.berth);
        let mut large = Fleet::declare(&self.berth, "large", many, self.port).await;
        let large_time = large.ready().await.as_secs_f64() / many as f64;
        let name = format!("time per Server, {many} against {few}");
        row(
            &name,
            &ms(large_time),
            &ms(small_time),
            large_time / small_time,
            1.3,
            large_time <= small_time * 1.3,
            "<=",
        );
        let grown = Usage::of(&self.berth).memory(Part::ReplicasetController);
        let limit = 25.0 + 12.0 * many as f64 / 1024.0;
        say(&format!("replicaset-controller without Servers: {:.1} MB", empty.memory(Part::ReplicasetController)));
        at_most("MB resident, replicaset-controller with the large fleet", grown, limit);
        large.forget();
    }

    async fn bare_client(&self, imitated: &bare::Imitated<'_>) -> bare::Rates {
        say("a bare client");
        for part in Part::CONTROLLERS {
            self.berth.kill9(part).unwrap();
        }
        let bare = bare::writes_per_second(&self.berth, imitated, self.size).await;
        say(&format!(
            "the bare client created {:.0} Servers per second and needed {:.2} writes for each on the way to Ready",
            bare.created, bare.up_each
        ));
        bare
    }
}

fn options() -> Options {
    let simulated = || vec!["--simulated".to_owned()];
    let arguments =
        BTreeMap::from([(Part::ReplicasetController, simulated()), (Part::DeploymentController, simulated())]);
    let control_plane = berth_control_plane::ControlPlaneOptions {
        controller_manager_flags: vec!["--controllers=replicaset-controller".to_owned()],
        ..berth_control_plane::ControlPlaneOptions::default()
    };
    Options { control_plane, arguments, ..Options::default() }
}

fn say(what: &str) {
    eprintln!("scale: {what}");
}

fn ms(seconds: f64) -> String {
    format!("{:.2} ms", seconds * 1e3)
}

/// Prints a figure that must be at least `target` times its reference.
fn at_least(figure: &str, value: f64, reference: f64, target: f64) {
    let ratio = value / reference;
    row(figure, &format!("{value:.0}"), &format!("{reference:.0}"), ratio, target, ratio >= target, ">=");
}

/// Prints a figure that must not exceed `limit`.
fn at_most(figure: &str, value: f64, limit: f64) {
    let verdict = if value <= limit { "met" } else { "MISSED" };
    println!("{figure} | {value:.2} | - | - | <= {limit:.1}, {verdict}");
}

fn row(figure: &str, value: &str, reference: &str, ratio: f64, target: f64, met: bool, relation: &str) {
    let verdict = if met { "met" } else { "MISSED" };
    println!("{figure} | {value} | {reference} | {ratio:.2} | {relation} {target}, {verdict}");
}
