use std::collections::BTreeSet;

use futures::{StreamExt, channel::mpsc::UnboundedReceiver};
use serde_json::json;
use tokio::net::TcpListener;

use super::*;
use crate::verdict::Reach;

fn server(n: usize, port: u16, period: i64) -> Server {
    serde_json::from_value(json!({
        "apiVersion": "berth.dev/v1alpha1", "kind": "Server",
        "metadata": {"name": format!("web-{n}"), "namespace": "ns", "uid": format!("uid-{n}")},
        "spec": {"machine": {"className": "c"}, "reachability": {"periodSeconds": period, "timeoutSeconds": 1, "unreachableAfterSeconds": 2}},
        "status": {"state": "Ready", "epoch": 1, "machine": {
            "phase": "Running", "address": "127.0.0.1", "ssh": {"port": port, "user": "b", "hostKey": "k", "root": "r"}}}
    }))
    .unwrap()
}

fn prober() -> (Prober, UnboundedReceiver<ObjectRef<Server>>, Arc<ProbeMetrics>, CancellationToken) {
    let (news, received) = futures::channel::mpsc::unbounded();
    let metrics = Arc::new(ProbeMetrics::default());
    let (prober, work) = Prober::new(64, news, Arc::clone(&metrics), Arc::new(Timestamp::now));
    let stop = CancellationToken::new();
    tokio::spawn(work.run(stop.clone()));
    (prober, received, metrics, stop)
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(15), future).await.expect("within 15 s")
}

#[tokio::test]
async fn a_machine_that_goes_and_comes_back_is_news_each_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (prober, mut news, _, stop) = prober();
    let server = server(0, port, 1);
    prober.watch(&server);
    assert_eq!(soon(news.next()).await.unwrap().name, "web-0");
    assert!(matches!(prober.observed("uid-0").reach, Reach::Reachable(_)));
    drop(listener);
    soon(async {
        while !matches!(prober.observed("uid-0").reach, Reach::Unreachable { .. }) {
            news.next().await.unwrap();
        }
    })
    .await;
    let _listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    soon(async {
        while !matches!(prober.observed("uid-0").reach, Reach::Reachable(_)) {
            news.next().await.unwrap();
        }
    })
    .await;
    prober.forget("uid-0");
    assert_eq!(prober.observed("uid-0").reach, Reach::Undecided);
    stop.cancel();
}

#[tokio::test]
async fn servers_that_are_gone_are_probed_no_longer() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (prober, mut news, _, _stop) = prober();
    for n in 0..20 {
        prober.watch(&server(n, port, 1));
    }
    let mut seen = BTreeSet::new();
    soon(async {
        while seen.len() < 20 {
            seen.insert(news.next().await.unwrap().name);
        }
    })
    .await;
    prober.retain(|uid| uid == "uid-7");
    assert_eq!(prober.entries().len(), 1);
}

#[tokio::test]
async fn a_probe_that_hangs_skips_its_times_and_holds_up_nobody_else() {
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
    let (prober, mut news, metrics, _stop) = prober();
    let mut slow = server(0, address.port(), 1);
    slow.spec.reachability.timeout_seconds = 3;
    prober.watch(&slow);
    prober.watch(&server(1, alive.local_addr().unwrap().port(), 1));
    assert_eq!(soon(news.next()).await.unwrap().name, "web-1");
    assert_eq!(soon(news.next()).await.unwrap().name, "web-0");
    assert!(metrics.missed_times() >= 2, "{}", metrics.missed_times());
    drop((full, backlog));
}
