//! A Debian machine for tests, built from the host that they run on, and a web server for its packages.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{BufRead as _, BufReader, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use berth_machine::{
    Machine as _,
    ssh::{ClientKey, PoolConfig, SshMachine, SshPool, SshTarget},
};
use parking_lot::Mutex;

/// Limit for one command on the machine: generous, because the host may be busy with other tests.
pub(crate) const LIMIT: Duration = Duration::from_mins(2);

/// The machine. It ends when this is dropped, and with the test's process.
pub(crate) struct Debian {
    process: Child,
    pub(crate) machine: SshMachine,
}

impl Drop for Debian {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Debian {
    /// Starts it and waits until its SSH server answers.
    pub(crate) async fn start() -> Self {
        for (program, package) in
            [("/usr/sbin/sshd", "openssh-server"), ("/usr/bin/apt-get", "apt"), ("/usr/bin/setpriv", "util-linux")]
        {
            assert!(Path::new(program).exists(), "{program} is missing: run this on a Debian host with {package}");
        }
        let me = Command::new("id").arg("-u").output().unwrap().stdout;
        assert_eq!(me, b"0\n", "this test mounts and needs root: run it as root, or in a container with CAP_SYS_ADMIN");
        let (host, client) = (ClientKey::generate().unwrap(), ClientKey::generate().unwrap());
        let address = Ipv4Addr::new(127, 0, 1, 7);
        let port = TcpListener::bind((address, 0)).unwrap().local_addr().unwrap().port();
        // The machine ends with unshare, and unshare ends with this process, even if this process is killed.
        let process = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--uts", "--ipc", "--fork"])
            .args(["--kill-child=KILL", "--propagation", "private", "sh", "-c", include_str!("machine.sh"), "machine"])
            .args([address.to_string(), port.to_string()])
            .env("HOST_KEY", host.to_openssh().unwrap())
            .env("AUTHORIZED_KEY", client.public_openssh().unwrap())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let target = SshTarget {
            address: address.to_string(),
            port,
            user: "root".into(),
            host_key: host.public_openssh().unwrap(),
        };
        // With the limits of production, a handshake on a busy host would fail a test.
        let config = PoolConfig { connect_timeout: LIMIT, auth_timeout: LIMIT, ..PoolConfig::default() };
        let mut debian = Self { process, machine: SshPool::new(client, config).machine(target) };
        debian.await_ssh(SocketAddr::from((address, port))).await;
        debian
    }

    async fn await_ssh(&mut self, address: SocketAddr) {
        let deadline = Instant::now() + LIMIT;
        while TcpStream::connect(address).is_err() {
            if let Some(status) = self.process.try_wait().unwrap() {
                let mut errors = String::new();
                std::io::Read::read_to_string(&mut self.process.stderr.take().unwrap(), &mut errors).unwrap();
                panic!("the machine did not start ({status}): {errors}");
            }
            assert!(Instant::now() < deadline, "the machine's SSH server does not listen");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Runs a command that must succeed, and returns what it wrote.
    pub(crate) async fn run(&self, script: &str) -> String {
        String::from_utf8(self.bytes(script).await).unwrap()
    }

    /// As `run`, for output that is not text.
    pub(crate) async fn bytes(&self, script: &str) -> Vec<u8> {
        let output = self.machine.exec(script, None, LIMIT).await.unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.success() && !output.truncated, "{script}: status {}: {errors}", output.status);
        output.stdout
    }

    /// Waits until a command succeeds.
    pub(crate) async fn until(&self, script: &str) {
        let deadline = Instant::now() + LIMIT;
        while !self.machine.exec(script, None, LIMIT).await.unwrap().success() {
            assert!(Instant::now() < deadline, "waited in vain for: {script}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Kills all processes of the machine but its first at once, as a power failure would: none can clean up.
    pub(crate) async fn cut_power(&self) {
        // This command is killed as well, and its connection breaks.
        let _ = self.machine.exec("kill -KILL -1", None, LIMIT).await;
    }

    /// Waits until nothing runs any more that was running when the power was cut, and the machine answers again.
    pub(crate) async fn await_power(&self) {
        let deadline = Instant::now() + LIMIT;
        let is_quiet = "! grep -qsxE 'dpkg|apt-get' /proc/[0-9]*/comm";
        while !self.machine.exec(is_quiet, None, LIMIT).await.is_ok_and(|output| output.success()) {
            assert!(Instant::now() < deadline, "the machine does not come back");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Contents by path.
pub(crate) type MirrorFiles = BTreeMap<String, Vec<u8>>;

/// A web server on the loopback that serves files from memory.
#[derive(Clone)]
pub(crate) struct Mirror {
    files: Arc<Mutex<Option<MirrorFiles>>>,
    requests: Arc<Mutex<Vec<String>>>,
    pub(crate) address: SocketAddr,
}

impl Mirror {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mirror = Self {
            files: Arc::new(Mutex::new(Some(MirrorFiles::new()))),
            requests: Arc::default(),
            address: listener.local_addr().unwrap(),
        };
        let serving = mirror.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mirror = serving.clone();
                std::thread::spawn(move || mirror.serve(&stream));
            }
        });
        mirror
    }

    /// Serves these files from now on; with `None` it closes the connection of every request.
    pub(crate) fn publish(&self, files: Option<MirrorFiles>) {
        *self.files.lock() = files;
    }

    /// The paths that were requested since the last call.
    pub(crate) fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.requests.lock())
    }

    fn serve(&self, stream: &TcpStream) {
        let mut lines = BufReader::new(stream).lines();
        let Some(Ok(first)) = lines.next() else { return };
        for line in lines {
            if line.is_ok_and(|line| line.is_empty()) {
                break;
            }
        }
        let path = first.split(' ').nth(1).unwrap_or_default().trim_start_matches(['.', '/']).to_owned();
        let Some(files) = self.files.lock().clone() else { return };
        let mut head = String::new();
        let body = files.get(&path);
        let status = if body.is_some() { "200 OK" } else { "404 Not Found" };
        let length = body.map_or(0, Vec::len);
        write!(head, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n").unwrap();
        self.requests.lock().push(path);
        let mut stream = stream;
        let _ = stream.write_all(head.as_bytes());
        let _ = stream.write_all(body.map_or(&[], Vec::as_slice));
    }
}
