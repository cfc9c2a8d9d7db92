//! Whole fleets: how fast they become Ready and go, and what they cost at rest, on a real control plane and with simulated
//! machines that answer at once.
//!
//! The references are measured in the same run on the same control plane: kube-controller-manager's ReplicaSet, which creates as
//! many pods, and a bare client that sends the same writes through the same webhook. kube-apiserver collects garbage less often
//! than by default, for all measurements (`GOGC=400`, unless this process has the variable). Takes about six minutes.
//! `BERTH_BENCH_SERVERS` sets the size of the fleet (default 1,000); the large fleet has five times as many Servers.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a bench may panic")]
#![expect(clippy::cast_precision_loss, reason = "counts are small")]

mod bare;
mod fleet;
mod reference;
mod usage;

use std::{collections::BTreeMap, time::Duration};

use berth_tests::{Berth, Options, Part};

use fleet::Fleet;
use usage::{Usage, Writes};

/// For how long writes and CPU time are measured at rest.
const REST: Duration = Duration::from_secs(20);

fn main() {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(run());
}

async fn run() {
    let size: usize = std::env::var("BERTH_BENCH_SERVERS").map_or(1_000, |n| n.parse().unwrap());
    let berth = start().await;
    println!("figure | value | reference | ratio | target");
    say("pods of a ReplicaSet");
    let pods = reference::pods_per_second(&berth, size).await;

    say("the smallest Servers");
    let port = fleet::listen().await;
    let smallest = fleet::smallest_per_second(&berth, size, port).await;
    at_least("smallest Servers created per second / smallest pods of a ReplicaSet", smallest, pods, 0.5);

    say("a fleet comes");
    let before = Writes::of(&berth).await;
    let mut fleet = Fleet::declare(&berth, "fleet", size, port).await;
    let created = fleet.created().await;
    at_least(
        "full Servers created per second / smallest pods of a ReplicaSet",
        size as f64 / created.as_secs_f64(),
        pods,
        0.5,
    );
    let ready = fleet.ready().await;
    let up = Writes::of(&berth).await.since(&before);
    at_most("seconds until all are Ready", ready.as_secs_f64(), 30.0);
    at_most("writes per Server on the way to Ready", up.about_servers() as f64 / size as f64, 12.0);
    let set_writes = fleet.set_writes_per_second();
    at_most("writes per second to the set's own status meanwhile", set_writes, 1.2);
    say(&format!("{up}"));

    say("a fleet at rest");
    fleet.settled().await;
    let model = fleet.one().await;
    let (usage, writes) = (Usage::of(&berth), Writes::of(&berth).await);
    tokio::time::sleep(REST).await;
    let resting = Usage::of(&berth).since(&usage);
    at_most("writes at rest", Writes::of(&berth).await.since(&writes).total() as f64, 0.0);
    let share = resting.cpu(Part::ReplicasetController) / REST.as_secs_f64() * 100.0;
    at_most("% of a core at rest, replicaset-controller", share, 1.0);

    say("a fleet goes");
    let before = Writes::of(&berth).await;
    let gone = fleet.scale_to_nothing().await;
    let down = Writes::of(&berth).await.since(&before);
    at_most("writes per Server on the way out", down.about_servers() as f64 / size as f64, 8.0);
    say(&format!("{down}"));
    fleet.delete().await;

    say("a small and a large fleet");
    let mut small = Fleet::declare(&berth, "small", size / 2, port).await;
    let small_time = small.ready().await.as_secs_f64() / (size / 2) as f64;
    small.delete().await;
    let empty = Usage::of(&berth);
    let mut large = Fleet::declare(&berth, "large", size * 5, port).await;
    let large_time = large.ready().await.as_secs_f64() / (size * 5) as f64;
    let name = format!("time per Server, {} against {}", size * 5, size / 2);
    row(&name, &ms(large_time), &ms(small_time), large_time / small_time, 1.3, large_time <= small_time * 1.3, "<=");
    let grown = Usage::of(&berth).memory(Part::ReplicasetController);
    let limit = 25.0 + 12.0 * (size * 5) as f64 / 1024.0;
    say(&format!("replicaset-controller without Servers: {:.1} MB", empty.memory(Part::ReplicasetController)));
    at_most("MB resident, replicaset-controller with the large fleet", grown, limit);
    large.forget();

    say("a bare client");
    for part in Part::CONTROLLERS {
        berth.kill9(part).unwrap();
    }
    let bare = bare::writes_per_second(&berth, &model, size, &up, &down).await;
    say(&format!(
        "the bare client created {:.0} Servers per second and needed {:.2} writes for each on the way to Ready",
        bare.created, bare.up_each
    ));
    at_least(
        "writes per second on the way to Ready / bare client",
        up.total() as f64 / ready.as_secs_f64(),
        bare.up,
        0.6,
    );
    at_least(
        "writes per second on the way out / bare client",
        down.total() as f64 / gone.as_secs_f64(),
        bare.down,
        0.6,
    );
    berth.stop().await.unwrap();
}

async fn start() -> Berth {
    let simulated = || vec!["--simulated".to_owned()];
    let arguments =
        BTreeMap::from([(Part::ReplicasetController, simulated()), (Part::DeploymentController, simulated())]);
    let control_plane = berth_control_plane::ControlPlaneOptions {
        controller_manager_flags: vec!["--controllers=replicaset-controller".to_owned()],
        ..berth_control_plane::ControlPlaneOptions::default()
    };
    Berth::start(Options { control_plane, arguments, ..Options::default() }).await.unwrap()
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
