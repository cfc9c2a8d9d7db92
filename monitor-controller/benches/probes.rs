//! 5,000 Servers, each probed by TCP and by HTTP every 10 s, from one process: does every probe come at its time, and
//! what does it cost?
//!
//! The targets run in a process of their own, on loopback addresses, and measure the time between two probes of the same
//! target, which should be the period. The reference is the least that a program can do for the same work in the same
//! run: for the times, a timer that fires every 2 ms; for the cost, bare connections with a GET.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a bench may panic")]
#![expect(clippy::cast_precision_loss, reason = "counts are small")]

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Write},
    net::Ipv4Addr,
    process::{Child, Command, Stdio},
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use berth_core::api::Server;
use berth_runtime::SystemClock;
use monitor_controller::{metrics::ProbeMetrics, probe::NetworkProbes, prober::Prober};
use parking_lot::Mutex;
use prometheus_client::{encoding::text::encode, registry::Registry};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};
use tokio_util::sync::CancellationToken;

/// Servers, and the time between two probes of each.
const SIZES: (usize, Duration) = (5_000, Duration::from_secs(10));
/// The same in a smoke test, which only shows that the bench works.
const SMOKE_SIZES: (usize, Duration) = (32, Duration::from_secs(1));
const PERIODS: u32 = 3;

static SIZE: LazyLock<(usize, Duration)> =
    LazyLock::new(|| if std::env::var_os("BERTH_BENCH_SMOKE").is_some() { SMOKE_SIZES } else { SIZES });

fn servers() -> usize {
    SIZE.0
}

fn period() -> Duration {
    SIZE.1
}

fn main() {
    if std::env::args().nth(1).as_deref() == Some("targets") {
        runtime().block_on(targets());
        return;
    }
    let mut targets = Targets::start();
    let port = targets.port;
    let timer = runtime().block_on(timer_lateness());
    let bare = runtime().block_on(bare_probes(port));
    targets.command("reset");
    let measured = runtime().block_on(prober(port));
    let jitter: Vec<Duration> =
        targets.command("report").split_whitespace().map(|n| Duration::from_nanos(n.parse().unwrap())).collect();
    let [count, p50, p99, max] = jitter[..] else { panic!("a report has four numbers") };
    // A smoke test may run on a machine that is busy with others.
    let least = if *SIZE == SMOKE_SIZES { 1 } else { u128::from(PERIODS - 1) * 2 * servers() as u128 * 95 / 100 };
    assert!(count.as_nanos() >= least, "too few probes: {count:?}");
    let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
    println!("{} Servers, 2 probes each, every {} s, for {PERIODS} periods", servers(), period().as_secs());
    println!("figure | value | reference | ratio | target");
    let row = |figure: &str, value: f64, reference: f64, unit: &str, target: f64| {
        let verdict = if value <= target { "met" } else { "MISSED" };
        println!(
            "{figure} | {value:.2} {unit} | {reference:.2} {unit} | {:.2} | <= {target} {unit}, {verdict}",
            value / reference
        );
    };
    row("median deviation from the period", ms(p50), ms(timer.0), "ms", 5.0);
    row("p99 deviation from the period", ms(p99), ms(timer.1), "ms", 50.0);
    row("largest deviation from the period", ms(max), ms(timer.2), "ms", 500.0);
    row("CPU per probe", measured.micros, bare, "us", 500.0);
    row(
        "share of one core",
        measured.share * 100.0,
        bare * 2.0 * servers() as f64 / period().as_secs_f64() / 1e4,
        "%",
        25.0,
    );
    row("resident memory", measured.resident, measured.before, "MB", 100.0);
    println!(
        "probes skipped | {} | - | - | <= 0, {}",
        measured.skipped,
        if measured.skipped == 0 { "met" } else { "MISSED" }
    );
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap()
}

/// What the prober cost.
struct Measured {
    /// CPU time of one probe in microseconds.
    micros: f64,
    /// Share of one core.
    share: f64,
    /// Resident memory in MB, at the end and before.
    resident: f64,
    before: f64,
    skipped: u64,
}

async fn prober(port: u16) -> Measured {
    let before = resident();
    let (changed_servers, _received) = futures::channel::mpsc::unbounded();
    let (metrics, stop) = (Arc::new(ProbeMetrics::default()), CancellationToken::new());
    let (prober, probe_loop) =
        Prober::new(Arc::new(NetworkProbes), 512, changed_servers, metrics.clone(), Arc::new(SystemClock));
    for n in 0..servers() {
        prober.update(&server(n, port));
    }
    let probe_loop = tokio::spawn(probe_loop.run(stop.clone()));
    let (start, cpu) = (Instant::now(), cpu());
    // Half a period more, so that every target has had its probe of the last period.
    tokio::time::sleep(period() * PERIODS + period() / 2).await;
    let (took, used) = (start.elapsed(), self::cpu().saturating_sub(cpu));
    let resident = resident();
    stop.cancel();
    probe_loop.await.unwrap();
    let count = took.as_secs_f64() / period().as_secs_f64() * 2.0 * servers() as f64;
    Measured {
        micros: used.as_secs_f64() * 1e6 / count,
        share: used.as_secs_f64() / took.as_secs_f64(),
        resident,
        before,
        skipped: skipped(&metrics),
    }
}

/// The probes that were skipped, as the metrics say.
fn skipped(metrics: &ProbeMetrics) -> u64 {
    let (mut registry, mut text) = (Registry::default(), String::new());
    metrics.register(&mut registry);
    encode(&mut text, &registry).unwrap();
    let samples = text.lines().filter(|line| line.starts_with("skipped_probes_total"));
    samples.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

/// The loopback address of a Server.
fn address(n: usize) -> Ipv4Addr {
    let n = u16::try_from(n).unwrap();
    Ipv4Addr::new(127, 78, (n / 250).to_le_bytes()[0], (n % 250 + 1).to_le_bytes()[0])
}

fn server(n: usize, port: u16) -> Server {
    berth_testing::server(
        json!({"metadata": {"name": format!("web-{n}"), "namespace": "ns", "uid": format!("5a1f-{n}")},
            "spec": {"machine": {"className": "c"}, "reachability": {"periodSeconds": period().as_secs()},
                     "healthCheck": {"httpGet": {"port": port, "path": "/healthz"}, "periodSeconds": period().as_secs()}},
            "status": {"state": "Ready", "epoch": 1, "machine": {"phase": "Running", "address": address(n),
                "ssh": {"port": port + 1, "user": "b", "hostKey": "k", "root": "r"}}}
        }),
    )
}

/// Median, p99 and largest lateness of a bare timer.
async fn timer_lateness() -> (Duration, Duration, Duration) {
    let (start, mut late) = (tokio::time::Instant::now(), Vec::new());
    for n in 1..=servers() as u64 / 2 {
        let due = start + Duration::from_millis(2 * n);
        tokio::time::sleep_until(due).await;
        late.push(due.elapsed());
    }
    quantiles(&mut late)
}

fn quantiles(values: &mut [Duration]) -> (Duration, Duration, Duration) {
    values.sort_unstable();
    (values[values.len() / 2], values[values.len() * 99 / 100], values[values.len() - 1])
}

/// CPU of a bare probe in microseconds: the mean of a connection and of a connection with a GET.
async fn bare_probes(port: u16) -> f64 {
    let start = cpu();
    let tasks = (0..16).map(|task| {
        tokio::spawn(async move {
            for n in 0..servers() / 16 {
                let address = address(n * 16 + task);
                drop(TcpStream::connect((address, port + 1)).await.unwrap());
                let mut stream = TcpStream::connect((address, port)).await.unwrap();
                stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
                let mut answer = [0; 512];
                assert!(stream.read(&mut answer).await.unwrap() > 0);
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    cpu().saturating_sub(start).as_secs_f64() * 1e6 / (2 * (servers() / 16 * 16)) as f64
}

/// CPU time that this process has used.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    // Fields 14 and 15 of proc(5), in ticks of 10 ms.
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(10 * ticks)
}

/// Resident memory of this process in MB.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

/// The process of the targets; it ends with its standard input.
struct Targets {
    child: Child,
    answers: BufReader<std::process::ChildStdout>,
    port: u16,
}

impl Targets {
    fn start() -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg("targets")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut answers = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        answers.read_line(&mut line).unwrap();
        Self { child, answers, port: line.trim().parse().expect("the targets say their port") }
    }

    fn command(&mut self, command: &str) -> String {
        writeln!(self.child.stdin.as_mut().unwrap(), "{command}").unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line
    }
}

impl Drop for Targets {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

type Arrivals = Arc<Mutex<HashMap<(std::net::IpAddr, u16), Vec<Instant>>>>;

async fn targets() {
    let arrivals = Arrivals::default();
    let port = listen_on_a_pair(&arrivals);
    println!("{port}");
    tokio::task::spawn_blocking(move || {
        for command in std::io::stdin().lines() {
            let mut arrivals = arrivals.lock();
            match command.unwrap().as_str() {
                "reset" => {
                    arrivals.clear();
                    println!("ok");
                }
                _ => {
                    let mut deviations: Vec<Duration> = arrivals
                        .values()
                        .flat_map(|times| times.windows(2).map(|pair| (pair[1] - pair[0]).abs_diff(period())))
                        .collect();
                    let (p50, p99, max) = quantiles(&mut deviations);
                    println!("{} {} {} {}", deviations.len(), p50.as_nanos(), p99.as_nanos(), max.as_nanos());
                }
            }
        }
    })
    .await
    .unwrap();
    std::process::exit(0);
}

/// Two neighbouring ports on every loopback address: one speaks HTTP, one only accepts.
fn listen_on_a_pair(arrivals: &Arrivals) -> u16 {
    let listen = |port: u16| {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind_device(Some(b"lo")).unwrap();
        socket.bind((Ipv4Addr::UNSPECIFIED, port).into()).ok()?;
        socket.listen(4096).ok()
    };
    let (http, tcp) = std::iter::repeat_with(|| {
        let http = listen(0)?;
        let tcp = listen(http.local_addr().ok()?.port().checked_add(1)?)?;
        Some((http, tcp))
    })
    .take(100)
    .flatten()
    .next()
    .expect("two free ports side by side");
    let port = http.local_addr().unwrap().port();
    tokio::spawn(accept(http, arrivals.clone(), true));
    tokio::spawn(accept(tcp, arrivals.clone(), false));
    port
}

async fn accept(listener: tokio::net::TcpListener, arrivals: Arrivals, answers: bool) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let Ok(local) = stream.local_addr() else { continue };
        arrivals.lock().entry((local.ip(), local.port())).or_default().push(Instant::now());
        if answers {
            tokio::spawn(async move {
                let mut request = [0; 1024];
                if stream.read(&mut request).await.is_ok_and(|read| read > 0) {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
                }
            });
        }
    }
}
