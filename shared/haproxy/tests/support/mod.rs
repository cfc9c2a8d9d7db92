//! A real HAProxy in a folder of its own, applications behind it, and requests through it.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

pub(crate) mod app;
pub(crate) mod lists;

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use berth_haproxy::{Address, Haproxy, NewServer, ServerId, Socket};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

/// For one call. Far more than any takes.
pub(crate) const TIME_LIMIT: Duration = Duration::from_secs(20);

/// A running HAProxy: a master with workers, sockets of both kinds, and a frontend on a socket in the file system.
pub(crate) struct Lab {
    pub(crate) folder: TempDir,
    master: Child,
}

/// What every configuration begins with. `{folder}` is the folder of the [`Lab`].
pub(crate) const HEAD: &str = "
global
    stats socket unix@{folder}/worker.sock mode 600 level admin
    stats socket unix@{folder}/operator.sock mode 600 level operator
defaults
    mode http
    timeout connect 2s
    timeout client 60s
    timeout server 60s
frontend front
    bind unix@{folder}/front.sock
    default_backend web
";

impl Lab {
    /// Starts HAProxy with the configuration `HEAD` and then `config`, and waits until it answers.
    pub(crate) async fn start(config: &str) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), config).await
    }

    pub(crate) async fn start_in(folder: TempDir, config: &str) -> Self {
        write_config(folder.path(), "haproxy.cfg", config);
        Self::start_existing(folder).await
    }

    /// Starts HAProxy with the `haproxy.cfg` that is in the folder.
    pub(crate) async fn start_existing(folder: TempDir) -> Self {
        let master = start_haproxy(folder.path(), &folder.path().join("haproxy.cfg"));
        let mut lab = Self { folder, master };
        lab.answers().await;
        lab
    }

    /// Starts HAProxy again after it was stopped.
    pub(crate) async fn restart(&mut self) {
        self.stop();
        self.master = start_haproxy(self.folder.path(), &self.path("haproxy.cfg"));
        self.answers().await;
    }

    async fn answers(&mut self) {
        eventually("HAProxy to answer", async || {
            if let Some(status) = self.master.try_wait().unwrap() {
                panic!("HAProxy ended with {status}: {}", fs::read_to_string(self.path("log")).unwrap());
            }
            self.master().info().await.ok()?;
            self.worker().info().await.ok()
        })
        .await;
    }

    /// Loads the configuration again, and waits for the new worker.
    pub(crate) async fn reload(&self) {
        let before = self.master().workers().await.unwrap().current.pid;
        kill(self.pid(), Signal::SIGUSR2).unwrap();
        eventually("the new worker", async || {
            let current = self.master().workers().await.ok()?.current.pid;
            let listening = self.worker().info().await.ok()?.id.pid;
            (current != before && listening == current).then_some(())
        })
        .await;
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A client of a worker's socket.
    pub(crate) fn worker(&self) -> Haproxy {
        self.client("worker.sock", Socket::Worker)
    }

    /// A client of the master's socket.
    pub(crate) fn master(&self) -> Haproxy {
        self.client("master.sock", Socket::Master)
    }

    pub(crate) fn client(&self, name: &str, socket: Socket) -> Haproxy {
        Haproxy::new(Address::Unix(self.path(name)), socket, TIME_LIMIT)
    }

    /// Opens a connection for requests to the frontend.
    pub(crate) async fn connect(&self) -> Client {
        Client::connect(&self.path("front.sock")).await
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.master.id()).unwrap())
    }

    fn stop(&mut self) {
        kill(self.pid(), Signal::SIGTERM).ok();
        self.master.wait().ok();
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The program, or a failure that says how to install it.
pub(crate) fn haproxy_program() -> PathBuf {
    let found = std::env::var_os("BERTH_HAPROXY").map(PathBuf::from);
    let places = ["/usr/sbin/haproxy", "/usr/local/sbin/haproxy", "/usr/bin/haproxy"].map(PathBuf::from);
    let found = found.or_else(|| places.into_iter().find(|path| path.exists()));
    found.unwrap_or_else(|| panic!("haproxy is not installed: scripts/packages.sh installs it"))
}

/// Writes a configuration that begins with [`HEAD`].
pub(crate) fn write_config(folder: &Path, name: &str, config: &str) {
    let text = format!("{HEAD}{config}").replace("{folder}", &folder.display().to_string());
    fs::write(folder.join(name), text).unwrap();
}

fn start_haproxy(folder: &Path, config: &Path) -> Child {
    let log = fs::File::options().create(true).append(true).open(folder.join("log")).unwrap();
    Command::new(haproxy_program())
        .arg("-W")
        .arg("-S")
        .arg(format!("{}/master.sock,mode,600", folder.display()))
        .arg("-f")
        .arg(config)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// A keep-alive connection to the frontend.
pub(crate) struct Client {
    stream: UnixStream,
}

impl Client {
    pub(crate) async fn connect(path: &Path) -> Self {
        Self { stream: UnixStream::connect(path).await.unwrap() }
    }

    /// Sends a request, without waiting for its answer.
    pub(crate) async fn send(&mut self, path: &str) {
        let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n");
        self.stream.write_all(request.as_bytes()).await.unwrap();
    }

    /// Waits for the answer: its status, and the text.
    pub(crate) async fn receive(&mut self) -> (u16, String) {
        let mut received = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&received).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let head = head.to_ascii_lowercase();
                let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse().ok());
                // HAProxy's own answers have no length and close the connection; their status is all that counts.
                if body.len() >= length.unwrap_or(0) {
                    return (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned());
                }
            }
            assert_ne!(self.stream.read_buf(&mut received).await.unwrap(), 0, "closed after {text:?}");
        }
    }

    pub(crate) async fn get(&mut self, path: &str) -> (u16, String) {
        self.send(path).await;
        self.receive().await
    }
}

/// A server of the backend `web`, without a check.
pub(crate) fn server(name: &str, port: u16) -> NewServer {
    NewServer {
        id: id(name),
        address: "127.0.0.1".parse().unwrap(),
        port,
        weight: 10,
        check: None,
        options: Vec::new(),
    }
}

/// A server of the backend `web`.
pub(crate) fn id(name: &str) -> ServerId {
    ServerId::new("web", name)
}

/// A port of loopback that is free now.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// Asks again and again until there is an answer.
pub(crate) async fn eventually<T>(what: &str, mut question: impl AsyncFnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(answer) = question().await {
            return answer;
        }
        assert!(begin.elapsed() < TIME_LIMIT, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
