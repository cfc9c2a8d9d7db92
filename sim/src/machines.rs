//! The ways from a copy of a program to machines: by SSH, with what goes wrong with connections, and by probes.

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::body::Bytes;
use berth_core::api::Server;
use berth_iaas::simulated::{SimulatedMachines, Simulation};
use berth_machine::{
    Connector, Machine, MachineConnection, MachineError, NotConnectable, Output, SshPhase,
    fake::{FakeMachine, FakeProcess},
};
use futures::future::{BoxFuture, FutureExt as _};
use monitor_controller::probe::{ProbeClient, ProbeResult, ProbeTarget};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout};

use crate::{
    link::Link,
    ports::APP_PORT,
    scripts::{Client, Script, ScriptStage},
    troubles::Troubles,
    way::Way,
};

/// How long a connection is waited for: `PoolConfig::connect_timeout`.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a connection may be silent: three signs of life that are 15 s apart (`ssh/login.rs`).
const KEEPALIVE: Duration = Duration::from_secs(45);
/// How often a client looks at its connection.
const LOOK: Duration = Duration::from_millis(500);

/// Reaches the machines, and lets judges see what is done on them.
#[derive(Clone)]
pub(crate) struct JudgedConnector {
    pub(crate) inner: Arc<dyn Connector>,
    pub(crate) simulation: Simulation,
    pub(crate) machines: SimulatedMachines,
    pub(crate) stage: ScriptStage,
    pub(crate) way: Way,
    /// What connects the copy of a program that it is for with the rest of the world.
    pub(crate) link: Link,
}

impl Connector for JudgedConnector {
    fn connect(&self, server: &Server) -> Result<MachineConnection, NotConnectable> {
        let connection = self.inner.connect(server)?;
        let address = server.machine().and_then(|machine| machine.address.clone()).unwrap_or_default();
        let judged = JudgedMachine {
            machine: self.machines.of_server(server.uid()),
            uid: server.uid().to_owned(),
            server: format!("{}/{}", server.namespace(), server.name()),
            address,
            ways: self.clone(),
        };
        Ok(MachineConnection { machine: Arc::new(judged), root: connection.root })
    }

    fn forget(&self, server: &Server) {
        self.inner.forget(server);
    }
}

#[derive(Clone)]
struct JudgedMachine {
    machine: FakeMachine,
    uid: String,
    /// The Server, as namespace/name.
    server: String,
    address: String,
    ways: JudgedConnector,
}

impl Machine for JudgedMachine {
    fn exec<'a>(
        &'a self,
        script: &'a str,
        parameters: Option<Bytes>,
        limit: Duration,
    ) -> BoxFuture<'a, berth_machine::Result<Output>> {
        async move {
            timeout(limit, self.exec_once(script, parameters.unwrap_or_default())).await.unwrap_or_else(|_| {
                Err(MachineError::Timeout { address: self.address.clone(), phase: SshPhase::Command, after: limit })
            })
        }
        .boxed()
    }
}

impl JudgedMachine {
    async fn exec_once(&self, script: &str, stdin: Bytes) -> berth_machine::Result<Output> {
        if self.ways.way.has_ended() {
            pending::<()>().await;
        }
        let connected = self.connect().await;
        self.ways.stage.court.note_login(&self.uid, self.ways.way.holder(), connected.is_ok());
        if let Err(error) = connected {
            self.ways.stage.api.note(&format!("{}: {}: {error}", self.ways.way.holder(), self.server));
            return Err(error);
        }
        let course = Arc::new(Script {
            stage: self.ways.stage.clone(),
            uid: self.uid.clone(),
            server: self.server.clone(),
            holder: self.ways.way.holder().to_owned(),
            machine: self.machine.clone(),
            begun: Instant::now(),
            client: Mutex::new(Client::Waits),
            life: Arc::default(),
        });
        let process = self.machine.begin(script, &stdin, course.clone());
        Session { machine: self.clone(), process: Some(process), course }.follow().await
    }

    /// Whether what is sent to the machine arrives there and is answered.
    fn is_heard(&self) -> bool {
        let runs = || self.ways.simulation.runs_at(&self.address).as_ref() == Some(&self.uid);
        self.ways.way.reaches_machines() && !self.machine.is_frozen() && runs()
    }

    async fn connect(&self) -> berth_machine::Result<()> {
        let (dice, faults) = (&self.ways.stage.dice, &self.ways.stage.faults.now().machines);
        let unreachable =
            |reason: &str| Err(MachineError::Unreachable { address: self.address.clone(), reason: reason.to_owned() });
        let answers = self.ways.way.reaches_machines() && !self.machine.is_frozen();
        let at_address = self.ways.simulation.runs_at(&self.address).filter(|_| answers);
        match at_address {
            None => {
                sleep(CONNECT).await;
                unreachable("no answer within 5s")
            }
            Some(uid) if uid != self.uid => Err(MachineError::HostKeyMismatch {
                address: self.address.clone(),
                expected: format!("that of {}", self.uid),
                actual: format!("that of {uid}"),
            }),
            Some(_) if dice.chance(faults.refused_connections) => match dice.between(0, 2) {
                0 => unreachable("connection refused"),
                1 => {
                    sleep(CONNECT).await;
                    unreachable("no answer within 5s")
                }
                _ => {
                    sleep(CONNECT).await;
                    let (address, phase) = (self.address.clone(), dice.pick(&[SshPhase::Handshake, SshPhase::Session]));
                    Err(MachineError::Timeout { address, phase, after: CONNECT })
                }
            },
            Some(_) => Ok(()),
        }
    }
}

/// A client that waits for its script.
struct Session {
    machine: JudgedMachine,
    process: Option<FakeProcess>,
    course: Arc<Script>,
}

impl Session {
    /// Waits for the script's end, or for that of the connection.
    async fn follow(mut self) -> berth_machine::Result<Output> {
        let stage = self.course.stage.clone();
        let faults = &stage.faults.now().machines;
        let loses_output = stage.dice.chance(faults.lost_outputs);
        let breaks_after = stage.dice.duration(Duration::ZERO, faults.script_time.max(LOOK));
        let breaks_at = stage.dice.chance(faults.broken_connections).then(|| Instant::now() + breaks_after);
        let (mut end, mut silent_since) = (None, None);
        loop {
            match (&end, &mut self.process) {
                (None, Some(process)) => end = timeout(LOOK, process.output()).await.ok(),
                _ => sleep(LOOK).await,
            }
            if self.machine.ways.way.has_ended() {
                self.leave();
                pending::<()>().await;
            }
            if !self.machine.is_heard() {
                let since = *silent_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= KEEPALIVE {
                    return self.lost("no sign of life");
                }
                continue;
            }
            silent_since = None;
            match end {
                Some(_) if loses_output => return self.lost("it ended before the command's exit status arrived"),
                Some(Some(output)) => return output,
                Some(None) => return self.lost("connection reset by peer"),
                None if breaks_at.is_some_and(|at| at <= Instant::now()) => return self.lost("broken pipe"),
                None => {}
            }
        }
    }

    fn lost(&self, reason: &str) -> berth_machine::Result<Output> {
        self.course.note(format!("the connection is lost: {reason}"));
        Err(MachineError::ConnectionLost { address: self.machine.address.clone(), reason: reason.to_owned() })
    }

    /// The client goes away, and the machine sees that now or much later.
    fn leave(&mut self) {
        let Some(process) = self.process.take() else { return };
        let stage = &self.course.stage;
        // The connection of a process that hangs stays open.
        let is_heard = self.machine.is_heard() && !self.machine.ways.link.hangs();
        let is_silent = !is_heard || stage.dice.chance(stage.faults.now().machines.silent_ends);
        *self.course.client.lock() = if is_silent { Client::IsGoneSilently } else { Client::IsGone(Instant::now()) };
        if Arc::strong_count(&self.course) > 1 {
            self.course.note(format!("{:?}", self.course.client.lock()));
        }
        // At the end of the world nothing can be begun any more.
        if is_silent && tokio::runtime::Handle::try_current().is_ok() {
            process.lose_silently(stage.dice.duration(KEEPALIVE, Duration::from_mins(15)));
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Probes the machines that exist, from where a copy of monitor-controller stands.
#[derive(Clone)]
pub(crate) struct Probes {
    pub(crate) simulation: Simulation,
    pub(crate) machines: SimulatedMachines,
    pub(crate) troubles: Troubles,
    /// Whether the copy has lost its way to all machines.
    pub(crate) is_blind: Arc<AtomicBool>,
}

impl ProbeClient for Probes {
    fn probe<'a>(&'a self, target: &'a ProbeTarget) -> BoxFuture<'a, ProbeResult> {
        async move {
            let uid = self.simulation.runs_at(&target.address).filter(|_| !self.is_blind.load(Ordering::Relaxed));
            let machine = uid.as_ref().map(|uid| self.machines.of_server(uid)).filter(|machine| !machine.is_frozen());
            let (Some(uid), Some(machine)) = (uid, machine) else {
                sleep(target.timeout).await;
                return ProbeResult::Failure(format!("{target}: no answer"));
            };
            if target.port == APP_PORT && !machine.state().apps.values().any(|app| app.running) {
                return ProbeResult::Failure(format!("{target}: connection refused"));
            }
            let state = machine.state();
            let mut revisions = state.apps.values().filter_map(|app| app.revision.as_deref());
            let has_bad_code = revisions.any(|revision| self.troubles.is_bad_code(revision, &uid));
            if target.port == APP_PORT && (has_bad_code || self.troubles.is_sick(&uid)) {
                return ProbeResult::Failure(format!("{target}: status 500"));
            }
            ProbeResult::Success
        }
        .boxed()
    }
}
