//! The machine contract against a real OpenSSH server, and operations in its login environment.
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
    Machine as _, MachineError, inventory, ping,
    ssh::{ClientKey, PoolConfig, SshPool, SshTarget},
};

use ssh_server::{SshServer, free_port};

const SSHD: &str = "/usr/sbin/sshd";
const LIMIT: Duration = Duration::from_secs(20);

fn write(path: &Path, content: &str) {
    std::fs::write(path, content).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

fn start() -> SshServer {
    assert!(Path::new(SSHD).exists(), "{SSHD} is missing: install openssh-server to run this test");
    let folder = tempfile::tempdir().unwrap();
    let (host, client) = (ClientKey::generate().unwrap(), ClientKey::generate().unwrap());
    let at = |name: &str| folder.path().join(name);
    write(&at("host_key"), &host.to_openssh().unwrap());
    write(&at("authorized"), &client.public_openssh().unwrap());
    // sshd needs it when it runs as root, and only root can create it.
    let _ = std::fs::create_dir_all("/run/sshd");
    let port = free_port();
    let process = Command::new(SSHD)
        .args(["-D", "-e", "-f", "/dev/null", "-p", &port.to_string()])
        .args(["-o", "ListenAddress=127.0.0.1", "-o", "UsePAM=no", "-o", "StrictModes=no", "-o", "PidFile=none"])
        .args(["-o", "PermitRootLogin=prohibit-password"])
        .arg(format!("-oHostKey={}", at("host_key").display()))
        .arg(format!("-oAuthorizedKeysFile={}", at("authorized").display()))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let user = Command::new("id").arg("-un").output().unwrap().stdout;
    let target = SshTarget {
        address: "127.0.0.1".into(),
        port,
        user: String::from_utf8(user).unwrap().trim().into(),
        host_key: host.public_openssh().unwrap(),
    };
    SshServer::listening(process, target, client, folder)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_holds_for_openssh() {
    let server = start();
    let machine = server.machine();
    contract::holds(&machine).await;

    let mut other = server.target.clone();
    other.host_key = ClientKey::generate().unwrap().public_openssh().unwrap();
    let error = server.pool.machine(other).exec("true", None, LIMIT).await.unwrap_err();
    assert!(matches!(error, MachineError::HostKeyMismatch { .. }), "{error}");
    let stranger = SshPool::new(ClientKey::generate().unwrap(), PoolConfig::default());
    let error = stranger.machine(server.target.clone()).exec("true", None, LIMIT).await.unwrap_err();
    assert!(matches!(error, MachineError::AuthRefused { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_ends_with_its_client_on_openssh() {
    let server = start();
    contract::operations_hold(&server.machine(), &server.root()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn operations_work_in_a_plain_login() {
    let server = start();
    let machine = server.machine();
    let kernel = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let info = ping::ping(&machine, LIMIT).await.unwrap();
    let first = std::fs::read_to_string("/proc/1/stat").unwrap();
    let began = first.rsplit(") ").next().unwrap().split(' ').nth(19).unwrap();
    assert_eq!(info.boot_id, format!("{}.{began}", kernel.trim()));
    assert!(info.uptime.is_some());
    let inventory = inventory::read(&machine, &server.root(), &[], LIMIT).await.unwrap();
    assert_eq!((inventory.machine.boot_id, inventory.packages), (info.boot_id, vec![]));
}
