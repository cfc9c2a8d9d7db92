//! What a review costs. Prints `figure | value | reference | ratio | target`:
//!
//! - a status write with object and oldObject of 6 KB each, decoded, decided and encoded; beside parsing the same body
//!   into a `serde_json::Value`;
//! - requests per second over TLS and HTTP/2, beside a bare axum handler that echoes the same body over the same
//!   listener; each server is a process of its own, and the load generator shares the machine with it;
//! - CPU time that the server alone takes for a request, beside the same;
//! - resident memory of the webhook after that.

#![expect(clippy::cast_precision_loss, reason = "counts and sizes of a bench are far below 2^52")]

mod load;
mod subject;

use std::{error::Error, hint::black_box, process::ExitCode, time::Instant};
use subject::{Kind, Subject};

/// The webhook's own; the echo has the same.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Rounds of load on each server, in turn; the median counts.
const ROUNDS: usize = 5;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let result = match arguments.iter().position(|a| a == subject::ARGUMENT) {
        Some(at) => subject::serve(arguments.get(at + 1).map_or("", String::as_str)),
        // `cargo test --benches` starts benches, too, without this argument.
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

fn measure() -> Result<()> {
    let body = load::review()?;
    println!("figure | value | reference | ratio | target");
    latency(&body)?;
    throughput(&body)
}

/// The median of several rounds, in microseconds for one call.
fn median_of_calls(mut call: impl FnMut()) -> f64 {
    const CALLS: u32 = 5_000;
    let rounds = (0..9).map(|_| {
        let start = Instant::now();
        (0..CALLS).for_each(|_| call());
        start.elapsed().as_secs_f64() * 1e6 / f64::from(CALLS)
    });
    median(rounds.collect())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn latency(body: &[u8]) -> Result<()> {
    let (ids, now) = (berth_core::identity::Identities::default(), load::now()?);
    let verdict = webhook::admit::admit(body, &ids, now);
    if verdict.answer.patch.is_empty() || verdict.transition.is_none_or(|(from, to)| from == to) {
        return Err(format!("the review should bring a transition: {verdict:?}").into());
    }
    let admit = median_of_calls(|| {
        black_box(webhook::admit::admit(black_box(body), &ids, now).answer.encode());
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

fn throughput(body: &[u8]) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (webhook, echo) = (Subject::start(Kind::Webhook)?, Subject::start(Kind::Echo)?);
    let (mut answered, mut cpu) = ([vec![], vec![]], [vec![], vec![]]);
    for round in 0..=ROUNDS {
        for (index, subject) in [&webhook, &echo].into_iter().enumerate() {
            let before = subject.cpu_seconds()?;
            let (count, seconds) = runtime.block_on(load::run(subject, body))?;
            let used = subject.cpu_seconds()? - before;
            // The first round warms up.
            if round > 0 {
                answered[index].push(count as f64 / seconds);
                cpu[index].push(used * 1e6 / count as f64);
            }
        }
    }
    let [served, echoed] = answered.map(median);
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
