//! Measures what a review costs. Prints `figure | value | reference | ratio | target`:
//!
//! - time to decode, decide and encode a status write with object and oldObject of 6 KB each; the reference parses the same
//!   body into a `serde_json::Value`;
//! - requests per second over TLS and HTTP/2; the reference is an axum handler that echoes the same body. Each server is a
//!   process of its own, and the load generator shares the machine with it;
//! - CPU time of the server for a request, with the same reference;
//! - resident memory of the webhook afterwards.

#![expect(clippy::cast_precision_loss, reason = "counts and sizes of a bench are far below 2^52")]

mod load;
mod server;

use server::{BenchHandler, BenchServer};
use std::{error::Error, hint::black_box, process::ExitCode, time::Instant};

/// The allocator of the webhook; the echo server has the same.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A result whose error only goes to the terminal.
type BenchResult<T> = std::result::Result<T, Box<dyn Error>>;

/// Rounds of load on each server, in turn. The median counts, so that two disturbed rounds do no harm.
const ROUNDS: usize = 5;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let result = match arguments.iter().position(|a| a == server::ARGUMENT) {
        Some(at) => server::serve(arguments.get(at + 1).map_or("", String::as_str)),
        // `cargo test --benches` also starts benches, without this argument.
        None if arguments.iter().any(|a| a == "--bench") => measure(),
        None => Ok(()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether only to show that the bench works.
fn is_smoke_test() -> bool {
    std::env::var_os("BERTH_BENCH_SMOKE").is_some()
}

fn measure() -> BenchResult<()> {
    let body = load::review()?;
    println!("figure | value | reference | ratio | target");
    latency(&body)?;
    throughput(&body)
}

/// The median of several rounds, in microseconds for one call.
fn median_of_calls(mut call: impl FnMut()) -> f64 {
    let calls: u32 = if is_smoke_test() { 5 } else { 5_000 };
    let rounds = (0..9).map(|_| {
        let start = Instant::now();
        (0..calls).for_each(|_| call());
        start.elapsed().as_secs_f64() * 1e6 / f64::from(calls)
    });
    median(rounds.collect())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn latency(body: &[u8]) -> BenchResult<()> {
    let (ids, now) = (berth_core::identity::Identities::default(), load::now()?);
    let admission = webhook::admit::admit(body, &ids, now);
    if admission.response.patch.is_empty() || admission.transition.is_none_or(|(from, to)| from == to) {
        return Err(format!("the review should lead to a transition: {admission:?}").into());
    }
    let admit = median_of_calls(|| {
        black_box(webhook::admit::admit(black_box(body), &ids, now).response.encode());
    });
    let parse = median_of_calls(|| {
        black_box(serde_json::from_slice::<serde_json::Value>(black_box(body)).ok());
    });
    println!(
        "status write of {:.1} KB: decode, decide, encode | {admit:.1} us | parsing it into a tree: {parse:.1} us | {:.2} | under 100 us",
        body.len() as f64 / 1024.0,
        admit / parse
    );
    Ok(())
}

fn throughput(body: &[u8]) -> BenchResult<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (webhook, echo) = (BenchServer::start(BenchHandler::Webhook)?, BenchServer::start(BenchHandler::Echo)?);
    let (mut rates, mut cpu) = ([vec![], vec![]], [vec![], vec![]]);
    for round in 0..=ROUNDS {
        for (index, server) in [&webhook, &echo].into_iter().enumerate() {
            let before = server.cpu_seconds()?;
            let (count, seconds) = runtime.block_on(load::run(server, body))?;
            let used = server.cpu_seconds()? - before;
            // The first round warms up.
            if round > 0 {
                rates[index].push(count as f64 / seconds);
                cpu[index].push(used * 1e6 / count as f64);
            }
        }
    }
    let [served, echoed] = rates.map(median);
    println!(
        "requests over TLS and HTTP/2, {} at a time | {served:.0}/s | bare echo: {echoed:.0}/s | {:.2} | at least 0.40",
        load::CONNECTIONS * load::STREAMS,
        served / echoed
    );
    let [served, echoed] = cpu.map(median);
    println!(
        "CPU time of the server for a request | {served:.1} us | bare echo: {echoed:.1} us | {:.2} | -",
        served / echoed
    );
    let (served, echoed) = (webhook.resident_megabytes()?, echo.resident_megabytes()?);
    println!(
        "resident memory after that | {served:.1} MB | bare echo: {echoed:.1} MB | {:.2} | under 20 MB",
        served / echoed
    );
    Ok(())
}
