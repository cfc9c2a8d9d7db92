//! Facts about a Server, and reports on its tasks.

use berth_core::{
    api::{
        AppFact, EnvironmentFact, HealthFact, HealthState, InstalledPackage, MachineFact, MachinePhase, MonitoringFact,
        MonitoringPhase, Outcome, ReachabilityFact, Report, Server, ServerSpec, Task, TaskKind, TrafficFact,
        TrafficPhase,
    },
    protocol::StatusWrite,
};
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{SignedDuration, Timestamp},
};

use crate::clock::start;

/// The fact about a running machine.
pub fn machine(id: &str, boot: &str) -> MachineFact {
    MachineFact {
        phase: MachinePhase::Running,
        provider: Some("p".into()),
        place: Some("here".into()),
        id: Some(id.into()),
        address: Some("127.1.0.1".into()),
        ssh: None,
        boot_id: Some(boot.into()),
        created_at: None,
    }
}

/// The fact about a machine of which only the phase is known.
pub fn machine_phase(phase: MachinePhase) -> MachineFact {
    MachineFact {
        phase,
        provider: Some("p".into()),
        place: Some("here".into()),
        id: None,
        address: None,
        ssh: None,
        boot_id: None,
        created_at: None,
    }
}

/// The fact that the declared packages are installed.
pub fn environment(spec: &ServerSpec) -> EnvironmentFact {
    let installed = spec.packages.iter().map(|package| InstalledPackage {
        name: package.name.clone(),
        version: package.version.clone(),
        sha256: package.sha256().map(str::to_owned),
    });
    EnvironmentFact { verified: true, packages: installed.collect() }
}

/// The fact that the declared application is deployed.
pub fn app(spec: &ServerSpec) -> Option<AppFact> {
    let digest = spec.app_digest()?;
    spec.app.as_ref().map(|app| AppFact {
        revision: app.effective_revision(),
        digest,
        verified: true,
        deployed_at: None,
        deploy_class: None,
    })
}

/// The fact that the Server is registered as declared.
pub fn traffic(server: &Server, phase: TrafficPhase) -> Option<TrafficFact> {
    let declared = server.spec.traffic.as_ref()?;
    Some(TrafficFact {
        phase,
        backends: declared.registered_backends(),
        address: server.status.as_ref().and_then(|status| status.machine.as_ref()?.address.clone()),
    })
}

/// The fact that the machine has not answered for this many seconds.
pub fn unreachable(seconds: i64, now: Timestamp) -> ReachabilityFact {
    ReachabilityFact {
        reachable: false,
        since: Time(now - SignedDuration::from_secs(seconds)),
        observed_at: Time(now),
        message: "no answer".into(),
    }
}

/// Adds the facts that are true after this task was carried out.
pub fn facts_of(kind: TaskKind, server: &Server, boot: &str, write: StatusWrite) -> StatusWrite {
    let status = server.status.as_ref().unwrap();
    match kind {
        TaskKind::CreateMachine => write.machine(Some(machine("m1", boot))),
        TaskKind::RebootMachine => {
            write.machine(status.machine.clone().map(|m| MachineFact { boot_id: Some(boot.into()), ..m }))
        }
        TaskKind::DestroyMachine => write.machine(Some(machine_phase(MachinePhase::Gone))),
        TaskKind::InstallPackages => write.environment(environment(&server.spec)),
        TaskKind::DeployApp => write.app(app(&server.spec)),
        TaskKind::RegisterBackend => write.traffic(traffic(server, TrafficPhase::Held)),
        TaskKind::HoldTraffic => {
            write.traffic(status.traffic.clone().map(|t| TrafficFact { phase: TrafficPhase::Held, ..t }))
        }
        TaskKind::ReleaseTraffic => write.traffic(traffic(server, TrafficPhase::Serving)),
        TaskKind::RemoveBackend => write.traffic(None),
        TaskKind::CheckHealth => write.health(HealthFact {
            state: HealthState::Healthy,
            epoch: status.epoch.unwrap(),
            since: Time(start()),
            message: String::new(),
        }),
        TaskKind::BindMonitoring => write.monitoring(
            server.monitoring_digest().map(|digest| MonitoringFact { phase: MonitoringPhase::Bound, digest }),
        ),
        TaskKind::PauseMonitoring => {
            write.monitoring(status.monitoring.clone().map(|m| MonitoringFact { phase: MonitoringPhase::Paused, ..m }))
        }
        TaskKind::UnbindMonitoring => write.monitoring(None),
        TaskKind::AwaitRecovery => write.reachability(ReachabilityFact {
            reachable: true,
            since: Time(start()),
            observed_at: Time(start()),
            message: String::new(),
        }),
        TaskKind::Gate => write,
    }
}

/// A report on a task.
pub fn report(task: &Task, holder: &str, outcome: Outcome) -> Report {
    Report {
        task_id: task.id,
        holder: holder.to_owned(),
        outcome,
        message: format!("{outcome:?}"),
        retry_after_seconds: None,
        successors: Vec::new(),
    }
}
