//! What the client makes of a HAProxy that does not answer, or of something that is not HAProxy.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

use std::{path::PathBuf, time::Duration};

use berth_haproxy::{Address, AdminState, Haproxy, HaproxyError, Problem, ServerChange, ServerId, Socket};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::UnixListener,
};

/// A socket that answers each command with the next of `answers`, and after the last one closes the connection or hangs.
struct Fake {
    folder: TempDir,
    task: tokio::task::JoinHandle<()>,
}

impl Fake {
    fn start(answers: &[&'static str], hang: bool) -> Self {
        Self::start_with(vec![answers.to_vec()], hang)
    }

    /// With other answers for each connection; the last ones are for all that follow.
    fn start_with(mut answers: Vec<Vec<&'static str>>, hang: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("s")).unwrap();
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let answers = if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() };
                tokio::spawn(async move {
                    let mut stream = BufReader::new(stream);
                    for answer in answers {
                        stream.read_line(&mut String::new()).await.unwrap();
                        stream.write_all(answer.as_bytes()).await.unwrap();
                    }
                    if hang {
                        stream.read_line(&mut String::new()).await.unwrap();
                        std::future::pending::<()>().await;
                    }
                });
            }
        });
        Self { folder, task }
    }

    fn client(&self, socket: Socket, limit: Duration) -> Haproxy {
        Haproxy::new(Address::Unix(self.path()), socket, limit)
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("s")
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(200);

fn drain(name: &str) -> ServerChange {
    ServerChange::SetState(ServerId::new("web", name), AdminState::Drain)
}

async fn failure(answers: &[&'static str]) -> HaproxyError {
    Fake::start(answers, false).client(Socket::Worker, LONG).change(drain("a")).await.unwrap_err()
}

#[tokio::test]
async fn nothing_listens_there() {
    let folder = tempfile::tempdir().unwrap();
    let missing = Haproxy::new(Address::Unix(folder.path().join("s")), Socket::Worker, LONG);
    let error = missing.info().await.unwrap_err();
    assert!(matches!(error.problem, Problem::Unreachable(_)) && !error.is_uncertain());
    assert!(error.to_string().contains("asked `connect`: cannot connect: No such file"), "{error}");
    let port = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    let refused = Haproxy::new(Address::Tcp { host: "127.0.0.1".to_owned(), port, tls: None }, Socket::Worker, LONG);
    let error = refused.info().await.unwrap_err();
    assert!(error.to_string().starts_with(&format!("HAProxy at 127.0.0.1:{port}, asked `connect`: cannot connect: ")));
    assert!(error.to_string().contains("refused"), "{error}");
}

#[tokio::test]
async fn a_socket_that_never_answers_times_out() {
    let silent = Fake::start(&[], true);
    let error = silent.client(Socket::Worker, SHORT).info().await.unwrap_err();
    assert!(matches!(&error.problem, Problem::TimedOut { received, .. } if received == "nothing"), "{error}");
    assert!(!error.is_uncertain(), "no command was sent");

    let stuck = Fake::start(&["\n> "], true);
    let outcomes = stuck.client(Socket::Worker, SHORT).apply(&[drain("a"), drain("b")]).await.unwrap();
    let error = outcomes[0].as_ref().unwrap_err();
    assert!(error.is_uncertain() && matches!(error.problem, Problem::TimedOut { .. }), "{error}");
    assert!(
        error.to_string().contains("asked `set server web/a state drain`: no complete answer within 200ms"),
        "{error}"
    );
    let rest = outcomes[1].as_ref().unwrap_err();
    assert!(matches!(rest.problem, Problem::NotSent(_)) && !rest.is_uncertain(), "{rest}");
}

#[tokio::test]
async fn a_cut_off_answer_is_no_success() {
    // A silent success is a prompt; nothing at all is not.
    for (came, shown) in [("", "nothing"), ("\n>", ">"), ("No such ser", "No such ser")] {
        let error = failure(&["\n> ", came]).await;
        assert!(matches!(&error.problem, Problem::CutOff { received } if received == shown), "{error}");
        assert!(error.is_uncertain());
    }
    let states = "1\n# be_id be_name srv_id srv_name\n3 web 1 a";
    let fake = Fake::start(&["\n> ", "Pid: 3\nVersion: 2\nUptime_sec: 1\nStopping: 0\n\n> ", states], false);
    let error = fake.client(Socket::Worker, LONG).servers("web").await.unwrap_err();
    assert!(matches!(error.problem, Problem::CutOff { .. }), "{error}");
    assert_eq!(error.command, "show servers state web");
}

/// As HAProxy 2.6 does now and then: the answer is whole, and the master's prompt does not come.
#[tokio::test]
async fn a_master_that_forgets_its_prompt_is_asked_over_another_connection() {
    let first = ["master> ", "#<PID>\n# workers\n7 worker 0 0d 2.6\n\n"].to_vec();
    let second = ["master> ", "Pid: 7\nVersion: 2\nUptime_sec: 1\nStopping: 0\n\nmaster> "].to_vec();
    let fake = Fake::start_with(vec![first.clone(), second], true);
    assert_eq!(fake.client(Socket::Master, LONG).info().await.unwrap().id.pid, 7);
    // Without its last line an answer is not whole.
    let cut = ["master> ", "#<PID>\n# workers\n7 worker 0 0d 2.6\n"];
    let error = Fake::start(&cut, true).client(Socket::Master, SHORT).workers().await.unwrap_err();
    assert!(matches!(error.problem, Problem::TimedOut { .. }), "{error}");
    // The other connection fails: the rest of the changes is not tried again and again.
    let fake = Fake::start_with(vec![first, Vec::new()], true);
    let outcomes = fake.client(Socket::Master, SHORT).apply(&[drain("a"), drain("b")]).await.unwrap();
    let failed = outcomes[0].as_ref().unwrap_err();
    assert!(matches!(failed.problem, Problem::TimedOut { .. }) && !failed.is_uncertain(), "{failed}");
    assert!(matches!(outcomes[1].as_ref().unwrap_err().problem, Problem::NotSent(_)));
}

#[tokio::test]
async fn a_garbled_answer_is_shown() {
    let error = failure(&["\n> ", "\u{1}\u{2}ok\n\n> "]).await;
    assert!(error.to_string().ends_with("HAProxy answered: \\u{1}\\u{2}ok"), "{error}");
    let fake = Fake::start(&["\n> ", "Pid: x\n\n> "], false);
    let error = fake.client(Socket::Worker, LONG).info().await.unwrap_err();
    assert!(matches!(error.problem, Problem::Garbled { .. }), "{error}");
    assert!(error.to_string().ends_with("a number for `Pid`: x"), "{error}");
    let fake = Fake::start(&["master> ", "hello\n\nmaster> "], false);
    let error = fake.client(Socket::Master, LONG).workers().await.unwrap_err();
    assert!(error.to_string().ends_with("the answer is not the master's list of processes: hello"), "{error}");
}

#[tokio::test]
async fn something_that_is_not_haproxy_is_told() {
    let fake = Fake::start(&["HTTP/1.0 400 Bad Request\r\n\r\n"], false);
    let error = fake.client(Socket::Worker, LONG).info().await.unwrap_err();
    assert!(error.to_string().contains("HTTP/1.0 400 Bad Request"), "{error}");
    let master = Fake::start(&["master> "], true);
    let error = master.client(Socket::Worker, LONG).info().await.unwrap_err();
    assert!(error.to_string().contains("this is the master's socket"), "{error}");
}

#[tokio::test]
async fn what_cannot_be_said_is_not_sent() {
    let fake = Fake::start(&["\n> "], true);
    let haproxy = fake.client(Socket::Worker, LONG);
    let error = haproxy.change(drain("a;b")).await.unwrap_err();
    assert!(matches!(error.problem, Problem::NotSent(_)), "{error}");
    let error = haproxy.servers("a b").await.unwrap_err();
    assert!(error.to_string().contains("\"a b\" cannot be the name of a backend"), "{error}");
}
