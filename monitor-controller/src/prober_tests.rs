use std::collections::BTreeSet;

use berth_runtime::SystemClock;
use futures::{StreamExt, channel::mpsc::UnboundedReceiver};
use prometheus_client::{encoding::text::encode, registry::Registry};
use serde_json::json;
use tokio::net::TcpListener;

use super::*;
use crate::probe::NetworkProbes;
use crate::verdict::ReachabilityVerdict;

fn server(n: usize, port: u16, period: i64) -> Server {
    berth_testing::server(
        json!({"metadata": {"name": format!("web-{n}"), "namespace": "ns", "uid": format!("uid-{n}")},
            "spec": {"machine": {"className": "c"}, "reachability": {"periodSeconds": period, "timeoutSeconds": 1, "unreachableAfterSeconds": 2}},
            "status": {"state": "Ready", "epoch": 1, "machine": {
                "phase": "Running", "address": "127.0.0.1", "ssh": {"port": port, "user": "b", "hostKey": "k", "root": "r"}}}
        }),
    )
}

struct Fixture {
    prober: Prober,
    changed_servers: UnboundedReceiver<ObjectRef<Server>>,
    metrics: Arc<ProbeMetrics>,
    stop: CancellationToken,
}

impl Fixture {
    /// A prober whose loop runs.
    fn start() -> Self {
        let (sender, changed_servers) = futures::channel::mpsc::unbounded();
        let (metrics, stop) = (Arc::new(ProbeMetrics::default()), CancellationToken::new());
        let (prober, probe_loop) =
            Prober::new(Arc::new(NetworkProbes), 64, sender, Arc::clone(&metrics), Arc::new(SystemClock));
        tokio::spawn(probe_loop.run(stop.clone()));
        Self { prober, changed_servers, metrics, stop }
    }

    /// The name of the next Server whose verdict changes.
    async fn next_changed(&mut self) -> String {
        let next = tokio::time::timeout(Duration::from_secs(15), self.changed_servers.next());
        next.await.expect("a change within 15 s").unwrap().name
    }

    fn reachability(&self, uid: &str) -> ReachabilityVerdict {
        self.prober.observation(uid).reachability
    }

    /// The value of a counter or gauge; zero if it is not there yet.
    fn metric(&self, name: &str) -> u64 {
        let (mut registry, mut text) = (Registry::default(), String::new());
        self.metrics.register(&mut registry);
        encode(&mut text, &registry).unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse().unwrap())
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[tokio::test]
async fn a_machine_that_stops_and_answers_again_changes_the_verdict_each_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut fixture = Fixture::start();
    fixture.prober.update(&server(0, port, 1));
    assert_eq!(fixture.next_changed().await, "web-0");
    assert!(matches!(fixture.reachability("uid-0"), ReachabilityVerdict::Reachable { .. }));
    drop(listener);
    while !matches!(fixture.reachability("uid-0"), ReachabilityVerdict::Unreachable { .. }) {
        fixture.next_changed().await;
    }
    let _listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    while !matches!(fixture.reachability("uid-0"), ReachabilityVerdict::Reachable { .. }) {
        fixture.next_changed().await;
    }
    fixture.prober.forget("uid-0");
    assert_eq!(fixture.reachability("uid-0"), ReachabilityVerdict::Undecided);
}

#[tokio::test]
async fn forgotten_servers_are_no_longer_probed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut fixture = Fixture::start();
    for n in 0..20 {
        fixture.prober.update(&server(n, port, 1));
    }
    let mut changed = BTreeSet::new();
    while changed.len() < 20 {
        changed.insert(fixture.next_changed().await);
    }
    for n in (0..20).filter(|n| *n != 7) {
        fixture.prober.forget(&format!("uid-{n}"));
    }
    assert_eq!(fixture.prober.servers.lock().len(), 1);
    // The schedule follows when the loop has read the changes.
    while fixture.metric("scheduled_probes") != 1 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_hanging_probe_skips_its_times_and_delays_no_other_probe() {
    // Nobody accepts and the backlog is full: connecting hangs until the probe's time limit.
    let full = tokio::net::TcpSocket::new_v4().unwrap();
    full.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = full.local_addr().unwrap();
    let full = full.listen(1).unwrap();
    let mut backlog = Vec::new();
    while let Ok(Ok(stream)) =
        tokio::time::timeout(Duration::from_millis(200), tokio::net::TcpStream::connect(address)).await
    {
        backlog.push(stream);
    }
    let alive = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut fixture = Fixture::start();
    let mut slow = server(0, address.port(), 1);
    slow.spec.reachability.timeout_seconds = 3;
    fixture.prober.update(&slow);
    fixture.prober.update(&server(1, alive.local_addr().unwrap().port(), 1));
    assert_eq!(fixture.next_changed().await, "web-1");
    assert_eq!(fixture.next_changed().await, "web-0");
    let skipped = fixture.metric("skipped_probes_total{kind=\"reachability\"}");
    assert!(skipped >= 2, "{skipped}");
    drop((full, backlog));
}

#[tokio::test]
async fn a_failing_health_check_has_its_machine_looked_at_at_once() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let fixture = Fixture::start();
    // The machine's own turn comes within an hour.
    let mut server = server(0, free, 3600);
    server.spec.health_check =
        serde_json::from_value(json!({"tcpSocket": {"port": free}, "periodSeconds": 1})).unwrap();
    fixture.prober.update(&server);
    let lost = async {
        while fixture.prober.survey().lost == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(15), lost).await.expect("it is found to be lost within seconds");
}
