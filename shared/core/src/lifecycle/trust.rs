//! Trust in facts: which writes make facts doubtful, and which prove them.

use crate::api::{MachinePhase, ServerStatus};

/// Distrusts everything on a machine that was out of sight: it is read back before the Server becomes Ready again.
pub(super) fn distrust_all(status: &mut ServerStatus) {
    if let Some(environment) = &mut status.environment {
        environment.verified = false;
    }
    distrust_app(status);
}

/// Distrusts the packages: they have to be read back, and health has to be proven again.
pub(super) fn distrust_environment(status: &mut ServerStatus) {
    if let Some(environment) = &mut status.environment {
        environment.verified = false;
    }
    distrust_health(status);
}

/// Distrusts the application: it has to be read back, and health has to be proven again.
pub(super) fn distrust_app(status: &mut ServerStatus) {
    if let Some(app) = &mut status.app {
        app.verified = false;
    }
    distrust_health(status);
}

/// Begins a new epoch, in which health has to be proven again.
fn distrust_health(status: &mut ServerStatus) {
    status.epoch = Some(status.epoch.unwrap_or(0).saturating_add(1));
    status.health = None;
}

/// Which facts a write proves.
#[derive(Clone, Copy, Default)]
pub(super) struct Proof {
    /// It proves the environment, because it reports that InstallPackages succeeded.
    pub(super) environment: bool,
    /// It proves the application, because it reports that DeployApp succeeded.
    pub(super) app: bool,
}

/// Updates the trust in the facts of a write: a fact is verified if the write proves it or it was verified before, and a changed
/// machine, environment or application makes older facts doubtful.
pub(super) fn update(before: &ServerStatus, status: &mut ServerStatus, proof: Proof) {
    if let Some(environment) = &mut status.environment {
        environment.verified &= proof.environment || before.environment.as_ref().is_some_and(|e| e.verified);
    }
    if let Some(app) = &mut status.app {
        app.verified &= proof.app || before.app.as_ref().is_some_and(|a| a.verified);
    }
    if another_machine(before, status) {
        status.environment = None;
        status.app = None;
        status.reachability = None;
        distrust_health(status);
    } else if rebooted(before, status) || environment_is_doubted(before, status) {
        distrust_all(status);
    } else if installed_or_deployed(before, status) {
        distrust_health(status);
    }
    // What was observed about a machine that is gone may be written late. Nobody would correct it, and the next machine would count
    // as unreachable from the claim on that is to create it.
    if identity(before).is_none() {
        status.reachability = None;
    }
}

fn another_machine(before: &ServerStatus, status: &ServerStatus) -> bool {
    identity(before) != identity(status)
}

/// Which machine there is; none while there is none, or none that is known.
fn identity(status: &ServerStatus) -> Option<(Option<String>, Option<String>, String)> {
    let machine = status.machine.as_ref().filter(|machine| machine.phase != MachinePhase::Gone)?;
    Some((machine.provider.clone(), machine.place.clone(), machine.id.clone()?))
}

fn rebooted(before: &ServerStatus, status: &ServerStatus) -> bool {
    let boot = |s: &ServerStatus| s.machine.as_ref().and_then(|m| m.boot_id.clone());
    boot(before) != boot(status)
}

/// Whether replicaset-controller takes back that the packages were read: something on the machine is not as it was read, for
/// example the application that runs.
fn environment_is_doubted(before: &ServerStatus, status: &ServerStatus) -> bool {
    let verified = |s: &ServerStatus| s.environment.as_ref().is_some_and(|e| e.verified);
    verified(before) && !verified(status)
}

fn installed_or_deployed(before: &ServerStatus, status: &ServerStatus) -> bool {
    let packages = |s: &ServerStatus| s.environment.as_ref().map(|e| e.packages.clone());
    let app = |s: &ServerStatus| s.app.as_ref().map(|a| (a.revision.clone(), a.digest.clone()));
    packages(before) != packages(status) || app(before) != app(status)
}
