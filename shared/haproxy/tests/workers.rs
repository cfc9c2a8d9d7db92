//! Requests in flight, reloads and restarts, at a real HAProxy.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

mod support;

use berth_haproxy::{AdminState, Haproxy, InFlight, NewServer, RefusalKind, ServerChange};
use support::{Lab, app::App, eventually, id, server};

const WEB: &str = "\nbackend web\n    balance roundrobin\n";

async fn add(haproxy: &Haproxy, server: NewServer) {
    let id = server.id.clone();
    for outcome in haproxy.apply(&[ServerChange::Add(server), ServerChange::Enable(id)]).await.unwrap() {
        outcome.unwrap();
    }
}

async fn in_flight(haproxy: &Haproxy, name: &str) -> u64 {
    haproxy.sessions_in_flight(&id(name)).await.unwrap().total()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_in_flight_counts_until_its_answer_and_keeps_the_server_from_being_deleted() {
    let lab = Lab::start(WEB).await;
    let app = App::start("one").await;
    for haproxy in [lab.worker(), lab.master()] {
        add(&haproxy, server("a", app.port)).await;
        let mut client = lab.connect().await;
        client.send("/hold").await;
        eventually("the request", async || (in_flight(&haproxy, "a").await == 1).then_some(())).await;
        haproxy.change(ServerChange::SetState(id("a"), AdminState::Drain)).await.unwrap();
        assert_eq!(in_flight(&haproxy, "a").await, 1);
        haproxy.change(ServerChange::SetState(id("a"), AdminState::Maint)).await.unwrap();
        let error = haproxy.change(ServerChange::Delete(id("a"))).await.unwrap_err();
        assert_eq!(error.refusal(), Some(RefusalKind::HasConnections), "{error}");
        app.release();
        assert_eq!(client.receive().await, (200, "one".to_owned()));
        eventually("the end of the request", async || (in_flight(&haproxy, "a").await == 0).then_some(())).await;
        // The client still holds its connection, without a request. HAProxy 2.8 also keeps the one to the server, until maintenance
        // begins again.
        for state in [AdminState::Drain, AdminState::Maint] {
            haproxy.change(ServerChange::SetState(id("a"), state)).await.unwrap();
        }
        eventually("the deletion", async || haproxy.change(ServerChange::Delete(id("a"))).await.ok()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_in_the_servers_queue_is_in_flight() {
    let app = App::start("one").await;
    // Only what is bound to a server waits in its own queue; the rest waits in the backend's and may go to any server.
    let server = format!("    use-server a if TRUE\n    server a 127.0.0.1:{} maxconn 1\n", app.port);
    let lab = Lab::start(&format!("{WEB}{server}")).await;
    let haproxy = lab.worker();
    let (mut first, mut second) = (lab.connect().await, lab.connect().await);
    first.send("/hold").await;
    eventually("the request", async || (in_flight(&haproxy, "a").await == 1).then_some(())).await;
    second.send("/hold").await;
    let expected = InFlight { sessions: 1, queued: 1 };
    eventually("the queue", async || {
        Some(haproxy.sessions_in_flight(&id("a")).await.unwrap()).filter(|found| *found == expected)
    })
    .await;
    app.release();
    app.release();
    assert_eq!((first.receive().await.0, second.receive().await.0), (200, 200));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_is_not_in_flight_and_maintenance_closes_it() {
    let lab = Lab::start(WEB).await;
    let app = App::start("one").await;
    let haproxy = lab.worker();
    let options = ["pool-max-conn", "-1", "pool-purge-delay", "1h"].map(str::to_owned).to_vec();
    add(&haproxy, NewServer { options, ..server("a", app.port) }).await;
    let mut client = lab.connect().await;
    assert_eq!(client.get("/").await.0, 200);
    eventually("an idle connection", async || {
        let servers = haproxy.servers("web").await.unwrap();
        (servers[0].idle_connections == 1 && servers[0].in_flight.total() == 0).then_some(())
    })
    .await;
    haproxy.change(ServerChange::SetState(id("a"), AdminState::Drain)).await.unwrap();
    assert_eq!(haproxy.servers("web").await.unwrap()[0].idle_connections, 1);
    haproxy.change(ServerChange::SetState(id("a"), AdminState::Maint)).await.unwrap();
    eventually("the deletion", async || haproxy.change(ServerChange::Delete(id("a"))).await.ok()).await;
}

/// The order that always works: drain, wait, maintenance, delete. In another order, the connection of the last request may come to
/// rest after maintenance has closed the idle ones, and it stays for the whole `pool-purge-delay`.
#[tokio::test(flavor = "multi_thread")]
async fn maintenance_that_comes_before_the_last_answer_closes_idle_connections_only_when_it_is_repeated() {
    let lab = Lab::start(WEB).await;
    let app = App::start("one").await;
    let haproxy = lab.worker();
    let options = ["pool-max-conn", "-1", "pool-purge-delay", "1h"].map(str::to_owned).to_vec();
    add(&haproxy, NewServer { options, ..server("a", app.port) }).await;
    let mut client = lab.connect().await;
    client.send("/hold").await;
    eventually("the request", async || (in_flight(&haproxy, "a").await == 1).then_some(())).await;
    haproxy.change(ServerChange::SetState(id("a"), AdminState::Maint)).await.unwrap();
    app.release();
    assert_eq!(client.receive().await.0, 200);
    eventually("an idle connection", async || {
        (haproxy.servers("web").await.unwrap()[0].idle_connections == 1).then_some(())
    })
    .await;
    let error = haproxy.change(ServerChange::Delete(id("a"))).await.unwrap_err();
    assert_eq!(error.refusal(), Some(RefusalKind::HasConnections));
    for state in [AdminState::Drain, AdminState::Maint] {
        haproxy.change(ServerChange::SetState(id("a"), state)).await.unwrap();
    }
    eventually("the deletion", async || haproxy.change(ServerChange::Delete(id("a"))).await.ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_calls_at_once_wait_for_each_other_at_the_masters_socket() {
    let lab = Lab::start(WEB).await;
    // The master takes ten connections.
    let calls: Vec<_> = (0..40)
        .map(|_| {
            let master = lab.master();
            tokio::spawn(async move { master.state(None).await.map(|state| state.process.id) })
        })
        .collect();
    let id = lab.worker().info().await.unwrap().id;
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap(), id);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_leaving_worker_serves_is_in_flight_although_the_new_worker_does_not_know_the_server() {
    let lab = Lab::start(WEB).await;
    let app = App::start("one").await;
    let master = lab.master();
    add(&master, server("a", app.port)).await;
    let mut client = lab.connect().await;
    client.send("/hold").await;
    eventually("the request", async || (in_flight(&master, "a").await == 1).then_some(())).await;
    let before = master.workers().await.unwrap();
    assert_eq!((before.old.len(), before.complete), (0, true));

    lab.reload().await;
    let after = master.workers().await.unwrap();
    assert_eq!(after.old.iter().map(|worker| worker.pid).collect::<Vec<_>>(), [before.current.pid]);
    assert_eq!(master.servers("web").await.unwrap(), [], "a server added at run time is gone");
    let table = master.in_flight(None).await.unwrap();
    assert_eq!((table.workers.len(), table.complete, table.of(&id("a")).total()), (2, true, 1));
    // A worker's own socket knows nothing of it, and says so.
    let table = lab.worker().in_flight(Some("web")).await.unwrap();
    assert_eq!((table.workers.len(), table.complete, table.of(&id("a")).total()), (1, false, 0));
    assert!(!lab.worker().sees_old_workers() && master.sees_old_workers());

    app.release();
    assert_eq!(client.receive().await, (200, "one".to_owned()));
    drop(client);
    eventually("the old worker's end", async || master.workers().await.unwrap().old.is_empty().then_some(())).await;
    assert_eq!(in_flight(&master, "a").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_and_a_restart_change_the_identity() {
    let mut lab = Lab::start(WEB).await;
    let first = lab.worker().info().await.unwrap();
    assert_eq!(lab.master().info().await.unwrap().id, first.id);
    assert!(first.id.started > 0 && !first.leaving && first.version.starts_with(|c: char| c.is_ascii_digit()));
    add(&lab.worker(), server("a", 9)).await;
    let state = lab.worker().state(None).await.unwrap();
    assert_eq!((state.process.id, state.servers.len()), (first.id, 1));

    lab.reload().await;
    let state = lab.worker().state(None).await.unwrap();
    assert_ne!(state.process.id, first.id);
    assert_eq!(state.servers, []);
    lab.restart().await;
    let last = lab.master().info().await.unwrap();
    assert!(last.id != first.id && last.id != state.process.id);
}
