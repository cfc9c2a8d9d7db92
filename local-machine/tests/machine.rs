//! A machine as its SSH clients see it, and how it is controlled from outside.

#[path = "../../shared/machine/tests/contract/mod.rs"]
mod contract;
mod support;

use std::time::{Duration, Instant};

use berth_machine::{
    Machine as _, MachineError, SshPhase,
    ssh::{ClientKey, PoolConfig, SshPool},
};
use local_machine::MachineSpec;
use support::{BINARY, LIMIT, LocalLab, until};

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_holds_and_commands_run_in_the_machines_own_home() {
    let lab = LocalLab::start();
    let machine = lab.machine();
    contract::holds(&machine).await;
    let output = machine.exec("pwd; echo $HOME $BERTH_MACHINE_ID", None, LIMIT).await.unwrap();
    let root = lab.dir.root().canonicalize().unwrap();
    let expected = format!("{0}\n{0} {1}\n", root.display(), lab.spec.id);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn successive_commands_share_one_connection() {
    let lab = LocalLab::start();
    for _ in 0..3 {
        lab.machine().exec("true", None, LIMIT).await.unwrap().ok().unwrap();
    }
    assert_eq!(lab.pool.idle_connections(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_goes_on_without_its_client_as_with_openssh_and_an_operation_ends() {
    let lab = LocalLab::start();
    let limit = Duration::from_millis(700);
    let error = lab.machine().exec("sleep 2; echo >done", None, limit).await.unwrap_err();
    assert!(
        matches!(error, MachineError::Timeout { phase: SshPhase::Command, after, .. } if after == limit),
        "{error}"
    );
    until("the command is done", || lab.dir.root().join("done").exists());
    until("the command has ended", || lab.dir.processes().unwrap() == [lab.info.pid]);
    contract::operations_hold(&lab.machine(), support::ROOT).await;
    until("the operations have ended", || lab.dir.processes().unwrap() == [lab.info.pid]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unexpected_host_key_or_an_unknown_client_key_is_refused() {
    let lab = LocalLab::start();
    let mut target = lab.target();
    target.host_key = ClientKey::generate().unwrap().public_openssh().unwrap();
    let error = lab.pool.machine(target).exec("touch was-here", None, LIMIT).await.unwrap_err();
    let MachineError::HostKeyMismatch { expected, actual, .. } = &error else { panic!("{error}") };
    assert!(expected.starts_with("SHA256:") && actual.starts_with("SHA256:") && expected != actual);
    assert!(!lab.dir.root().join("was-here").exists());

    let stranger = SshPool::new(ClientKey::generate().unwrap(), PoolConfig::default());
    let error = stranger.machine(lab.target()).exec("true", None, LIMIT).await.unwrap_err();
    assert!(matches!(error, MachineError::AuthRefused { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hung_machine_is_a_timeout_until_it_is_resumed() {
    let lab = LocalLab::start();
    lab.machine().exec("true", None, LIMIT).await.unwrap();
    lab.dir.hang().unwrap();
    assert!(lab.dir.is_running().unwrap());
    // First over the kept connection, then over a new one.
    for phase in [SshPhase::Session, SshPhase::Handshake] {
        let start = Instant::now();
        let error = lab.machine().exec("true", None, LIMIT).await.unwrap_err();
        assert!(matches!(&error, MachineError::Timeout { phase: actual, .. } if *actual == phase), "{error}");
        assert!(error.is_unreachable() && start.elapsed() < Duration::from_secs(5));
    }
    lab.dir.resume().unwrap();
    lab.machine().exec("true", None, LIMIT).await.unwrap().ok().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_is_down_is_unreachable_and_the_pool_recovers() {
    let lab = LocalLab::start();
    lab.machine().exec("true", None, LIMIT).await.unwrap();
    lab.dir.kill().unwrap();
    let error = lab.machine().exec("true", None, LIMIT).await.unwrap_err();
    assert!(matches!(error, MachineError::Unreachable { .. }), "{error}");
    lab.dir.spawn(BINARY.as_ref(), &lab.spec).unwrap();
    lab.machine().exec("true", None, LIMIT).await.unwrap();
}

#[test]
fn a_folder_never_has_two_running_machines() {
    let lab = LocalLab::start();
    lab.dir.kill().unwrap();
    let infos: Vec<_> = std::thread::scope(|scope| {
        let starts: Vec<_> =
            (0..4).map(|_| scope.spawn(|| lab.dir.spawn(BINARY.as_ref(), &lab.spec).unwrap())).collect();
        starts.into_iter().map(|start| start.join().unwrap()).collect()
    });
    assert!(infos.iter().all(|info| info == &infos[0]), "{infos:?}");
    until("the other processes have ended", || lab.dir.processes().unwrap() == [infos[0].pid]);

    let other = MachineSpec { id: "another".into(), ..lab.spec.clone() };
    let error = lab.dir.spawn(BINARY.as_ref(), &other).unwrap_err();
    assert!(error.to_string().contains("another machine"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn unused_connections_are_limited_and_closed_after_a_while() {
    let labs: Vec<_> = (0..3).map(|_| LocalLab::start()).collect();
    let key = ClientKey::generate().unwrap();
    let limits = PoolConfig { idle: Duration::from_millis(400), max_idle: 2, ..PoolConfig::default() };
    let pool = SshPool::new(key.clone(), limits);
    for lab in &labs {
        let spec = MachineSpec { authorized_keys: vec![key.public_openssh().unwrap()], ..lab.spec.clone() };
        lab.dir.kill().unwrap();
        lab.dir.spawn(BINARY.as_ref(), &spec).unwrap();
        pool.machine(lab.target()).exec("true", None, LIMIT).await.unwrap();
    }
    assert_eq!(pool.idle_connections(), 2);
    until("unused connections are closed", || pool.idle_connections() == 0);
}
