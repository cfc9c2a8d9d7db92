//! The proof that a Server without traffic gets no request: what its application has logged, against when its traffic was held.

use std::{
    collections::BTreeMap,
    fs,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use berth_core::api::{Server, TaskKind, TaskPhase, TrafficPhase};
use futures::StreamExt as _;
use kube::runtime::{WatchStreamExt as _, watcher};
use parking_lot::Mutex;

use crate::world::{World, traffic, uid};

/// When a Server's traffic was held, in milliseconds since 1970.
#[derive(Clone, Copy, Debug)]
struct Window {
    from: i64,
    until: Option<i64>,
}

/// Notes when traffic is held. A window begins when that is seen, which is later than it is true, and ends in the second in which the
/// release was decided, which is before balancers send requests.
pub(crate) struct HeldWindows {
    windows: Arc<Mutex<BTreeMap<String, Vec<Window>>>>,
    watching: tokio::task::JoinHandle<()>,
}

impl HeldWindows {
    /// Begins to watch all Servers.
    pub(crate) fn watch(world: &World) -> Self {
        let windows = Arc::<Mutex<BTreeMap<String, Vec<Window>>>>::default();
        let seen = Arc::clone(&windows);
        let servers = watcher(world.servers(), watcher::Config::default()).applied_objects();
        let watching = tokio::spawn(async move {
            let mut servers = std::pin::pin!(servers);
            while let Some(server) = servers.next().await {
                if let Ok(server) = server {
                    note(seen.lock().entry(uid(&server)).or_default(), &server);
                }
            }
        });
        Self { windows, watching }
    }

    /// Asserts that no request of a client came while traffic was held, and returns for how many seconds that was proven.
    pub(crate) fn assert_no_request(self, world: &World) -> i64 {
        self.watching.abort();
        let windows = self.windows.lock();
        let (mut proven, mut logged) = (0, 0);
        for server in windows.keys() {
            let log = world.berth.machines().of(server).root().join("opt/berth/apps/web/access.log");
            // The machine of a retired Server is gone, with its log.
            let Ok(log) = fs::read_to_string(log) else { continue };
            let requests: Vec<(i64, &str)> = log.lines().filter_map(request).collect();
            logged += requests.len();
            for Window { from, until } in &windows[server] {
                let until = until.unwrap_or(i64::MAX);
                let bad: Vec<_> = requests.iter().filter(|(at, _)| (*from..until).contains(at)).collect();
                assert!(bad.is_empty(), "{server} was held from {from} until {until}, and got {bad:?}");
                proven += (until.min(now()) - from).max(0);
            }
        }
        assert!(logged > 100, "the applications have logged {logged} requests");
        proven / 1000
    }
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

fn note(windows: &mut Vec<Window>, server: &Server) {
    let is_open = windows.last().is_some_and(|window| window.until.is_none());
    match traffic(server) {
        Some(TrafficPhase::Held) if !is_open => windows.push(Window { from: now(), until: None }),
        Some(TrafficPhase::Serving) if is_open => {
            let tasks = server.status.iter().flat_map(|status| &status.tasks);
            let mut released = tasks.filter(|t| t.kind == TaskKind::ReleaseTraffic && t.phase == TaskPhase::Succeeded);
            let at = released.next_back().and_then(|task| task.finished_at.as_ref()).map(|at| at.0.as_millisecond());
            windows.last_mut().unwrap().until = Some(at.unwrap());
        }
        _ => {}
    }
}

/// When a request of a client came, and which one. Probes have no id.
fn request(line: &str) -> Option<(i64, &str)> {
    let (at, uri) = line.split_once(' ')?;
    uri.contains("id=").then_some((at.parse().ok()?, uri))
}
