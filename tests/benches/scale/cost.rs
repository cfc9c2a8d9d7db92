//! What Berth costs kube-apiserver, in figures that other work on the machine does not change: bytes allocated, and beside them CPU
//! time, calls of the webhook, reads and conflicts.
//!
//! `BERTH_BENCH_BASE` names the folder of another checkout whose programs are built in the same profile. Then both versions are
//! measured in turn on control planes of their own, and that version is the reference of each figure. Without it, the reference is
//! a write of one field to an object of three fields, which no webhook is called for.

use std::path::{Path, PathBuf};

use berth_core::api::Server;
use berth_tests::{Berth, Options, Part};

use crate::{bare, fleet, fleet::Fleet, is_smoke_test, meter::Meter, options, say, three_fields};

/// Servers that are brought up, changed and removed: enough that what does not belong to a Server hardly counts.
const SERVERS: usize = 200;
/// Servers of the bare client.
const BARE_SERVERS: usize = 100;
const SMOKE_SERVERS: usize = 3;

/// The most writes per Server.
const WRITES_UP: f64 = 7.5;
const WRITES_DOWN: f64 = 6.0;
/// The most calls of the webhook for each write: the others are repeated after a conflict.
const CALLS_PER_WRITE: f64 = 1.05;
/// The largest share of the base's bytes and CPU time.
const SHARE: f64 = 0.5;

/// A life of a fleet, and the kinds of writes that a life consists of.
#[derive(Default)]
struct Cost {
    servers: usize,
    three_fields: Counted,
    phases: Vec<(&'static str, Meter)>,
    kinds: Vec<(String, Counted)>,
}

/// What a number of writes cost together.
#[derive(Clone, Default)]
pub(crate) struct Counted {
    pub(crate) writes: usize,
    pub(crate) cost: Meter,
}

impl Counted {
    fn kilobytes(&self) -> f64 {
        self.cost.bytes / self.writes as f64 / 1e3
    }

    fn milliseconds(&self) -> f64 {
        self.cost.cpu_seconds / self.writes as f64 * 1e3
    }

    fn add(&mut self, other: &Self) {
        self.writes += other.writes;
        self.cost.add(&other.cost);
    }
}

/// Another version of Berth to compare with.
#[must_use]
pub(crate) fn base() -> Option<PathBuf> {
    std::env::var_os("BERTH_BENCH_BASE").map(PathBuf::from)
}

/// Measures this version, in turn with the base if there is one, and prints the figures.
pub(crate) async fn run() {
    let base = base();
    let rounds = std::env::var("BERTH_BENCH_ROUNDS").map_or(1 + usize::from(base.is_some()), |n| n.parse().unwrap());
    let (mut old, mut new) = (Cost::default(), Cost::default());
    for round in 0..rounds {
        if let Some(base) = &base {
            say(&format!("cost of {}, round {round}", base.display()));
            old.add(measure(base_options(base)).await);
        }
        say(&format!("cost, round {round}"));
        new.add(measure(options()).await);
    }
    print(&new, base.is_some().then_some(&old));
}

/// The programs and manifests of another checkout, in the profile of this program.
fn base_options(checkout: &Path) -> Options {
    let own = std::env::current_exe().unwrap();
    let profile = own.parent().and_then(Path::parent).and_then(Path::file_name).unwrap();
    Options { deploy: checkout.join("deploy"), programs: Some(checkout.join("target").join(profile)), ..options() }
}

async fn measure(options: Options) -> Cost {
    let (size, few) = if is_smoke_test() { (SMOKE_SERVERS, SMOKE_SERVERS) } else { (SERVERS, BARE_SERVERS) };
    let size = std::env::var("BERTH_BENCH_COST_SERVERS").map_or(size, |n| n.parse().unwrap());
    let berth = Berth::start(options).await.unwrap();
    let port = fleet::listen().await;
    let three_fields = three_fields::cost(&berth, few).await;
    let (phases, model) = life(&berth, size, port).await;
    for part in Part::CONTROLLERS {
        berth.kill9(part).unwrap();
    }
    let kinds = bare::cost_of_kinds(&berth, &model, few).await;
    berth.stop().await.unwrap();
    Cost { servers: size, three_fields, phases, kinds }
}

/// A fleet comes, gets other code, and goes.
async fn life(berth: &Berth, size: usize, port: u16) -> (Vec<(&'static str, Meter)>, Server) {
    let mut phases = Vec::new();
    profile(berth, "before").await;
    let begin = Meter::of(berth).await;
    let mut fleet = Fleet::declare(berth, "cost", size, port).await;
    fleet.ready().await;
    fleet.settled().await;
    let up = Meter::of(berth).await;
    say(&up.since(&begin).to_string());
    phases.push(("to Ready", up.since(&begin)));
    profile(berth, "after").await;
    let model = fleet.one().await;

    let begin = Meter::of(berth).await;
    fleet.deploy("2").await;
    fleet.settled().await;
    let deployed = Meter::of(berth).await;
    say(&deployed.since(&begin).to_string());
    phases.push(("to other code", deployed.since(&begin)));

    let begin = Meter::of(berth).await;
    fleet.scale_to_nothing().await;
    let gone = Meter::of(berth).await;
    say(&gone.since(&begin).to_string());
    phases.push(("to nothing", gone.since(&begin)));
    fleet.delete().await;
    (phases, model)
}

/// With `BERTH_BENCH_PROFILE`, a folder, writes the profile of what kube-apiserver has allocated there (`alloc_space`), for `go tool pprof`. What the way
/// to Ready allocates is the difference of `after` and `before`.
async fn profile(berth: &Berth, name: &str) {
    let Some(folder) = std::env::var_os("BERTH_BENCH_PROFILE") else { return };
    let request = http::Request::get("/debug/pprof/heap?gc=1").body(kube::client::Body::empty()).unwrap();
    let answer = berth.client().send(request).await.unwrap();
    let bytes = answer.into_body().collect_bytes().await.unwrap();
    std::fs::write(Path::new(&folder).join(name).with_extension("pb.gz"), bytes).unwrap();
}

impl Cost {
    fn add(&mut self, other: Self) {
        self.servers += other.servers;
        self.three_fields.add(&other.three_fields);
        if self.phases.is_empty() {
            (self.phases, self.kinds) = (other.phases, other.kinds);
            return;
        }
        self.phases.iter_mut().zip(&other.phases).for_each(|((_, sum), (_, more))| sum.add(more));
        self.kinds.iter_mut().zip(&other.kinds).for_each(|((_, sum), (_, more))| sum.add(more));
    }

    fn of_server(&self, phase: usize) -> Counted {
        Counted { writes: self.servers, cost: self.phases[phase].1.clone() }
    }
}

fn print(new: &Cost, old: Option<&Cost>) {
    for (n, (name, cost)) in new.phases.iter().enumerate() {
        let (each, reference) =
            (new.of_server(n), old.map_or_else(|| new.three_fields.clone(), |old| old.of_server(n)));
        let target = old.is_some() && n == 0;
        compare(
            &format!("kube-apiserver, a Server {name}: KB allocated"),
            Counted::kilobytes,
            &each,
            &reference,
            target,
        );
        compare(&format!("kube-apiserver, a Server {name}: CPU ms"), Counted::milliseconds, &each, &reference, target);
        let writes = cost.writes.about_servers() as f64;
        let of_servers = cost.writes.about("servers") as f64;
        let limit = [Some(WRITES_UP), None, Some(WRITES_DOWN)][n];
        count(&format!("writes for a Server {name}"), writes / new.servers as f64, limit);
        count(&format!("GETs for a Server {name}"), cost.reads.total() as f64 / new.servers as f64, Some(0.1));
        count(
            &format!("webhook calls per write to a Server {name}"),
            cost.webhook_calls as f64 / of_servers,
            Some(CALLS_PER_WRITE),
        );
        count(
            &format!("refused or conflicting writes for a Server {name}"),
            cost.conflicts as f64 / new.servers as f64,
            None,
        );
    }
    compare_kind(
        "status of three fields, no webhook",
        &new.three_fields,
        old.map_or(&new.three_fields, |old| &old.three_fields),
    );
    for (name, cost) in &new.kinds {
        let known = old.and_then(|old| old.kinds.iter().find(|(kind, _)| kind == name)).map(|(_, cost)| cost);
        compare_kind(name, cost, known.unwrap_or(&new.three_fields));
    }
}

fn compare_kind(kind: &str, new: &Counted, reference: &Counted) {
    compare(&format!("KB allocated per write: {kind}"), Counted::kilobytes, new, reference, false);
    compare(&format!("CPU ms per write: {kind}"), Counted::milliseconds, new, reference, false);
}

fn compare(figure: &str, of: impl Fn(&Counted) -> f64, new: &Counted, reference: &Counted, has_target: bool) {
    let (value, reference) = (of(new), of(reference));
    let ratio = value / reference;
    let verdict = if ratio <= SHARE { "met" } else { "MISSED" };
    let target = if has_target { format!("<= {SHARE}, {verdict}") } else { "-".to_owned() };
    println!("{figure} | {value:.2} | {reference:.2} | {ratio:.2} | {target}");
}

fn count(figure: &str, value: f64, limit: Option<f64>) {
    let verdict = |limit: f64| if value <= limit { "met" } else { "MISSED" };
    let target = limit.map_or_else(|| "-".to_owned(), |limit| format!("<= {limit}, {}", verdict(limit)));
    println!("{figure} | {value:.2} | - | - | {target}");
}
