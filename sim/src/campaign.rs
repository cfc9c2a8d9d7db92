//! Many runs, several at the same time, with progress.

use std::{
    sync::{
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use berth_sim::{Coverage, Finding, Outcome, Schedule, play};

/// How often progress is shown.
const PROGRESS: Duration = Duration::from_secs(5);

/// Which runs to play.
pub(crate) struct Campaign {
    /// The first seed.
    pub(crate) from: u64,
    /// How many.
    pub(crate) seeds: u64,
    /// When no other run begins.
    pub(crate) limit: Option<Duration>,
    /// How many at the same time.
    pub(crate) jobs: usize,
}

/// What went well so far.
#[derive(Default)]
struct Tally {
    runs: u64,
    events: usize,
    lived: Duration,
    coverage: Coverage,
}

/// What is played next.
struct Progress {
    begun: Instant,
    next: AtomicU64,
    is_over: AtomicBool,
}

impl Campaign {
    /// Plays them. Returns the first that went wrong.
    pub(crate) fn run(&self) -> Option<Failed> {
        println!("seeds from {}", self.from);
        let progress = Progress { begun: Instant::now(), next: self.from.into(), is_over: false.into() };
        let failed = thread::scope(|scope| {
            let (sender, outcomes) = mpsc::channel();
            for _ in 0..self.jobs.max(1) {
                let (sender, progress) = (sender.clone(), &progress);
                scope.spawn(move || self.work(progress, &sender));
            }
            drop(sender);
            let failed = watch(progress.begun, outcomes);
            progress.is_over.store(true, Ordering::Relaxed);
            failed
        });
        if failed.is_none() {
            let next = progress.next.into_inner().min(self.from.saturating_add(self.seeds));
            println!("all went well: seeds {} to {}", self.from, next.saturating_sub(1));
        }
        failed
    }

    /// Plays one after the other.
    fn work(&self, progress: &Progress, outcomes: &mpsc::Sender<Played>) {
        let is_time_left = || self.limit.is_none_or(|limit| progress.begun.elapsed() < limit);
        while !progress.is_over.load(Ordering::Relaxed) && is_time_left() {
            let seed = progress.next.fetch_add(1, Ordering::Relaxed);
            if seed >= self.from.saturating_add(self.seeds) {
                break;
            }
            let schedule = Schedule::draw(seed);
            let Outcome { finding, elapsed, coverage, log } = play(&schedule);
            let failed = finding.map(|finding| Failed { seed, finding, log });
            if outcomes.send(Played { events: schedule.events.len(), elapsed, failed, coverage }).is_err() {
                break;
            }
        }
    }
}

/// A run that went wrong.
pub(crate) struct Failed {
    pub(crate) seed: u64,
    pub(crate) finding: Finding,
    /// What happened in it.
    pub(crate) log: Vec<String>,
}

/// A run that is over.
struct Played {
    events: usize,
    elapsed: Duration,
    failed: Option<Failed>,
    coverage: Coverage,
}

/// Shows progress until all runs are over, or one went wrong.
fn watch(begun: Instant, outcomes: mpsc::Receiver<Played>) -> Option<Failed> {
    let (mut tally, mut shown) = (Tally::default(), Instant::now());
    for Played { events, elapsed, failed, coverage } in outcomes {
        tally.coverage.add(&coverage);
        if failed.is_some() {
            println!("{}", tally.coverage);
            return failed;
        }
        tally.add(events, elapsed);
        if shown.elapsed() >= PROGRESS {
            shown = Instant::now();
            tally.show(begun.elapsed());
        }
    }
    tally.show(begun.elapsed());
    println!("{}", tally.coverage);
    None
}

impl Tally {
    fn add(&mut self, events: usize, lived: Duration) {
        self.runs += 1;
        self.events += events;
        self.lived += lived;
    }

    fn show(&self, elapsed: Duration) {
        let (seconds, hours) = (elapsed.as_secs_f64(), self.lived.as_secs() / 3_600);
        let speed = Duration::from_secs(self.runs).as_secs_f64() / seconds;
        println!(
            "{seconds:.0} s: {} runs went well, {speed:.1} a second; {} events, {hours} h lived; {}",
            self.runs,
            self.events,
            self.coverage.summary()
        );
    }
}
