//! A machine in memory that fails on demand.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt as _};
use parking_lot::Mutex;

use super::{
    kernel::Kernel,
    parameters::FakeParameters,
    state::{FakeState, output},
};
use crate::{
    app, apt, dnf,
    error::{MachineError, Result, SshPhase},
    machine::{Machine, Output},
    operation::exit_status,
};

/// The address in the errors of machines in memory.
const ADDRESS: &str = "fake:22";
/// What a reboot adds to the process ids of applications, so that they differ from those before.
const PIDS_PER_BOOT: u32 = 1000;

/// What goes wrong with an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MachineFault {
    /// The machine cannot be reached; nothing happens on it.
    Unreachable,
    /// The machine hangs; nothing happens on it. Reported at once, without waiting for the time limit.
    Hang,
    /// The operation is done, but the connection breaks before its answer arrives.
    LoseAnswer,
    /// The artifact has this digest instead of the declared one.
    WrongDigest(String),
    /// The package manager does not know the version that is to be installed next.
    NoSuchVersion(String),
    /// The application that is deployed next prints this and ends. The one before runs again.
    DoesNotStart(String),
    /// The operation fails with this message and changes nothing.
    Fail(String),
}

/// A machine in memory. Clones are the same machine.
#[derive(Clone, Debug, Default)]
pub struct FakeMachine(Arc<Mutex<FakeInner>>);

#[derive(Debug, Default)]
struct FakeInner {
    state: FakeState,
    next: VecDeque<MachineFault>,
    always: Option<MachineFault>,
    calls: u32,
    /// Made when it is first needed: scale tests keep thousands of machines.
    kernel: Option<Arc<Kernel>>,
}

impl FakeMachine {
    /// A new machine on which nothing is installed.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What is true on the machine now.
    #[must_use]
    pub fn state(&self) -> FakeState {
        self.0.lock().state.clone()
    }

    /// Changes the machine as a person on it would: not through an operation.
    pub fn change(&self, change: impl FnOnce(&mut FakeState)) {
        change(&mut self.0.lock().state);
    }

    /// Makes the next operation meet `fault`. Faults queue up.
    pub fn fail_next(&self, fault: MachineFault) {
        self.0.lock().next.push_back(fault);
    }

    /// Makes every operation meet `fault`, until this is called with `None`. Queued faults come first.
    pub fn fail_always(&self, fault: Option<MachineFault>) {
        self.0.lock().always = fault;
    }

    /// How many operations were attempted, including failed ones.
    #[must_use]
    pub fn calls(&self) -> u32 {
        self.0.lock().calls
    }

    /// Reboots the machine. Its applications run again, with other process ids. Scripts are ended.
    pub fn reboot(&self) {
        let inner = &mut *self.0.lock();
        inner.state.boot += 1;
        for pid in inner.state.apps.values_mut().filter_map(|app| app.pid.as_mut()) {
            *pid += PIDS_PER_BOOT;
        }
        if let Some(kernel) = &inner.kernel {
            kernel.freeze(false);
            kernel.end_all();
        }
    }

    pub(super) fn kernel(&self) -> Arc<Kernel> {
        self.0.lock().kernel.get_or_insert_default().clone()
    }

    pub(super) fn known_kernel(&self) -> Option<Arc<Kernel>> {
        self.0.lock().kernel.clone()
    }
}

impl Machine for FakeMachine {
    fn exec<'a>(&'a self, script: &'a str, stdin: Option<Bytes>, limit: Duration) -> BoxFuture<'a, Result<Output>> {
        async move { self.0.lock().exec(script, &stdin.unwrap_or_default(), limit) }.boxed()
    }
}

impl FakeInner {
    fn exec(&mut self, script: &str, stdin: &[u8], limit: Duration) -> Result<Output> {
        let parameters = FakeParameters::parse(&String::from_utf8_lossy(stdin))?;
        self.calls += 1;
        match self.fault(script, &parameters) {
            None => Ok(self.state.run(script, &parameters)),
            Some(fault) => {
                if fault == MachineFault::LoseAnswer {
                    self.state.run(script, &parameters);
                }
                failure(&self.state, fault, &parameters, limit)
            }
        }
    }

    /// The fault that this operation meets. A fault about an installation stays queued until there is one.
    fn fault(&mut self, script: &str, parameters: &FakeParameters) -> Option<MachineFault> {
        let fits = match self.next.front() {
            Some(MachineFault::WrongDigest(_)) => parameters.has("SHA256"),
            Some(MachineFault::DoesNotStart(_)) => script == app::DEPLOY.as_str(),
            Some(MachineFault::NoSuchVersion(_)) => [apt::INSTALL.as_str(), dnf::INSTALL.as_str()].contains(&script),
            _ => true,
        };
        fits.then(|| self.next.pop_front()).flatten().or_else(|| self.always.clone())
    }
}

/// What an operation returns that meets this fault.
fn failure(state: &FakeState, fault: MachineFault, parameters: &FakeParameters, limit: Duration) -> Result<Output> {
    let address = ADDRESS.to_owned();
    match fault {
        MachineFault::Unreachable => {
            Err(MachineError::Unreachable { address, reason: "connection refused".to_owned() })
        }
        MachineFault::Hang => Err(MachineError::Timeout { address, phase: SshPhase::Handshake, after: limit }),
        MachineFault::LoseAnswer => {
            Err(MachineError::ConnectionLost { address, reason: "connection reset".to_owned() })
        }
        MachineFault::WrongDigest(actual) => {
            let facts = format!("fact expected {}\nfact actual {actual}\n", parameters.get("SHA256"));
            Ok(output(exit_status::DIGEST, &facts, "wrong digest"))
        }
        MachineFault::NoSuchVersion(reason) => {
            let wanted = parameters.get("PACKAGES").lines().next().unwrap_or_default();
            let package = wanted.rsplit_once(' ').map_or(wanted, |(package, _)| package);
            Ok(output(exit_status::NO_VERSION, &format!("fact package {package}\n"), &reason))
        }
        MachineFault::DoesNotStart(printed) => {
            let before = state.apps.get(parameters.get("NAME")).and_then(|app| app.revision.as_deref());
            let before = before.map_or_else(String::new, |revision| format!("fact back {revision}\n"));
            let facts = format!(
                "fact problem its command does not keep running\nfact printed {}\n{before}",
                hex::encode(printed)
            );
            Ok(output(exit_status::START, &facts, ""))
        }
        MachineFault::Fail(message) => Ok(output(1, "", &message)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        app::{AppRelease, SecretEnv},
        archive::{self, ArchivePackage},
        change::MachineChange,
    };

    const LIMIT: Duration = Duration::from_secs(1);

    fn package() -> ArchivePackage {
        ArchivePackage {
            name: "tool".into(),
            version: "1".into(),
            url: "http://127.0.0.1/a".into(),
            sha256: "a".repeat(64),
            destination: None,
            install: Some("it's\n''".into()),
            remove: None,
        }
    }

    #[tokio::test]
    async fn operations_on_a_fake_machine_have_the_same_effect_as_on_a_real_one() {
        let machine = FakeMachine::new();
        let package = package();
        let install = || archive::install_package(&machine, "opt/berth", &package, LIMIT);
        assert_eq!(install().await.unwrap(), MachineChange::Done);
        assert_eq!(install().await.unwrap(), MachineChange::None);
        let installed = machine.state().archives;
        assert_eq!((installed.len(), &installed["tool"].sha256), (1, &"a".repeat(64)));
        let app = AppRelease {
            name: "web".into(),
            revision: "v1".into(),
            digest: "d1".into(),
            url: "http://127.0.0.1/a".into(),
            sha256: "b".repeat(64),
            env: BTreeMap::from([("A".into(), "it's".into())]),
            command: vec!["./run".into()],
            port: 80,
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
        let (change, status) = app::deploy_app(&machine, "opt/berth", &app, LIMIT).await.unwrap();
        assert_eq!((change, status.revision.as_deref(), status.running), (MachineChange::Done, Some("v1"), true));
        assert_eq!(app::deploy_app(&machine, "opt/berth", &app, LIMIT).await.unwrap(), (MachineChange::None, status));
    }

    #[tokio::test]
    async fn faults_are_met_in_order_and_a_lost_answer_leaves_the_operation_done() {
        let machine = FakeMachine::new();
        for fault in [MachineFault::Unreachable, MachineFault::WrongDigest("c".repeat(64)), MachineFault::LoseAnswer] {
            machine.fail_next(fault);
        }
        let package = package();
        let install = || archive::install_package(&machine, "opt/berth", &package, LIMIT);
        assert!(install().await.unwrap_err().is_unreachable());
        assert!(
            matches!(install().await.unwrap_err(), MachineError::DigestMismatch { actual, .. } if actual == "c".repeat(64))
        );
        assert!(machine.state().archives.is_empty());
        assert!(matches!(install().await.unwrap_err(), MachineError::ConnectionLost { .. }));
        assert_eq!(install().await.unwrap(), MachineChange::None);
    }
}
