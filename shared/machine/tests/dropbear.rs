//! The machine contract against a real Dropbear server: its commands lead no process group of their own, and it accepts only
//! short ones.
#![expect(clippy::unwrap_used, reason = "a failed precondition should panic where it is")]

mod contract;
mod ssh_server;

use std::{
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use berth_machine::{
    app::{self, AppRelease, SecretEnv},
    ssh::{ClientKey, SshTarget},
};

use ssh_server::{SshServer, free_port};

const LIMIT: Duration = Duration::from_secs(20);

/// Dropbear accepts only the keys in the home of the user, so it runs where another folder is mounted there.
fn start() -> SshServer {
    assert!(Path::new("/usr/sbin/dropbear").exists(), "dropbear is missing: install dropbear-bin to run this test");
    let folder = tempfile::tempdir().unwrap();
    let client = ClientKey::generate().unwrap();
    let (key, ssh) = (folder.path().join("host_key"), folder.path().join("ssh"));
    let made = Command::new("dropbearkey").args(["-t", "ed25519", "-f"]).arg(&key).output().unwrap();
    let host_key = String::from_utf8(made.stdout).unwrap();
    let host_key = host_key.lines().find(|line| line.starts_with("ssh-ed25519 ")).unwrap().to_owned();
    std::fs::create_dir(&ssh).unwrap();
    std::fs::write(ssh.join("authorized_keys"), client.public_openssh().unwrap()).unwrap();
    for (path, mode) in [(ssh.clone(), 0o700), (ssh.join("authorized_keys"), 0o600)] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let port = free_port();
    let script =
        "mkdir -p ~/.ssh && mount --bind \"$1\" ~/.ssh && exec dropbear -F -E -s -r \"$2\" -p \"127.0.0.1:$3\"";
    let process = Command::new("unshare")
        .args(["-m", "sh", "-c", script, "sh"])
        .args([ssh.as_os_str(), key.as_os_str(), port.to_string().as_ref()])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let target = SshTarget { address: "127.0.0.1".into(), port, user: "root".into(), host_key };
    SshServer::listening(process, target, client, folder)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_holds_for_dropbear() {
    let server = start();
    contract::holds(&server.machine()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_ends_with_its_client_on_dropbear() {
    let server = start();
    contract::operations_hold(&server.machine(), &server.root()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_longest_operation_is_not_too_long_for_dropbear() {
    let server = start();
    let release = AppRelease {
        name: "web".into(),
        revision: "v1".into(),
        digest: "d".into(),
        // Nothing listens there.
        url: "http://127.0.0.1:1/a".into(),
        sha256: "a".repeat(64),
        env: [("LONG".to_owned(), "x".repeat(20_000))].into(),
        command: vec!["true".into()],
        port: 1,
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
    };
    let machine = server.machine();
    let error = app::deploy_app(&machine, &server.root(), &release, LIMIT).await.unwrap_err();
    assert!(matches!(error, berth_machine::MachineError::Download { .. }), "{error}");
}
