//! How many lives of Servers the simulated world plays in a second of one core, without faults and with some.
//!
//! A life is: created to Ready, new code in a roll-out, a machine that crashes and is replaced, retired. The reference is what a
//! program can do at best with an object: decode the JSON of a Server that is Ready.

#![expect(clippy::unwrap_used, reason = "a bench may panic")]
#![expect(clippy::cast_precision_loss, reason = "counts are small")]

use std::{
    fs,
    hint::black_box,
    time::{Duration, Instant},
};

use berth_core::api::Server;
use berth_sim::Lives;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Servers that live at the same time.
const SERVERS: usize = 100;
/// The same in a smoke test, which only shows that the bench works.
const SMOKE_SERVERS: usize = 5;
/// How long decoding is measured.
const DECODING: Duration = Duration::from_millis(300);

fn main() {
    let servers = if std::env::var_os("BERTH_BENCH_SMOKE").is_some() { SMOKE_SERVERS } else { SERVERS };
    println!("{servers} Servers in a set, one copy of each controller");
    println!("figure | value | reference | ratio | target");
    // What a process does once, such as reading the CRDs, is no part of a life.
    Lives { servers: 1, copies: 1, has_faults: false, counts_requests: false, seed: 1 }.live(|_, _| ()).unwrap();
    let mut decoded = 0.0;
    for (name, has_faults, target) in [("no faults", false, 200.0), ("faults", true, 50.0)] {
        let (begun, mut text) = (cpu(), String::new());
        let fleet = Lives { servers, copies: 1, has_faults, counts_requests: false, seed: 1 };
        let outcome = fleet.live(|chapter, world| {
            if chapter == "new code" {
                text = serde_json::to_string(&*world.servers()[0]).unwrap();
            }
        });
        outcome.unwrap();
        let rate = servers as f64 / cpu().saturating_sub(begun).as_secs_f64().max(0.01);
        if decoded == 0.0 {
            decoded = decodings(&text);
        }
        let verdict = if rate >= target { "met" } else { "MISSED" };
        println!(
            "lives a second, {name} | {rate:.1} | {decoded:.0} decoded Servers a second | {:.0} decoded Servers a life | >= {target:.0}, {verdict}",
            decoded / rate
        );
    }
}

/// How many Servers are decoded in a second.
fn decodings(text: &str) -> f64 {
    let (begun, mut count) = (Instant::now(), 0_u32);
    while begun.elapsed() < DECODING {
        black_box(serde_json::from_str::<Server>(black_box(text)).unwrap());
        count += 1;
    }
    f64::from(count) / begun.elapsed().as_secs_f64()
}

/// The CPU time of this process.
fn cpu() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    // Fields 14 and 15 of proc(5), in ticks of 10 ms.
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(10 * ticks)
}
