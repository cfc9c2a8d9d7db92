//! A real HAProxy in front of the machines of a test.

use std::{
    env, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use berth_control_plane::{ChildProcess, Guard, Launch};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
};

use crate::{part::free_address, programs::repository, wait::eventually};

/// Where it may be besides the folders of PATH, which of people other than root often lacks these.
const FOLDERS: [&str; 2] = ["/usr/sbin", "/usr/local/sbin"];
/// The socket of its master, in its folder.
const SOCKET: &str = "master.sock";
/// It starts in less than a tenth of this.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// It answers in a millisecond.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// An HAProxy with a master and a worker, one frontend, and two empty backends: `canary` for requests with the header
/// `x-canary`, and `web` for all others. It ends when this is dropped or this process dies.
#[derive(Debug)]
pub struct HaProxy {
    process: ChildProcess,
    guard: Guard,
    frontend: SocketAddr,
    script: Option<Script>,
}

/// The script that is shipped for HAProxy.
#[derive(Debug)]
struct Script {
    url: String,
    dir: PathBuf,
    haproxy: PathBuf,
}

impl Script {
    fn run(&self, mode: &str) -> Result<()> {
        let script = repository().join("deploy/haproxy/berth-servers.sh");
        let mut command = Command::new("/bin/sh");
        command.arg(script).arg(mode).env("BERTH_SERVERS_URL", &self.url).env("HAPROXY", &self.haproxy);
        command.env("BERTH_SERVERS_CONFIG", self.dir.join("haproxy.cfg"));
        command.env("BERTH_SERVERS_STATE", self.dir.join("state"));
        let output = command.output().context("run berth-servers.sh")?;
        ensure!(output.status.success(), "berth-servers.sh {mode}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }
}

impl HaProxy {
    /// The program, if it is installed.
    #[must_use]
    pub fn installed() -> Option<PathBuf> {
        let path = env::var_os("PATH").unwrap_or_default();
        let folders = env::split_paths(&path).chain(FOLDERS.map(PathBuf::from));
        folders.map(|folder| folder.join("haproxy")).find(|program| program.is_file())
    }

    /// Starts it and waits until it listens. It forgets the servers that were added when it is reloaded or restarted.
    ///
    /// # Errors
    /// When HAProxy is not installed, or does not start.
    pub async fn start() -> Result<Self> {
        Self::start_with(None, false).await
    }

    /// The same, and what a server does not answer because it dies is asked of another one, as long as it is a GET.
    ///
    /// # Errors
    /// When HAProxy is not installed, or does not start.
    pub async fn start_with_repetition() -> Result<Self> {
        Self::start_with(None, true).await
    }

    /// The same as [`Self::start`], with the script that puts the servers of this class into the configuration: Berth serves them at
    /// this address.
    ///
    /// # Errors
    /// When HAProxy is not installed, or does not start.
    pub async fn start_with_servers_of(class: &str, servers: SocketAddr) -> Result<Self> {
        Self::start_with(Some(format!("http://{servers}/haproxy/{class}")), false).await
    }

    async fn start_with(servers: Option<String>, repeats: bool) -> Result<Self> {
        let program = Self::installed().context("haproxy is missing: install it with scripts/packages.sh")?;
        let guard = Guard::temporary("berth-haproxy")?;
        let frontend = free_address()?;
        fs::write(guard.dir().join("haproxy.cfg"), configuration(frontend, repeats))?;
        let socket = format!("{},level,admin", guard.dir().join(SOCKET).display());
        let script = servers.map(|url| Script { url, dir: guard.dir().to_owned(), haproxy: program.clone() });
        let loaded = if script.is_some() { "state/haproxy.cfg" } else { "haproxy.cfg" };
        if let Some(script) = &script {
            script.run("start")?;
        }
        let launch =
            Launch::new("haproxy", program).args(["-W", "-db", "-f", loaded, "-S", &socket]).current_dir(guard.dir());
        let process = launch.spawn(&guard)?;
        let haproxy = Self { process, guard, frontend, script };
        haproxy.listens().await?;
        Ok(haproxy)
    }

    /// Where clients send their requests.
    #[must_use]
    pub fn frontend(&self) -> SocketAddr {
        self.frontend
    }

    /// The master's socket, as an address of a BalancerClass.
    #[must_use]
    pub fn address(&self) -> String {
        format!("unix:{}", self.socket().display())
    }

    /// The folder of its configuration.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.guard.dir()
    }

    fn socket(&self) -> PathBuf {
        self.guard.dir().join(SOCKET)
    }

    /// Reads its configuration anew: a new worker takes over, and the old one finishes its requests.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn reload(&self) -> Result<()> {
        if let Some(script) = &self.script {
            script.run("reload")?;
        }
        self.signal(Signal::SIGUSR2)
    }

    /// Kills the master, and waits until its workers have noticed it and ended: they would share the port with the next ones.
    ///
    /// # Errors
    /// When the process is gone, or a worker stays.
    pub async fn kill(&self) -> Result<()> {
        self.process.kill9().context("kill HAProxy")?;
        let ended =
            eventually("HAProxy's workers end", START_TIMEOUT, async || {
                match tokio::net::TcpStream::connect(self.frontend).await {
                    Ok(_) => Err(format!("{} still listens", self.frontend)),
                    Err(_) => Ok(()),
                }
            });
        ended.await
    }

    /// Starts it again after [`Self::kill`].
    ///
    /// # Errors
    /// When it does not start.
    pub async fn restart(&self) -> Result<()> {
        if let Some(script) = &self.script {
            script.run("start")?;
        }
        self.process.restart()?;
        self.listens().await
    }

    /// How often a request was sent once more, because a server did not take or answer it.
    ///
    /// # Errors
    /// When HAProxy does not answer.
    pub async fn repeated(&self) -> Result<u64> {
        let answer = self.ask("show stat").await?;
        repetitions(&answer).with_context(|| format!("no count of retries in HAProxy's answer: {answer:?}"))
    }

    /// What the first worker answers to this command.
    ///
    /// # Errors
    /// When HAProxy does not answer.
    pub async fn ask(&self, command: &str) -> Result<String> {
        let mut connection = UnixStream::connect(self.socket()).await.context("connect to HAProxy's socket")?;
        connection.write_all(format!("@1 {command}\nquit\n").as_bytes()).await.context("ask HAProxy")?;
        let mut answer = String::new();
        let read = tokio::time::timeout(ANSWER_TIMEOUT, connection.read_to_string(&mut answer));
        read.await.context("HAProxy does not answer")?.context("read from HAProxy")?;
        Ok(answer)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.process.pid()).context("a process id")?;
        kill(Pid::from_raw(pid), signal).with_context(|| format!("send {signal} to HAProxy"))
    }

    async fn listens(&self) -> Result<()> {
        let listens = eventually("HAProxy listens", START_TIMEOUT, async || {
            let reached = tokio::net::TcpStream::connect(self.frontend).await;
            if reached.is_ok() && self.socket().exists() { Ok(()) } else { Err(self.process.log_tail()) }
        });
        listens.await
    }
}

/// The columns `wretr` and `wredis`, the same server and another one, of the backend `web` in an answer to `show stat`.
fn repetitions(answer: &str) -> Option<u64> {
    let mut lines = answer.lines().skip_while(|line| !line.starts_with("# pxname"));
    let names: Vec<_> = lines.next()?.split(',').collect();
    let values: Vec<_> = lines.find(|line| line.starts_with("web,BACKEND,"))?.split(',').collect();
    let count = |name: &str| values.get(names.iter().position(|found| *found == name)?)?.parse::<u64>().ok();
    Some(count("wretr")? + count("wredis")?)
}

fn configuration(frontend: SocketAddr, repeats: bool) -> String {
    let repetition = if repeats {
        "    retries 3\n    retry-on conn-failure empty-response\n    http-request disable-l7-retry unless METH_GET\n"
    } else {
        "    retries 1\n"
    };
    format!(
        "global\n    maxconn 2000\n    nbthread 1\n\
         defaults\n    mode http\n    timeout connect 2s\n    timeout client 30s\n    timeout server 30s\n    option redispatch 1\n\
         frontend web\n    bind {frontend}\n    use_backend canary if {{ req.hdr(x-canary) -m found }}\n    default_backend web\n\
         backend canary\n    balance roundrobin\n    retries 1\n\
         backend web\n    balance roundrobin\n{repetition}    # berth-servers web\n"
    )
}
