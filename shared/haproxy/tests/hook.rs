//! `deploy/haproxy/berth-servers.sh`, with a real HAProxy and a little HTTP server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

mod support;

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use berth_haproxy::{
    AdminState, CheckOptions, NewServer, RefusalKind, ServerChange,
    config::{ConfiguredServer, server_list},
};
use support::{Lab, app::App, haproxy_program, id, lists::Lists, server, write_config};
use tempfile::TempDir;
use tokio::process::Command;

/// The administrator's own configuration: one server is his.
const OWN: &str = "
backend web
    balance roundrobin
    server own 127.0.0.1:9 weight 1 disabled
    # berth-servers web
backend api
    balance leastconn
    # berth-servers api
";

/// What a run of the hook did.
struct Run {
    succeeded: bool,
    said: String,
}

/// A folder with the administrator's configuration `own.cfg`. HAProxy is to load `haproxy.cfg`.
fn folder(own: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    write_config(folder.path(), "own.cfg", own);
    folder
}

async fn hook(mode: &str, folder: &Path, url: &str) -> Run {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/haproxy/berth-servers.sh");
    let output = Command::new("sh")
        .arg(script)
        .arg(mode)
        .env("BERTH_SERVERS_URL", url)
        .env("BERTH_SERVERS_CONFIG", folder.join("own.cfg"))
        .env("BERTH_SERVERS_STATE", folder.join("state"))
        .env("BERTH_SERVERS_OUTPUT", folder.join("haproxy.cfg"))
        .env("HAPROXY", haproxy_program())
        .output()
        .await
        .unwrap();
    Run { succeeded: output.status.success(), said: String::from_utf8(output.stderr).unwrap() }
}

/// Runs the hook, which must succeed.
async fn run(mode: &str, folder: &Path, url: &str) -> String {
    let run = hook(mode, folder, url).await;
    assert!(run.succeeded, "{}", run.said);
    run.said
}

/// The `server` lines that HAProxy would load.
fn loaded(folder: &Path) -> Vec<String> {
    let text = fs::read_to_string(folder.join("haproxy.cfg")).unwrap();
    let servers = text.lines().map(str::trim).filter(|line| line.starts_with("server "));
    servers.map(|line| line.split(' ').nth(1).unwrap().to_owned()).collect()
}

fn list(servers: &[(&str, u16, bool)]) -> String {
    let configured =
        servers.iter().map(|&(name, port, enabled)| ConfiguredServer { server: server(name, port), enabled });
    server_list("web", &configured.collect::<Vec<_>>()).unwrap()
}

const NOBODY: &str = "# backend api, 0 servers\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_keeps_servers_that_were_added_at_run_time() {
    let (one, two) = (App::start("one").await, App::start("two").await);
    let lists = Lists::start().await;
    lists.set("web", 200, &list(&[("a", one.port, true)]));
    lists.set("api", 200, NOBODY);
    let folder = folder(OWN);
    assert_eq!(run("start", folder.path(), &lists.url).await, "");
    let lab = Lab::start_existing(folder).await;
    let haproxy = lab.master();
    let enabled = [ServerChange::Add(server("b", two.port)), ServerChange::Enable(id("b"))];
    assert!(haproxy.apply(&enabled).await.unwrap().iter().all(Result::is_ok));

    // What runs is what the list says, plus a server that gets no traffic yet.
    lists.set("web", 200, &list(&[("a", one.port, true), ("b", two.port, true), ("c", two.port, false)]));
    let stop = Arc::new(AtomicBool::new(false));
    let path = lab.path("front.sock");
    let requests = tokio::spawn({
        let stop = Arc::clone(&stop);
        async move {
            let mut statuses = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                statuses.push(support::Client::connect(&path).await.get("/").await.0);
            }
            statuses
        }
    });
    assert_eq!(run("reload", lab.folder.path(), &lists.url).await, "");
    lab.reload().await;
    let servers = haproxy.servers("web").await.unwrap();
    let found: Vec<_> = servers.iter().map(|server| (server.id.name.as_str(), server.admin)).collect();
    assert_eq!(
        found,
        [("own", AdminState::Maint), ("a", AdminState::Ready), ("b", AdminState::Ready), ("c", AdminState::Maint)]
    );
    stop.store(true, Ordering::Relaxed);
    let statuses = requests.await.unwrap();
    assert!(statuses.len() > 10 && statuses.iter().all(|status| *status == 200), "{statuses:?}");

    // Servers of the configuration are managed like those that were added.
    let again = haproxy.change(ServerChange::Add(server("b", two.port))).await.unwrap_err();
    assert_eq!(again.refusal(), Some(RefusalKind::AlreadyExists));
    for change in [
        ServerChange::Enable(id("c")),
        ServerChange::SetState(id("b"), AdminState::Maint),
        ServerChange::Delete(id("b")),
        ServerChange::SetState(id("a"), AdminState::Maint),
        ServerChange::Delete(id("a")),
    ] {
        haproxy.change(change).await.unwrap();
    }
    assert_eq!(lab.connect().await.get("/").await, (200, "two".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configured_server_is_the_same_as_one_that_was_added() {
    let lists = Lists::start().await;
    let check = CheckOptions { rise: Some(3), ..CheckOptions::default() };
    let new = NewServer { check: Some(check), ..server("a", 9) };
    let configured = ConfiguredServer { server: new.clone(), enabled: false };
    lists.set("web", 200, &server_list("web", &[configured]).unwrap());
    lists.set("api", 200, NOBODY);
    let folder = folder(OWN);
    run("start", folder.path(), &lists.url).await;
    let lab = Lab::start_existing(folder).await;
    let haproxy = lab.worker();
    let added = NewServer { id: id("b"), ..new };
    haproxy.change(ServerChange::Add(added)).await.unwrap();
    for name in ["a", "b"] {
        for change in [ServerChange::Enable(id(name)), ServerChange::SetState(id(name), AdminState::Maint)] {
            haproxy.change(change).await.unwrap();
        }
    }
    let mut servers = haproxy.servers("web").await.unwrap();
    let (added, mut configured) = (servers.pop().unwrap(), servers.pop().unwrap());
    assert_eq!((configured.id.name.as_str(), added.id.name.as_str()), ("a", "b"));
    configured.id = added.id.clone();
    assert_eq!(configured, added);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_list_is_not_sent_again_and_an_unreachable_berth_changes_nothing() {
    let mut lists = Lists::start().await;
    let folder = folder(OWN);
    let path = folder.path();
    // A first start without Berth begins with the administrator's own servers.
    let said = run("start", path, "http://127.0.0.1:1/nobody").await;
    assert!(said.contains("Berth cannot be reached") && said.contains("'web' are not known yet"), "{said}");
    assert_eq!(loaded(path), ["own"]);

    lists.set("web", 200, &list(&[("a", 9, true)]));
    lists.set("api", 200, NOBODY);
    assert_eq!(run("reload", path, &lists.url).await, "");
    assert_eq!((loaded(path), lists.answered()), (vec!["own".to_owned(), "a".to_owned()], vec![200, 200]));
    assert_eq!(run("reload", path, &lists.url).await, "");
    assert_eq!((loaded(path).len(), lists.answered()), (2, vec![304, 304]));
    lists.set("web", 200, &list(&[("b", 9, true)]));
    assert_eq!(run("reload", path, &lists.url).await, "");
    assert_eq!((loaded(path), lists.answered()), (vec!["own".to_owned(), "b".to_owned()], vec![304, 200]));

    lists.stop().await;
    let said = run("reload", path, &lists.url).await;
    assert_eq!(said.matches("cannot be reached").count(), 1, "nobody waits for each backend: {said}");
    assert_eq!(loaded(path), ["own", "b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_not_a_list_is_ignored() {
    let lists = Lists::start().await;
    let folder = folder(OWN);
    let path = folder.path();
    lists.set("web", 200, &list(&[("a", 9, true)]));
    lists.set("api", 200, NOBODY);
    run("start", path, &lists.url).await;
    let good = fs::read_to_string(path.join("haproxy.cfg")).unwrap();
    let cut = list(&[("a", 9, true), ("b", 9, true)]);
    let cut = &cut[..cut.trim_end().rfind('\n').unwrap()];
    let pages = [
        (200, "", "not the list"),
        (200, "<html>log in</html>", "not the list"),
        (200, cut, "not the list"),
        (200, "# backend web, 0 servers\nbackend evil\n", "not the list"),
        (200, "# backend api, 0 servers\n", "not the list"),
        (404, "", "status 404"),
        (500, &list(&[]), "status 500"),
    ];
    for (status, text, why) in pages {
        lists.set("web", status, text);
        let said = run("reload", path, &lists.url).await;
        assert!(said.contains(why) && said.contains("/web"), "{text:?}: {said}");
        assert_eq!(fs::read_to_string(path.join("haproxy.cfg")).unwrap(), good, "{text:?}");
    }
    // An empty list is a list.
    lists.set("web", 200, &list(&[]));
    assert_eq!(run("reload", path, &lists.url).await, "");
    assert_eq!(loaded(path), ["own"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_haproxy_refuses_falls_back_to_the_last_good_one() {
    let lists = Lists::start().await;
    let folder = folder(OWN);
    let path = folder.path();
    lists.set("web", 200, &list(&[("a", 9, true)]));
    lists.set("api", 200, NOBODY);
    run("start", path, &lists.url).await;
    let refused = NewServer { options: vec!["nonsense".to_owned()], ..server("b", 9) };
    let refused = server_list("web", &[ConfiguredServer { server: refused, enabled: true }]).unwrap();
    lists.set("web", 200, &refused);
    for mode in ["start", "reload"] {
        let said = run(mode, path, &lists.url).await;
        assert!(
            said.contains("unknown keyword 'nonsense'") && said.contains("accepted the last time are used"),
            "{said}"
        );
        assert_eq!(loaded(path), ["own", "a"]);
    }
    lists.set("web", 200, &list(&[("b", 9, true)]));
    assert_eq!(run("reload", path, &lists.url).await, "");
    assert_eq!(loaded(path), ["own", "b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_of_the_administrator_fails_a_reload_and_not_a_start() {
    let lists = Lists::start().await;
    lists.set("web", 200, &list(&[("a", 9, true)]));
    lists.set("api", 200, NOBODY);
    let folder = folder(&format!("{OWN}    nonsense\n"));
    let path = folder.path();
    let first = hook("start", path, &lists.url).await;
    assert!(!first.succeeded && first.said.contains("no earlier configuration"), "{}", first.said);
    assert!(first.said.contains("unknown keyword 'nonsense'"), "{}", first.said);

    write_config(path, "own.cfg", OWN);
    run("start", path, &lists.url).await;
    let good = fs::read_to_string(path.join("haproxy.cfg")).unwrap();
    write_config(path, "own.cfg", &format!("{OWN}    nonsense\n"));
    let reload = hook("reload", path, &lists.url).await;
    assert!(!reload.succeeded && reload.said.contains("nothing was changed"), "{}", reload.said);
    let said = run("start", path, &lists.url).await;
    assert!(said.contains("so the fault is in") && said.contains("from before that fault"), "{said}");
    assert_eq!(fs::read_to_string(path.join("haproxy.cfg")).unwrap(), good);
    let left: Vec<_> = fs::read_dir(path.join("state")).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains("candidate")), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_settings_are_named() {
    let folder = folder("\nbackend web\n    balance roundrobin\n");
    let path = folder.path();
    let wrong = hook("restart", path, "http://127.0.0.1:1").await;
    assert!(!wrong.succeeded && wrong.said.contains("say start or reload, not 'restart'"), "{}", wrong.said);
    let wrong = hook("start", path, "").await;
    assert!(!wrong.succeeded && wrong.said.contains("BERTH_SERVERS_URL is not set"), "{}", wrong.said);
    let said = run("start", path, "http://127.0.0.1:1").await;
    assert!(said.contains("no line '# berth-servers BACKEND'"), "{said}");
    fs::remove_file(path.join("own.cfg")).unwrap();
    let wrong = hook("start", path, "http://127.0.0.1:1").await;
    assert!(!wrong.succeeded && wrong.said.contains("BERTH_SERVERS_CONFIG names"), "{}", wrong.said);
}
