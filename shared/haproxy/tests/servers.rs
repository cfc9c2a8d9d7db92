//! The life of servers at a real HAProxy.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

mod support;

use std::time::{Duration, Instant};

use berth_haproxy::{
    AdminState, CheckOptions, CheckState, NewServer, Operational, Problem, RefusalKind, ServerChange, ServerId,
    ServerState, Socket,
};
use support::{Lab, app::App, eventually, id, server};

/// A backend with a server of somebody else.
const WEB: &str = "
backend web
    balance roundrobin
    server foreign 127.0.0.1:9 weight 7 disabled
backend static
    balance source
    server only 127.0.0.1:9
    server followed 127.0.0.1:9 check inter 1h
backend following
    server follower 127.0.0.1:9 track static/followed
";

async fn find(lab: &Lab, name: &str) -> ServerState {
    let servers = lab.master().servers("web").await.unwrap();
    servers.into_iter().find(|server| server.id.name == name).unwrap_or_else(|| panic!("no server {name}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_lives_from_addition_to_deletion_and_others_are_untouched() {
    let lab = Lab::start(WEB).await;
    let (one, two) = (App::start("one").await, App::start("two").await);
    let foreign = find(&lab, "foreign").await;
    let new = NewServer {
        check: Some(CheckOptions { interval: Some(Duration::from_millis(50)), ..CheckOptions::default() }),
        ..server("a", one.port)
    };

    for haproxy in [lab.worker(), lab.master()] {
        haproxy.change(ServerChange::Add(new.clone())).await.unwrap();
        let added = find(&lab, "a").await;
        assert_eq!(
            (added.admin, added.check, added.operational),
            (AdminState::Maint, CheckState::Disabled, Operational::Down)
        );
        assert_eq!((added.address.as_deref(), added.port, added.weight), (Some("127.0.0.1"), one.port, 10));
        assert_eq!(lab.connect().await.get("/").await.0, 503);

        haproxy.change(ServerChange::Enable(id("a"))).await.unwrap();
        let up = eventually("a passed check", async || {
            Some(find(&lab, "a").await).filter(|server| server.check == CheckState::Passed)
        });
        let up = up.await;
        assert_eq!((up.admin, up.operational, up.status.as_str()), (AdminState::Ready, Operational::Up, "UP"));
        assert_eq!(lab.connect().await.get("/").await, (200, "one".to_owned()));

        haproxy.change(ServerChange::SetWeight(id("a"), 77)).await.unwrap();
        let address = "127.0.0.1".parse().unwrap();
        let move_to_two = ServerChange::SetAddress(id("a"), address, two.port);
        haproxy.change(move_to_two.clone()).await.unwrap();
        let moved = eventually("the new address", async || {
            Some(find(&lab, "a").await).filter(|server| server.port == two.port)
        });
        let moved = moved.await;
        assert_eq!((moved.weight, moved.initial_weight), (77, 10));
        haproxy.change(move_to_two).await.unwrap();
        assert_eq!(lab.connect().await.get("/").await, (200, "two".to_owned()));

        haproxy.change(ServerChange::SetState(id("a"), AdminState::Drain)).await.unwrap();
        assert_eq!(find(&lab, "a").await.admin, AdminState::Drain);
        assert_eq!(lab.connect().await.get("/").await.0, 503);
        haproxy.change(ServerChange::SetState(id("a"), AdminState::Maint)).await.unwrap();
        let resting = find(&lab, "a").await;
        assert_eq!((resting.admin, resting.check), (AdminState::Maint, CheckState::Paused));
        haproxy.change(ServerChange::Delete(id("a"))).await.unwrap();
        assert_eq!(haproxy.servers("web").await.unwrap(), std::slice::from_ref(&foreign));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_that_fails_is_seen() {
    let lab = Lab::start(WEB).await;
    let closed = support::free_port();
    let check = CheckOptions { interval: Some(Duration::from_millis(50)), fall: Some(1), ..CheckOptions::default() };
    let new = NewServer { check: Some(check), ..server("a", closed) };
    for change in [ServerChange::Add(new), ServerChange::Enable(id("a"))] {
        lab.worker().change(change).await.unwrap();
    }
    let down = eventually("a failed check", async || {
        Some(find(&lab, "a").await).filter(|server| server.check == CheckState::Failed)
    });
    assert_eq!(down.await.operational, Operational::Down);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_refusal_has_its_kind() {
    use RefusalKind::{
        AlreadyExists, InUseByConfiguration, NoSuchBackend, NoSuchServer, NotInMaintenance, StaticBalancing, Unknown,
    };
    let lab = Lab::start(WEB).await;
    let elsewhere = |backend: &str, name: &str| NewServer { id: ServerId::new(backend, name), ..server(name, 9) };
    let with = |options: &[&str]| NewServer {
        options: options.iter().map(|option| (*option).to_owned()).collect(),
        ..server("b", 9)
    };
    let of = ServerId::new;
    let cases = [
        (ServerChange::Add(elsewhere("nowhere", "a")), NoSuchBackend),
        (ServerChange::Add(server("foreign", 9)), AlreadyExists),
        (ServerChange::Add(elsewhere("static", "a")), StaticBalancing),
        (ServerChange::Add(with(&["nonsense"])), Unknown),
        (ServerChange::Enable(id("nobody")), NoSuchServer),
        (ServerChange::Enable(of("nowhere", "a")), NoSuchBackend),
        (ServerChange::SetWeight(id("nobody"), 1), NoSuchServer),
        (ServerChange::SetWeight(of("static", "only"), 9), StaticBalancing),
        (ServerChange::SetState(id("nobody"), AdminState::Drain), NoSuchServer),
        (ServerChange::SetAddress(id("nobody"), "127.0.0.1".parse().unwrap(), 9), NoSuchServer),
        (ServerChange::Delete(id("nobody")), NoSuchServer),
        (ServerChange::Delete(of("static", "only")), NotInMaintenance),
        (ServerChange::Delete(of("static", "followed")), InUseByConfiguration),
    ];
    for haproxy in [lab.worker(), lab.master()] {
        for (change, kind) in &cases {
            let error = haproxy.change(change.clone()).await.unwrap_err();
            assert_eq!(error.refusal(), Some(*kind), "{change}: {error}");
        }
        assert_eq!(haproxy.servers("nowhere").await.unwrap_err().refusal(), Some(NoSuchBackend));
        assert_eq!(haproxy.in_flight(Some("nowhere")).await.unwrap_err().refusal(), Some(NoSuchBackend));
    }
    let error = lab.worker().change(cases[3].0.clone()).await.unwrap_err().to_string();
    assert!(error.contains("worker.sock, asked `add server web/b 127.0.0.1:9"), "{error}");
    assert!(error.ends_with("HAProxy answered: unknown keyword 'nonsense'."), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_change_stops_the_later_ones_of_the_same_server_only() {
    let lab = Lab::start(WEB).await;
    let changes = [
        ServerChange::Add(server("foreign", 9)),
        ServerChange::Add(server("a", 9)),
        ServerChange::Enable(id("foreign")),
        ServerChange::Enable(id("a")),
    ];
    let outcomes = lab.worker().apply(&changes).await.unwrap();
    assert_eq!(outcomes[0].as_ref().unwrap_err().refusal(), Some(RefusalKind::AlreadyExists));
    let skipped = outcomes[2].as_ref().unwrap_err();
    assert!(matches!(skipped.problem, Problem::NotSent(_)) && !skipped.is_uncertain(), "{skipped}");
    assert!(outcomes[1].is_ok() && outcomes[3].is_ok());
    assert_eq!(find(&lab, "foreign").await.admin, AdminState::Maint);
    assert_eq!(find(&lab, "a").await.admin, AdminState::Ready);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_of_a_lower_level_says_what_is_missing() {
    let lab = Lab::start(WEB).await;
    let operator = lab.client("operator.sock", Socket::Worker);
    let missing = operator.capabilities().await.unwrap().missing().unwrap();
    assert!(missing.contains("level operator"), "{missing}");
    let error = operator.change(ServerChange::Enable(id("foreign"))).await.unwrap_err();
    assert_eq!(error.refusal(), Some(RefusalKind::PermissionDenied), "{error}");
    assert_eq!(operator.servers("web").await.unwrap().len(), 1);
    for haproxy in [lab.worker(), lab.master()] {
        let capabilities = haproxy.capabilities().await.unwrap();
        assert_eq!(capabilities.missing(), None);
        assert!(capabilities.has("shutdown sessions server"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_servers_are_read_and_changed_in_one_call_each() {
    const SERVERS: u16 = 5000;
    let lines: String = (0..SERVERS)
        .map(|n| format!("    server fleet-server-{n:05} 127.1.{}.{}:80 check inter 1h disabled\n", n / 200, n % 200))
        .fold(String::from("\nbackend web\n    balance roundrobin\n"), |all, line| all + &line);
    let lab = Lab::start(&lines).await;
    for (what, haproxy) in [("worker", lab.worker()), ("master", lab.master())] {
        let begin = Instant::now();
        let state = haproxy.state(None).await.unwrap();
        println!("{what}: {SERVERS} servers read in {:?}", begin.elapsed());
        assert_eq!(state.servers.len(), usize::from(SERVERS));
        let changes: Vec<_> = state.servers.into_iter().map(|server| ServerChange::SetWeight(server.id, 3)).collect();
        let begin = Instant::now();
        let outcomes = haproxy.apply(&changes).await.unwrap();
        println!("{what}: {SERVERS} weights set in {:?}", begin.elapsed());
        assert!(outcomes.iter().all(Result::is_ok));
        let after = haproxy.state(Some("web")).await.unwrap();
        assert!(after.servers.iter().all(|server| server.weight == 3));
    }
}
