//! `berth-sim`: plays runs of the simulated world, shows one that went wrong, and makes it short.

mod campaign;

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use berth_sim::{Cost, Lives, Outcome, Prices, RequestCounts, RequestKind, Schedule, cost, play, shrink, since};
use clap::{Args, Parser, Subcommand};

use crate::campaign::Campaign;

/// The exit code when a run could not be played, as for wrong arguments. It is 1 when one went wrong.
const NOT_PLAYED: u8 = 2;

// As in the programs: a third of the time went into the C library's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Plays Berth's programs in a simulated world in which people are nasty and everything fails.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Plays many runs, each of another seed, and stops at the first that goes wrong
    Run(Run),
    /// Plays one run, and writes everything that happened in it
    Replay {
        #[command(flatten)]
        which: Which,
        /// File for what happened; by default standard output
        #[arg(long, value_name = "FILE")]
        log: Option<PathBuf>,
    },
    /// Shows what fleets of several sizes cost the API server while they come, get other code, and go
    Report(Report),
    /// Lets the Servers of one large set live a whole life, and says how long it took
    Lives {
        /// How many Servers
        #[arg(long, default_value_t = 100)]
        servers: usize,
        /// How many copies of each controller
        #[arg(long, default_value_t = 1)]
        copies: usize,
        /// Whether requests, watches, copies and the provider fail
        #[arg(long)]
        faults: bool,
        /// Says which kinds of requests there were in each chapter
        #[arg(long)]
        requests: bool,
        /// The seed
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Writes the schedule of a run: what will happen in it, and when
    Show {
        #[command(flatten)]
        which: Which,
    },
}

#[derive(Args)]
struct Run {
    /// The first seed; by default one that no run has had
    #[arg(long)]
    from: Option<u64>,
    /// How many runs
    #[arg(long, default_value_t = u64::MAX, hide_default_value = true)]
    seeds: u64,
    /// Seconds after which no other run begins; 60 if no number of runs is given either
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<u64>,
    /// How many runs at the same time; by default one for each processor
    #[arg(long)]
    jobs: Option<usize>,
    /// Seconds for making the schedule of a run that went wrong shorter
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    shrink: u64,
    /// Folder for the schedule and the log of a run that went wrong
    #[arg(long, value_name = "FOLDER", default_value = "target/sim")]
    out: PathBuf,
}

#[derive(Args)]
struct Report {
    /// How many Servers each fleet has
    #[arg(long, value_delimiter = ',', default_values_t = [10, 100, 1_000])]
    servers: Vec<usize>,
    /// How many copies there are of each program
    #[arg(long, value_delimiter = ',', default_values_t = [1])]
    copies: Vec<usize>,
    /// Says which kinds of requests there were in each phase
    #[arg(long)]
    requests: bool,
    /// Milliseconds that the API server's processor needs for a write
    #[arg(long, default_value_t = 8.0)]
    write_ms: f64,
    /// Milliseconds that it needs to read one object
    #[arg(long, default_value_t = 0.5)]
    read_ms: f64,
    /// Milliseconds that it needs for an event of a watch
    #[arg(long, default_value_t = 0.1)]
    event_ms: f64,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// The seed of the run
    seed: Option<u64>,
    /// File with the schedule of the run, as `run` and `show` write it
    #[arg(long, value_name = "FILE")]
    schedule: Option<PathBuf>,
}

impl Which {
    fn schedule(&self) -> io::Result<Schedule> {
        let Some(file) = &self.schedule else { return Ok(Schedule::draw(self.seed.unwrap_or_default())) };
        let text = fs::read(file).map_err(|error| named(file, &error))?;
        serde_json::from_slice(&text).map_err(|error| named(file, &error))
    }
}

fn named(file: &Path, error: &dyn std::fmt::Display) -> io::Error {
    io::Error::other(format!("{}: {error}", file.display()))
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(args) => run(&args),
        Command::Replay { which, log } => which.schedule().and_then(|schedule| replay(&schedule, log.as_deref())),
        Command::Lives { servers, copies, faults, requests, seed } => {
            Ok(lives(&Lives { servers, copies, has_faults: faults, counts_requests: requests, seed }))
        }
        Command::Report(args) => Ok(report(&args)),
        Command::Show { which } => which.schedule().and_then(|schedule| show(&schedule)),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(NOT_PLAYED)
        }
    }
}

/// Says whether everything went well.
fn run(args: &Run) -> io::Result<bool> {
    let seconds = args.seconds.or((args.seeds == u64::MAX).then_some(60));
    let campaign = Campaign {
        from: args.from.unwrap_or_else(fresh_seed),
        seeds: args.seeds,
        limit: seconds.map(Duration::from_secs),
        jobs: args.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)),
    };
    let Some(failed) = campaign.run() else { return Ok(true) };
    let seed = failed.seed;
    println!("seed {seed} went wrong: {}\nmaking its schedule shorter, for at most {} s", failed.finding, args.shrink);
    let mut shortest = shrink(&Schedule::draw(seed), failed.finding.judge, Duration::from_secs(args.shrink));
    let Outcome { mut finding, mut log, .. } = play(&shortest);
    if finding.is_none() {
        println!("it went well when it was played again: what follows is the whole run, as it went wrong");
        (shortest, finding, log) = (Schedule::draw(seed), Some(failed.finding), failed.log);
    }
    fs::create_dir_all(&args.out).map_err(|error| named(&args.out, &error))?;
    let (json, text) = (args.out.join(format!("{seed}.json")), args.out.join(format!("{seed}.log")));
    let schedule = serde_json::to_string_pretty(&shortest).map_err(io::Error::other)?;
    fs::write(&json, schedule.clone() + "\n").map_err(|error| named(&json, &error))?;
    fs::write(&text, log.join("\n") + "\n").map_err(|error| named(&text, &error))?;
    println!("{schedule}");
    if let Some(finding) = finding {
        println!("went wrong: {finding}");
    }
    println!("everything that happened is in {}", text.display());
    println!("to play it again: berth-sim replay --schedule {}", json.display());
    println!("to play the whole run: berth-sim replay {seed}");
    Ok(false)
}

/// A seed that is different each time. It has room after it, and few enough digits to be typed.
fn fresh_seed() -> u64 {
    rand::random_range(1..1_000_000) * 1_000_000
}

fn replay(schedule: &Schedule, log: Option<&Path>) -> io::Result<bool> {
    let Outcome { finding, log: lines, .. } = play(schedule);
    let text = lines.join("\n") + "\n";
    match log {
        Some(file) => fs::write(file, text).map_err(|error| named(file, &error))?,
        None => print!("{text}"),
    }
    match &finding {
        Some(finding) => println!("seed {} went wrong: {finding}", schedule.seed),
        None => println!("seed {} went well", schedule.seed),
    }
    Ok(finding.is_none())
}

/// Says whether everything went well.
fn lives(fleet: &Lives) -> bool {
    let (begun, mut counted) = (Instant::now(), RequestCounts::new());
    let outcome = fleet.live(|chapter, world| {
        let (age, requests) = (world.api().elapsed().as_secs(), world.api().requests());
        println!(
            "{:.1} s: {chapter}, after {age} s of the world and {requests} requests",
            begun.elapsed().as_secs_f64()
        );
        let now = world.request_counts();
        print_requests(&since(&counted, &now), fleet.servers);
        counted = now;
    });
    if let Err(finding) = &outcome {
        println!("went wrong: {finding}");
    }
    outcome.is_ok()
}

fn report(args: &Report) -> bool {
    let prices = Prices { write: args.write_ms, read: args.read_ms, event: args.event_ms };
    println!("requests, kilobytes and reconciles of each Server; the API server's processor for each, and for all");
    println!("{}", Cost::COLUMNS);
    for &servers in &args.servers {
        for &copies in &args.copies {
            cost(servers.max(1), copies.max(1), |cost| {
                println!("{}", cost.line(prices));
                if args.requests {
                    print_requests(&cost.requests, servers);
                }
            });
        }
    }
    true
}

/// Prints how many requests of each kind there were for each Server, the most frequent first.
fn print_requests(counts: &RequestCounts, servers: usize) {
    let mut counts: Vec<_> = counts.iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    for (RequestKind { program, what, code }, count) in counts {
        #[expect(clippy::cast_precision_loss, reason = "the number is rounded to be read")]
        let each = *count as f64 / servers.max(1) as f64;
        println!("    {each:>8.2}  {program:<21} {code} {what}");
    }
}

fn show(schedule: &Schedule) -> io::Result<bool> {
    println!("{}", serde_json::to_string_pretty(schedule).map_err(io::Error::other)?);
    Ok(true)
}
