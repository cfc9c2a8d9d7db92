//! What the verdict does on simulated streams of requests, beside what a plain threshold and Kayenta's test do on the same ones.
//!
//! `cargo test -p berth-verdict --test streams -- --nocapture` prints the table that is in `docs/deployments.md`.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail a test by panicking")]

use berth_core::api::CheckVerdict;
use berth_verdict::{Counts, alpha_of_one_look, increase, shift};

const STREAMS: u32 = 1000;
const LOOKS: u32 = 10;
const ALPHA: f64 = 0.01;
/// Error rate of the old version.
const RATE: f64 = 0.01;
/// How much more than that is tolerated.
const TOLERATED: f64 = 0.005;
/// Servers with the old version, for each one with the new version.
const BASELINE: u64 = 9;

/// What the new version gets and the old one gets in one interval between two looks.
type Interval = (Counts, Counts);

/// How many of `n` requests fail at this rate: the gaps between failures are geometric.
fn failures(random: &mut fastrand::Rng, n: u64, rate: f64) -> f64 {
    let (mut failed, mut at) = (0.0, 0.0);
    loop {
        at += (1.0 - random.f64()).ln() / (1.0 - rate).ln();
        #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
        if at >= n as f64 {
            return failed;
        }
        failed += 1.0;
    }
}

fn stream(seed: u64, per_look: u64, rate: f64) -> Vec<Interval> {
    let mut random = fastrand::Rng::with_seed(seed);
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
    let mut counts = |n: u64, rate| Counts { bad: failures(&mut random, n, rate), total: n as f64 };
    (0..LOOKS).map(|_| (counts(per_look, rate), counts(per_look * BASELINE, RATE))).collect()
}

/// Berth: what was counted since the step began, at each look.
fn berth(stream: &[Interval]) -> CheckVerdict {
    let (mut canary, mut baseline) = (Counts::default(), Counts::default());
    let add = |sum: &mut Counts, counts: &Counts| {
        sum.bad += counts.bad;
        sum.total += counts.total;
    };
    for (new, old) in stream {
        add(&mut canary, new);
        add(&mut baseline, old);
        let verdict = increase(canary, baseline, alpha_of_one_look(ALPHA, LOOKS)).judge(TOLERATED);
        if verdict != CheckVerdict::Inconclusive {
            return verdict;
        }
    }
    CheckVerdict::Inconclusive
}

/// A plain threshold in the middle of what is tolerated and a doubled rate: every look judges its interval.
fn threshold(stream: &[Interval]) -> CheckVerdict {
    let limit = RATE + TOLERATED;
    let fails = stream.iter().any(|(new, _)| new.rate().unwrap() > limit);
    if fails { CheckVerdict::Fail } else { CheckVerdict::Pass }
}

/// Kayenta: the rates of all intervals so far, by the test of Mann and Whitney at confidence 0.98 (normal approximation with
/// correction for continuity), at each look from the fifth on.
fn kayenta(stream: &[Interval]) -> CheckVerdict {
    const Z: f64 = 2.326;
    let fails = (5..=stream.len()).any(|looks| {
        let rates = |of: fn(&Interval) -> Counts| stream[..looks].iter().map(move |at| of(at).rate().unwrap());
        let (new, old): (Vec<f64>, Vec<f64>) = (rates(|at| at.0).collect(), rates(|at| at.1).collect());
        let above = |x: &f64| -> f64 {
            old.iter()
                .map(|y| {
                    if x > y {
                        1.0
                    } else if x < y {
                        0.0
                    } else {
                        0.5
                    }
                })
                .sum()
        };
        let u: f64 = new.iter().map(above).sum();
        let n = f64::from(u32::try_from(looks).unwrap());
        (u - n * n / 2.0 - 0.5) / (n * n * (2.0 * n + 1.0) / 12.0).sqrt() > Z
    });
    if fails { CheckVerdict::Fail } else { CheckVerdict::Pass }
}

struct Row {
    fails: [f64; 3],
    passes: f64,
}

/// In which share of the streams each method fails the new version, and Berth passes it.
fn row(per_look: u64, rate: f64) -> Row {
    let (mut fails, mut passes) = ([0.0; 3], 0.0);
    for seed in 0..u64::from(STREAMS) {
        let stream = stream(seed, per_look, rate);
        let verdicts = [berth(&stream), threshold(&stream), kayenta(&stream)];
        for (count, verdict) in fails.iter_mut().zip(verdicts) {
            *count += f64::from(u8::from(verdict == CheckVerdict::Fail)) / f64::from(STREAMS);
        }
        passes += f64::from(u8::from(verdicts[0] == CheckVerdict::Pass)) / f64::from(STREAMS);
    }
    Row { fails, passes }
}

#[test]
fn a_good_version_is_failed_at_most_as_often_as_alpha_says_and_a_doubled_error_rate_is_found() {
    println!("new version         requests/look   Berth fails  passes   threshold fails   Mann-Whitney fails");
    let mut found = Vec::new();
    for (name, rate) in [("as good", RATE), ("as tolerated", RATE + TOLERATED), ("errors doubled", 2.0 * RATE)] {
        for per_look in [200, 1000, 2000, 5000] {
            let row = row(per_look, rate);
            let [berth, threshold, kayenta] = row.fails.map(|share| share * 100.0);
            println!(
                "{name:<20}{per_look:>13}{berth:>12.1} %{:>6.1} %{threshold:>16.1} %{kayenta:>19.1} %",
                row.passes * 100.0
            );
            found.push((name, per_look, row));
        }
    }
    for (name, per_look, row) in &found {
        match *name {
            "errors doubled" => assert!(row.passes <= ALPHA, "{per_look}: a bad version passes"),
            _ => assert!(row.fails[0] <= ALPHA, "{name}, {per_look}: {} fail", row.fails[0]),
        }
    }
    let of =
        |name, per_look| found.iter().find(|(n, at, _)| *n == name && *at == per_look).map(|found| &found.2).unwrap();
    assert!(of("errors doubled", 2000).fails[0] > 0.9 && of("errors doubled", 5000).fails[0] > 0.99);
    assert!(of("as good", 5000).passes > 0.99);
    assert!(of("as good", 200).fails[1] > 0.5, "a threshold takes noise for a failure");
    assert!(of("as good", 1000).fails[2] > ALPHA, "looking again and again is not paid for");
}

/// How often a shift of this size is found in the latencies of ten Servers against forty, which differ by their machines: their logarithms
/// are distributed normally.
fn share_of_shifts(by: f64, verdict: CheckVerdict) -> f64 {
    let found = (0..u64::from(STREAMS)).filter(|seed| {
        let mut random = fastrand::Rng::with_seed(*seed);
        let mut latency = || {
            let (a, b) = (1.0 - random.f64(), random.f64());
            let normal = (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos();
            100.0 * (0.1 * normal).exp()
        };
        let canary: Vec<f64> = (0..10).map(|_| latency() + by).collect();
        let baseline: Vec<f64> = (0..40).map(|_| latency()).collect();
        shift(&canary, &baseline, ALPHA).unwrap().judge(20.0) == verdict
    });
    f64::from(u32::try_from(found.count()).unwrap()) / f64::from(STREAMS)
}

#[test]
fn a_shift_that_is_tolerated_is_failed_at_most_as_often_as_alpha_says_and_a_larger_one_is_found() {
    use CheckVerdict::{Fail, Pass};
    let shares = [(0.0, Fail), (0.0, Pass), (20.0, Fail), (20.0, Pass), (40.0, Fail)];
    let [none_fails, none_passes, limit_fails, limit_passes, double_fails] =
        shares.map(|(by, verdict)| share_of_shifts(by, verdict));
    println!(
        "shift: none fails {none_fails}, passes {none_passes}; at the limit fails {limit_fails}, passes {limit_passes}; twice the limit fails {double_fails}"
    );
    // Three standard deviations of a share of 1,000 beyond alpha.
    let limit = ALPHA + 3.0 * (ALPHA * (1.0 - ALPHA) / f64::from(STREAMS)).sqrt();
    assert!(none_fails <= limit && limit_fails <= limit && limit_passes <= limit);
    assert!(none_passes > 0.9 && double_fails > 0.9);
}
