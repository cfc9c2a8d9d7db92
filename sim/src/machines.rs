//! The ways from a copy of a program to machines: by SSH, watched by a judge, and by probes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::body::Bytes;
use berth_core::api::Server;
use berth_iaas::simulated::{SimulatedMachines, Simulation};
use berth_machine::{Connector, Machine, MachineConnection, NotConnectable, Output, fake::FakeMachine};
use futures::future::{BoxFuture, FutureExt as _};
use monitor_controller::probe::{ProbeClient, ProbeResult, ProbeTarget};
use tokio::time::sleep;

use crate::{
    ApiServer, Judge,
    findings::{Findings, is_reached},
    judges::court::Court,
    ports::APP_PORT,
};

/// Reaches the machines, shows each change of one to the judges, and reports one that clients are sent to (guarantee 2).
#[derive(Clone)]
pub(crate) struct JudgedConnector {
    pub(crate) inner: Arc<dyn Connector>,
    pub(crate) machines: SimulatedMachines,
    pub(crate) api: ApiServer,
    pub(crate) findings: Findings,
    pub(crate) court: Court,
    /// The copy of a program that it is for, as it claims locks.
    pub(crate) holder: String,
}

impl Connector for JudgedConnector {
    fn connect(&self, server: &Server) -> Result<MachineConnection, NotConnectable> {
        let connection = self.inner.connect(server)?;
        let judged = JudgedMachine {
            inner: connection.machine,
            machine: self.machines.of_server(server.uid()),
            server: format!("{}/{}", server.namespace(), server.name()),
            uid: server.uid().to_owned(),
            way: self.clone(),
        };
        Ok(MachineConnection { machine: Arc::new(judged), root: connection.root })
    }

    fn forget(&self, server: &Server) {
        self.inner.forget(server);
    }
}

struct JudgedMachine {
    inner: Arc<dyn Machine>,
    machine: FakeMachine,
    server: String,
    uid: String,
    way: JudgedConnector,
}

impl Machine for JudgedMachine {
    fn exec<'a>(
        &'a self,
        script: &'a str,
        parameters: Option<Bytes>,
        timeout: Duration,
    ) -> BoxFuture<'a, berth_machine::Result<Output>> {
        async move {
            let before = self.machine.state();
            let result = self.inner.exec(script, parameters, timeout).await;
            let after = self.machine.state();
            if after.changes == before.changes {
                return result;
            }
            let JudgedConnector { api, findings, court, holder, .. } = &self.way;
            court.see_work(&self.server, &self.uid, holder, &before, &after);
            if is_reached(api, &self.server) {
                let at = api.elapsed().as_millis();
                let text = format!("{at} ms: {} was changed while clients were sent to it", self.server);
                findings.report(Judge::Traffic, text);
            }
            result
        }
        .boxed()
    }
}

/// Probes the machines that exist, from where a copy of monitor-controller stands.
#[derive(Clone)]
pub(crate) struct Probes {
    pub(crate) simulation: Simulation,
    pub(crate) machines: SimulatedMachines,
    /// Whether the copy has lost its way to all machines.
    pub(crate) is_blind: Arc<AtomicBool>,
}

impl ProbeClient for Probes {
    fn probe<'a>(&'a self, target: &'a ProbeTarget) -> BoxFuture<'a, ProbeResult> {
        async move {
            let machine = self.simulation.runs_at(&target.address).filter(|_| !self.is_blind.load(Ordering::Relaxed));
            let Some(uid) = machine else {
                sleep(target.timeout).await;
                return ProbeResult::Failure(format!("{target}: no answer"));
            };
            let runs = || self.machines.of_server(&uid).state().apps.values().any(|app| app.running);
            if target.port == APP_PORT && !runs() {
                return ProbeResult::Failure(format!("{target}: connection refused"));
            }
            ProbeResult::Success
        }
        .boxed()
    }
}
