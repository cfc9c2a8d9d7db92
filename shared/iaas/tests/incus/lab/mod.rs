//! A real incusd for tests, in namespaces of its own.
//!
//! It needs root, and programs that `.ci/run` installs. A test that cannot run fails and names what is missing.

use std::{
    fs::{self, File},
    future::Future,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, OnceLock},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sched::{CloneFlags, setns},
    unistd::geteuid,
};
use parking_lot::RwLock;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

const START_LIMIT: Duration = Duration::from_secs(90);
const STOP_LIMIT: Duration = Duration::from_secs(30);
const IMAGE: &str = include_str!("image.sh");

/// Required programs, with their Debian packages.
const PROGRAMS: [(&str, &str); 7] = [
    ("/usr/libexec/incus/incusd", "incus-base (of bookworm-backports)"),
    ("/usr/bin/incus", "incus-client (of bookworm-backports)"),
    ("/usr/sbin/dnsmasq", "dnsmasq-base"),
    ("/usr/sbin/dropbear", "dropbear-bin"),
    ("/usr/bin/busybox", "busybox-static"),
    ("/usr/sbin/nft", "nftables"),
    ("/usr/bin/unshare", "util-linux"),
];

/// A running incusd.
pub(crate) struct Incus {
    /// The namespaces' first process.
    first: u32,
    name: String,
    reaper: Child,
    /// The reaper begins when it is closed.
    lifeline: Option<ChildStdin>,
    /// The certificate of the CA that signed the server's, and the server's.
    pub(crate) ca: String,
    pub(crate) server_certificate: Vec<u8>,
}

/// Held for reading by tests that share the incusd, and for writing by tests that kill it.
static USERS: RwLock<()> = RwLock::new(());

/// Runs a test in the network of the incusd that the tests of this program share, in parallel with others.
pub(crate) fn with_incus<F: Future<Output = ()>>(test: impl FnOnce(&'static Incus) -> F + Send) {
    let incus = shared();
    let _user = USERS.read();
    incus.run(test);
}

/// Runs a test that would disturb other tests.
pub(crate) fn alone_with_incus<F: Future<Output = ()>>(test: impl FnOnce(&'static Incus) -> F + Send) {
    let incus = shared();
    let _user = USERS.write();
    incus.run(test);
}

fn shared() -> &'static Incus {
    static SHARED: OnceLock<Option<Incus>> = OnceLock::new();
    let start = || {
        let incus = Incus::start("shared");
        incus.build_image("small", "0");
        incus
    };
    // A start that failed is not tried again for the other tests.
    let incus = SHARED.get_or_init(|| std::panic::catch_unwind(start).ok());
    incus.as_ref().unwrap_or_else(|| panic!("the incusd of all tests was not started; the first test to fail says why"))
}

fn require_programs() {
    const HELP: &str = "run .ci/run once as root on Debian 12, which installs what is missing";
    assert!(geteuid().is_root(), "the tests of provider incus start an incusd in namespaces, which needs root; {HELP}");
    for (program, package) in PROGRAMS {
        assert!(Path::new(program).exists(), "{program} is missing: install the Debian package {package}; {HELP}");
    }
}

impl Incus {
    /// Starts an incusd of its own.
    pub(crate) fn start(purpose: &str) -> Self {
        Self::start_with(purpose, &[])
    }

    /// The same, and its machines have control groups of version 2 alone, as machines of today have.
    pub(crate) fn start_unified(purpose: &str) -> Self {
        Self::start_with(purpose, &[("BERTH_UNIFIED", "yes")])
    }

    fn start_with(purpose: &str, variables: &[(&str, &str)]) -> Self {
        require_programs();
        let (ca, certificate, key) = certificates();
        let name = format!("berth-incus-{purpose}-{}", std::process::id());
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/incus/lab");
        let mut reaper = Command::new("/bin/sh")
            .arg(scripts.join("lab.sh"))
            .arg(&name)
            .arg(scripts.join("inner.sh"))
            .env("BERTH_CRT", certificate.pem())
            .env("BERTH_KEY", key.serialize_pem())
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .envs(variables.iter().copied())
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lifeline = reaper.stdin.take();
        let mut answer = String::new();
        BufReader::new(reaper.stdout.take().unwrap()).read_line(&mut answer).unwrap();
        let first =
            answer.trim().parse().unwrap_or_else(|_| panic!("the namespaces of incusd were not made: {answer:?}"));
        let incus = Self { first, name, reaper, lifeline, ca, server_certificate: certificate.der().to_vec() };
        incus.await_ready();
        incus
    }

    fn await_ready(&self) {
        let deadline = Instant::now() + START_LIMIT;
        while !self.path("/run/ready").exists() {
            let log = || fs::read_to_string(self.path("/run/lab.log")).unwrap_or_default();
            assert!(self.lives(), "incusd was not started: its namespaces ended");
            assert!(Instant::now() < deadline, "incusd was not ready after {START_LIMIT:?}: {}", log());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether the first process of the namespaces exists.
    pub(crate) fn lives(&self) -> bool {
        fs::read_link(format!("/proc/{}/exe", self.first)).is_ok()
    }

    /// A path inside the lab, as seen from outside.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.first))
    }

    /// The unix socket of the API.
    pub(crate) fn socket(&self) -> String {
        format!("unix://{}", self.path("/var/lib/incus/unix.socket").display())
    }

    /// The control groups of this lab on the host.
    pub(crate) fn control_groups(&self) -> Vec<PathBuf> {
        let trees = fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|entry| entry.path());
        let all = trees.chain([PathBuf::from("/sys/fs/cgroup")]).map(|tree| tree.join(&self.name));
        all.filter(|path| path.exists()).collect()
    }

    /// Runs a shell script inside, with arguments.
    pub(crate) fn script(&self, script: &str, arguments: &[&str]) -> String {
        let mut child = Command::new("nsenter")
            .args([
                "--target",
                &self.first.to_string(),
                "--mount",
                "--net",
                "--pid",
                "--ipc",
                "--uts",
                "/bin/sh",
                "-s",
                "--",
            ])
            .args(arguments)
            .env("HOME", "/run")
            .env("INCUS_CONF", "/run/incus-client")
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{script} {arguments:?}: {out}{err}");
        out.trim().to_owned()
    }

    /// Runs the program `incus`.
    pub(crate) fn incus(&self, arguments: &[&str]) -> String {
        self.script("exec incus \"$@\" </dev/null", arguments)
    }

    /// Builds and imports an image.
    pub(crate) fn build_image(&self, alias: &str, ballast: &str) {
        self.script(IMAGE, &[alias, ballast]);
    }

    /// Creates a project with instances of its own. It shares images and profiles with all projects.
    pub(crate) fn project(&self, name: &str) {
        let own = ["-c", "features.images=false", "-c", "features.profiles=false"];
        self.incus(&[&["project", "create", name][..], &own].concat());
    }

    /// Name of the instance of a machine.
    pub(crate) fn instance_of(&self, project: &str, uid: &str) -> String {
        let filter = format!("user.berth.uid={uid}");
        self.incus(&["list", &filter, "--project", project, "--format", "csv", "--columns", "n"])
    }

    /// Kills incusd, which is restarted at once, and dnsmasq: the new incusd does not wait until an old dnsmasq has released
    /// its port, and would have no network for a minute.
    pub(crate) fn kill_daemon(&self) {
        self.script("kill -KILL $(pidof incusd dnsmasq)", &[]);
    }

    /// Runs a test in the network of the lab.
    pub(crate) fn run<F: Future<Output = ()>>(&'static self, test: impl FnOnce(&'static Incus) -> F + Send) {
        let network = Arc::new(File::open(format!("/proc/{}/ns/net", self.first)).unwrap());
        let enter = move || setns(&*network, CloneFlags::CLONE_NEWNET).unwrap();
        // The test has a thread of its own, because a thread cannot leave the network namespace that it has entered.
        let outcome = thread::scope(|scope| {
            let test = scope.spawn(|| {
                enter();
                let mut runtime = tokio::runtime::Builder::new_multi_thread();
                runtime.worker_threads(2).enable_all().on_thread_start(enter);
                runtime.build().unwrap().block_on(test(self));
            });
            test.join()
        });
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    }

    /// Ends the lab as the end of the test program does, and waits until nothing is left.
    pub(crate) fn close(&mut self) {
        self.lifeline = None;
        let deadline = Instant::now() + STOP_LIMIT;
        let status = loop {
            if let Some(status) = self.reaper.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "the namespaces of incusd do not end");
            thread::sleep(Duration::from_millis(20));
        };
        assert!(status.success(), "control groups are left: {:?}", self.control_groups());
    }
}

/// A CA, and a server certificate for 127.0.0.1 that it signed: CA in PEM, certificate, key.
fn certificates() -> (String, rcgen::Certificate, KeyPair) {
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["127.0.0.1".into()]).unwrap().signed_by(&key, &ca).unwrap();
    (ca.pem(), certificate, key)
}
