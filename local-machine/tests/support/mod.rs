//! A real machine process and a real HTTP server for artifacts, both on loopback.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "shared by test programs that each use a part; a failed precondition should panic where it is"
)]

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::fs::symlink,
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};

use berth_machine::{
    Machine, Output,
    app::{AppRelease, SecretEnv},
    ssh::{ClientKey, PoolConfig, SshMachine, SshPool, SshTarget},
};
use bytes::Bytes;
use futures::future::BoxFuture;
use local_machine::{MachineDir, MachineInfo, MachineSpec};
use sha2::Digest as _;

pub const BINARY: &str = env!("CARGO_BIN_EXE_berth-local-machine");
pub const LIMIT: Duration = Duration::from_secs(30);
pub const ROOT: &str = "opt/berth";

static NEXT: AtomicU16 = AtomicU16::new(1);

/// A machine that is killed at the end of its test.
pub struct LocalLab {
    pub dir: MachineDir,
    pub spec: MachineSpec,
    pub info: MachineInfo,
    pub pool: SshPool,
    _folder: tempfile::TempDir,
}

impl LocalLab {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pid = std::process::id();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // Includes the process id, because several test processes may run at the same time.
        let address = format!("127.{}.{}.{number}", 80 + (pid >> 8) % 100, pid % 256);
        let key = ClientKey::generate().unwrap();
        let spec = MachineSpec {
            id: format!("test-{pid}-{number}"),
            name: format!("test-{number}"),
            address,
            port: 2222,
            authorized_keys: vec![key.public_openssh().unwrap()],
        };
        let dir = MachineDir::new(folder.path().join("machine"));
        let info = dir.spawn(Path::new(BINARY), &spec).unwrap();
        let limits = PoolConfig { connect_timeout: Duration::from_secs(2), ..PoolConfig::default() };
        let pool = SshPool::new(key, limits);
        Self { dir, spec, info, pool, _folder: folder }
    }

    pub fn target(&self) -> SshTarget {
        SshTarget {
            address: self.info.address.clone(),
            port: self.info.port,
            user: "berth".into(),
            host_key: self.info.host_key.clone(),
        }
    }

    pub fn machine(&self) -> SshMachine {
        self.pool.machine(self.target())
    }

    pub fn path(&self, below: &str) -> std::path::PathBuf {
        self.dir.root().join(ROOT).join(below)
    }
}

impl Drop for LocalLab {
    fn drop(&mut self) {
        let _ = self.dir.resume();
        self.dir.kill().unwrap();
    }
}

/// Waits until a condition holds, or fails the test.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: not within {LIMIT:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The body of an HTTP response with status 200, or `None`.
pub fn get(address: &str, port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect((address, port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.starts_with("HTTP/1.1 200 ").then(|| body.to_owned())
}

/// A gzip tar archive of `files` (name, content, executable).
pub fn archive(files: &[(&str, &str, bool)]) -> Vec<u8> {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    for (name, content, executable) in files {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        let mode = if *executable { 0o755 } else { 0o644 };
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let output = Command::new("tar")
        // The same files make the same archive, whenever it is packed.
        .args(["--mtime=@0", "-czf", "-", "-C"])
        .arg(folder.path())
        .arg(".")
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success());
    output.stdout
}

pub fn sha256(bytes: &[u8]) -> String {
    hex::encode(sha2::Sha256::digest(bytes))
}

/// Serves one artifact under every path until the test process ends. Under `/cut` the response ends in the middle.
pub fn serve(artifact: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 2048];
            let length = stream.read(&mut request).unwrap_or(0);
            let cut = String::from_utf8_lossy(&request[..length]).starts_with("GET /cut");
            let sent = if cut { &artifact[..artifact.len() / 2] } else { &artifact[..] };
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", artifact.len());
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(sent));
        }
    });
    url
}

/// An application that is served from this archive and runs `./run` on port 8080.
pub fn application(revision: &str, artifact: Vec<u8>) -> AppRelease {
    AppRelease {
        name: "web".into(),
        revision: revision.into(),
        digest: format!("digest-{revision}"),
        sha256: sha256(&artifact),
        url: serve(artifact),
        env: BTreeMap::new(),
        command: vec!["./run".into()],
        port: 8080,
        keep_releases: 1,
        proven: None,
        restart: None,
        authorization: None,
        format: None,
        files: Vec::new(),
        user: None,
        hooks: berth_core::api::Hooks::default(),
        stop_seconds: 10,
        secrets: SecretEnv::default(),
    }
}

/// A machine whose scripts find no other programs than those in this folder.
pub struct WithPath<M>(pub M, pub String);

impl<M: Machine> Machine for WithPath<M> {
    fn exec<'a>(
        &'a self,
        script: &'a str,
        parameters: Option<Bytes>,
        timeout: Duration,
    ) -> BoxFuture<'a, berth_machine::Result<Output>> {
        let path = format!("PATH='{}'\n", self.1);
        let parameters = [path.as_bytes(), &parameters.unwrap_or_default()].concat();
        self.0.exec(script, Some(parameters.into()), timeout)
    }
}

/// A folder with all programs of this machine but these.
pub fn programs_without(missing: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in ["/usr/bin", "/bin", "/usr/sbin"].iter().flat_map(|bin| std::fs::read_dir(bin).unwrap().flatten()) {
        let name = entry.file_name();
        if !missing.iter().any(|missing| Path::new(missing) == Path::new(&name)) {
            // The folders may be the same.
            let _ = symlink(entry.path(), folder.path().join(name));
        }
    }
    folder
}
