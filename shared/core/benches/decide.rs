//! How long a decision takes, and a whole status write, on a typical Server. Prints `figure | value | reference | ratio | target`.

#![expect(clippy::expect_used, reason = "a bench fails by panicking")]

use std::{hint::black_box, time::Instant};

use berth_core::{
    api::{Executor, Server},
    identity::{Author, Identities},
    lifecycle::{admit_status, decide},
};
use k8s_openapi::jiff::Timestamp;
use serde_json::json;

fn typical() -> Server {
    let package = |name: &str| {
        json!({"name": name, "version": "1.2.3",
            "archive": {"url": format!("http://artifacts.example/{name}.tgz"), "sha256": "a".repeat(64)}})
    };
    let installed = |name: &str| json!({"name": name, "version": "1.2.3", "sha256": "a".repeat(64)});
    let mut server = berth_testing::server(json!({
        "metadata": {"generation": 3},
        "spec": {
            "machine": {"className": "local"},
            "packages": [package("runtime"), package("theme")],
            "app": {"name": "web", "revision": "r1", "command": "./run",
                "artifact": {"url": "http://artifacts.example/web.tgz", "sha256": "b".repeat(64)}},
            "healthCheck": {"httpGet": {"port": 8080, "path": "/healthz"}},
            "traffic": {"backends": [{"service": "web", "port": 8080}]},
            "monitoring": {"port": 9100}
        },
        "status": {
            "state": "Deploying", "epoch": 4, "firstTaskID": 4, "lastTaskID": 5,
            "machine": {"phase": "Running", "id": "m1", "address": "10.0.0.1", "bootID": "b1"},
            "environment": {"verified": true, "packages": [installed("runtime"), installed("theme")]},
            "app": {"revision": "r1", "verified": true},
            "traffic": {"phase": "Held", "backends": [{"service": "web", "port": 8080}], "address": "10.0.0.1"},
            "health": {"state": "Healthy", "epoch": 4, "since": "2026-01-01T00:00:00Z"}
        }
    }));
    // The declared application is the one that runs.
    let digest = server.spec.app_digest().expect("an application");
    server.status.as_mut().and_then(|status| status.app.as_mut()).expect("a fact about the application").digest =
        digest;
    server
}

/// The median of several rounds, in nanoseconds for one call.
fn measure(mut call: impl FnMut()) -> f64 {
    // A smoke test only shows that the bench works.
    let calls: u32 = if std::env::var_os("BERTH_BENCH_SMOKE").is_some() { 10 } else { 10_000 };
    let mut rounds: Vec<f64> = (0..9)
        .map(|_| {
            let start = Instant::now();
            (0..calls).for_each(|_| call());
            start.elapsed().as_secs_f64() * 1e9 / f64::from(calls)
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    rounds[rounds.len() / 2]
}

fn main() {
    let server = typical();
    let ids = Identities::default();
    let author = Author::new(ids.username(Executor::MonitorController));
    let now = Timestamp::from_second(1_800_000_000).expect("a time");
    let clone = measure(|| {
        black_box(black_box(&server).clone());
    });
    let decision = measure(|| {
        black_box(decide(black_box(&server)));
    });
    let write = measure(|| {
        let _ = black_box(admit_status(&server, black_box(&server).clone(), &author, &ids, now));
    });
    let row = |figure: &str, nanoseconds: f64, target: &str| {
        println!(
            "{figure} | {:.2} us | copying the Server: {:.2} us | {:.2} | {target}",
            nanoseconds / 1e3,
            clone / 1e3,
            nanoseconds / clone
        );
    };
    row("decide on a typical Server", decision, "under 10 us");
    row("a whole status write (guard, decide, tasks, summary)", write, "-");
}
