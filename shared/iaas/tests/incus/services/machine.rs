//! A Debian machine with systemd, and applications for it.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, OnceLock},
    time::Duration,
};

use berth_iaas::Provider;
use berth_machine::{
    Machine as _, MachineChange, MachineError,
    app::{self, AppRelease, AppStatus, SecretEnv},
    ssh::{ClientKey, PoolConfig, SshMachine, SshPool, SshTarget},
};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::time::{Instant, sleep};

use crate::{
    lab::Incus,
    project::{LIMIT, Project, running},
};

/// Where Berth keeps its files on a machine that it logs in to as root.
pub(crate) const ROOT: &str = "/opt/berth";

/// The address of the tests in the network of the machines.
const HERE: &str = "10.88.0.1";

/// A machine whose first process is systemd, with an SSH server that knows Berth's key.
pub(crate) struct SystemdMachine {
    provider: Arc<dyn Provider>,
    uid: String,
    target: SshTarget,
    pool: SshPool,
    address: String,
}

/// Runs a test with a machine of its own. It has an incusd that is not the one of the other tests, which kill theirs.
pub(crate) fn with_systemd<F: Future<Output = ()>>(name: &'static str, test: impl FnOnce(SystemdMachine) -> F + Send) {
    static LAB: OnceLock<Option<Incus>> = OnceLock::new();
    let start = || {
        let incus = Incus::start_unified("systemd");
        incus.incus(&["image", "import", &image(), "--alias", "systemd"]);
        incus
    };
    let lab = LAB.get_or_init(|| std::panic::catch_unwind(start).ok());
    let lab =
        lab.as_ref().unwrap_or_else(|| panic!("there is no incusd with systemd; the first test to fail says why"));
    lab.run(async |incus| test(SystemdMachine::create(incus, name).await).await);
}

/// The path of the image, which is built once for all checkouts.
fn image() -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/tools.sh");
    let output = Command::new(script).arg("systemd-image").stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "the image of a machine with systemd was not built; the messages above say why");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

impl SystemdMachine {
    async fn create(incus: &'static Incus, name: &str) -> Self {
        let project = Project::new(incus, name);
        let (provider, key) = (project.with(&json!({"image": "systemd"})), ClientKey::generate().unwrap());
        let mut request = project.request(name);
        request.image = Some("systemd".into());
        request.authorized_key = key.public_openssh().unwrap();
        provider.create(&request).await.unwrap();
        let info = running(provider.as_ref(), name).await;
        let address = info.address.unwrap();
        let target = SshTarget {
            address: address.clone(),
            port: info.ssh_port,
            user: "root".into(),
            host_key: info.host_key.unwrap(),
        };
        let pool = SshPool::new(key, PoolConfig::default());
        let machine = Self { provider, uid: name.into(), target, pool, address };
        machine.until("test -d /run/systemd/system").await;
        machine
    }

    pub(crate) fn ssh(&self) -> SshMachine {
        self.pool.machine(self.target.clone())
    }

    /// Deploys as deployment-controller does.
    pub(crate) async fn deploy(&self, release: &AppRelease) -> Result<(MachineChange, AppStatus), MachineError> {
        app::deploy_app(&self.ssh(), ROOT, release, LIMIT).await
    }

    /// What deployment-controller reads back.
    pub(crate) async fn read(&self, name: &str) -> AppStatus {
        app::read_app(&self.ssh(), ROOT, name, LIMIT).await.unwrap()
    }

    /// Runs a command that must succeed, and returns what it printed.
    pub(crate) async fn run(&self, script: &str) -> String {
        let output = self.ssh().exec(script, None, LIMIT).await.unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.success(), "{script}: status {}: {errors}", output.status);
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    /// Waits until a command succeeds on the machine, which may be down meanwhile.
    pub(crate) async fn until(&self, script: &str) {
        let deadline = Instant::now() + LIMIT;
        loop {
            match self.ssh().exec(script, None, LIMIT).await {
                Ok(output) if output.success() => return,
                other => assert!(Instant::now() < deadline, "waited in vain for {script}: {other:?}"),
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until the application answers with this text.
    pub(crate) async fn answers(&self, text: &str) {
        let deadline = Instant::now() + LIMIT;
        loop {
            let answer = get(&self.address);
            if answer.as_deref() == Some(text) {
                return;
            }
            assert!(Instant::now() < deadline, "{text:?} is not answered, but {answer:?}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Boots the machine anew: in order, or as after a power failure. Waits until it answers.
    pub(crate) async fn reboot(&self, in_order: bool) {
        let boot = self.boot().await.unwrap();
        if in_order {
            // It ends the connection.
            let _ = self.ssh().exec("systemctl reboot", None, LIMIT).await;
        } else {
            self.provider.reboot(&self.uid).await.unwrap();
        }
        self.pool.forget(&self.target);
        let deadline = Instant::now() + LIMIT;
        while self.boot().await.is_none_or(|now| now == boot) {
            assert!(Instant::now() < deadline, "the machine does not come back");
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn boot(&self) -> Option<String> {
        berth_machine::ping::ping(&self.ssh(), LIMIT).await.ok().map(|ping| ping.boot_id)
    }

    /// The units of applications: each with its state and whether it starts at a boot.
    pub(crate) async fn units(&self) -> String {
        let script = "cd /etc/systemd/system && for unit in berth-*; do [ -e $unit ] || continue; \
                      echo $unit $(systemctl is-active $unit) $(systemctl is-enabled $unit); done; \
                      systemctl list-units --all --plain --no-legend 'berth-*' | cut -d ' ' -f 1 | sort | sed 's/^/loaded /'";
        self.run(script).await
    }

    /// A property of the application's unit.
    pub(crate) async fn property(&self, name: &str) -> String {
        self.run(&format!("systemctl show --property {name} --value berth-web.service")).await
    }
}

/// What `units` prints for one application that runs and starts at a boot.
pub(crate) fn one_unit(name: &str) -> String {
    format!("berth-{name}.service active enabled\nloaded berth-{name}.service")
}

fn get(address: &str) -> Option<String> {
    let to = format!("{address}:8080").parse().unwrap();
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(1)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    write!(stream, "GET /index.html HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.contains(" 200 ").then(|| body.to_owned())
}

/// An application whose program is this script.
pub(crate) fn application(revision: &str, script: &str) -> AppRelease {
    let artifact = archive(&[("run", script), ("index.html", revision)]);
    AppRelease {
        name: "web".into(),
        revision: revision.into(),
        digest: format!("digest-{revision}"),
        sha256: hex::encode(Sha256::digest(&artifact)),
        url: serve(artifact),
        env: BTreeMap::new(),
        // As deployment-controller makes it of the declared command.
        command: ["/bin/sh", "-c", "./run"].map(str::to_owned).to_vec(),
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

/// An application that answers with its revision.
pub(crate) fn web(revision: &str) -> AppRelease {
    application(revision, "#!/bin/sh\nexec busybox httpd -f -p \"$PORT\" -h .\n")
}

/// A tar archive of executable files with these names and contents.
fn archive(files: &[(&str, &str)]) -> Vec<u8> {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    // The same files make the same archive, whenever it is packed.
    let arguments = ["--mtime=@0", "--mode=755", "-czf", "-", "-C"];
    let output = Command::new("tar").args(arguments).arg(folder.path()).arg(".").output().unwrap();
    assert!(output.status.success());
    output.stdout
}

/// Serves the artifact to machines until the test process ends.
fn serve(artifact: Vec<u8>) -> String {
    let listener = TcpListener::bind((HERE, 0)).unwrap();
    let url = format!("http://{}/web.tgz", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 2048]);
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", artifact.len());
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&artifact));
        }
    });
    url
}
