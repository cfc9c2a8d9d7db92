//! The example artifacts on a machine.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail a test by panicking")]

use std::{collections::BTreeMap, time::Duration};

use berth_machine::{
    app::{AppRelease, SecretEnv, deploy_app},
    archive::{ArchivePackage, install_package},
    ssh::{ClientKey, PoolConfig, SshMachine, SshPool, SshTarget},
};
use berth_tests::{Archive, Artifacts, eventually, program, repository};
use local_machine::{MachineDir, MachineSpec};

const ROOT: &str = "opt/berth";
const LIMIT: Duration = Duration::from_secs(30);

async fn install(machine: &SshMachine, artifacts: &Artifacts, name: &str) {
    let artifact = put(artifacts, name);
    let package = ArchivePackage {
        name: name.into(),
        version: "1.0".into(),
        url: artifact.url,
        sha256: artifact.sha256,
        destination: None,
        install: None,
        remove: None,
    };
    install_package(machine, ROOT, &package, LIMIT).await.unwrap();
}

fn put(artifacts: &Artifacts, name: &str) -> berth_tests::Artifact {
    let folder = repository().join("examples/artifacts").join(name);
    artifacts.put(&format!("{name}.tar"), Archive::of_folder(&folder).unwrap().build().unwrap())
}

async fn deploy(machine: &SshMachine, artifacts: &Artifacts, revision: &str) {
    let artifact = put(artifacts, &format!("web-{revision}"));
    let app = AppRelease {
        name: "web".into(),
        revision: revision.into(),
        digest: revision.into(),
        url: artifact.url,
        sha256: artifact.sha256,
        env: BTreeMap::new(),
        // This is how deployment-controller runs `spec.app.command`.
        command: ["sh", "-c", "sh ./run"].map(Into::into).to_vec(),
        port: 8080,
        keep_releases: 3,
        proven: None,
        restart: None,
        authorization: None,
        format: None,
        files: Vec::new(),
        user: None,
        hooks: berth_core::api::Hooks::default(),
        stop_seconds: 10,
        secrets: SecretEnv::default(),
    };
    deploy_app(machine, ROOT, &app, LIMIT).await.unwrap();
}

/// Kills the machine even when the test fails.
struct Killed(MachineDir);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
    }
}

#[tokio::test]
async fn the_web_server_shows_its_page_with_the_theme_then_the_new_version_and_then_one_that_is_not_healthy() {
    // reqwest needs a crypto provider also without TLS.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let folder = tempfile::tempdir().unwrap();
    let key = ClientKey::generate().unwrap();
    let pid = std::process::id();
    let spec = MachineSpec {
        id: format!("example-{pid}"),
        name: "example".into(),
        address: format!("127.{}.{}.77", 150 + (pid >> 8) % 50, pid % 256),
        port: 2222,
        authorized_keys: vec![key.public_openssh().unwrap()],
    };
    let dir = Killed(MachineDir::new(folder.path().join("machine")));
    let (starting, binary) = (dir.0.clone(), program("berth-local-machine").unwrap());
    let info = tokio::task::spawn_blocking(move || starting.spawn(&binary, &spec)).await.unwrap().unwrap();
    let pool = SshPool::new(key, PoolConfig::default());
    let target = SshTarget {
        address: info.address.clone(),
        port: info.port,
        user: "berth".into(),
        host_key: info.host_key.clone(),
    };
    let machine = pool.machine(target);
    let artifacts = Artifacts::start(0).await.unwrap();
    for package in ["site-theme", "motd"] {
        install(&machine, &artifacts, package).await;
    }

    for revision in ["v1", "v2", "v3"] {
        deploy(&machine, &artifacts, revision).await;
        let get = async |path: &str| {
            let answer = reqwest::get(format!("http://{}:8080/{path}", info.address)).await;
            let answer = answer.and_then(reqwest::Response::error_for_status).map_err(|error| error.to_string())?;
            answer.text().await.map_err(|error| error.to_string())
        };
        let whoami = format!("{} runs {revision}\n", info.address);
        eventually(format!("{revision} answers"), LIMIT, async || match get("whoami").await? {
            answer if answer == whoami => Ok(()),
            other => Err(other),
        })
        .await
        .unwrap();
        let page = get("").await.unwrap();
        assert!(page.contains(&format!("Hello from version {}", &revision[1..])), "{page}");
        let health = get("healthz").await;
        if revision == "v3" {
            assert!(health.as_ref().is_err_and(|error| error.contains("404")), "{health:?}");
        } else {
            assert_eq!(health.unwrap(), "ok\n");
        }
        assert!(get("theme/style.css").await.unwrap().contains("background"), "the theme is a package");
    }
}
