//! Trust in facts: what calls them in question, and what restores it.

use crate::api::{MachinePhase, ServerStatus};

/// Takes trust back after the machine was out of sight: everything is read back before the Server is Ready again.
pub(super) fn withdraw(status: &mut ServerStatus) {
    if let Some(environment) = &mut status.environment {
        environment.verified = false;
    }
    if let Some(app) = &mut status.app {
        app.verified = false;
    }
    question_health(status);
}

fn question_health(status: &mut ServerStatus) {
    status.epoch = Some(status.epoch.unwrap_or(0) + 1);
    status.health = None;
}

/// What a write proves about the facts in it.
#[derive(Clone, Copy, Default)]
pub(super) struct Proof {
    /// It reports that InstallPackages has succeeded.
    pub(super) environment: bool,
    /// It reports that DeployApp has succeeded.
    pub(super) app: bool,
}

/// Looks at the facts of a write: trust that the write does not prove stays what it was, and what changed calls
/// older facts in question.
pub(super) fn review(before: &ServerStatus, status: &mut ServerStatus, proof: Proof) {
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
        question_health(status);
    } else if rebooted(before, status) {
        withdraw(status);
    } else if installed_or_deployed(before, status) {
        question_health(status);
    }
}

fn another_machine(before: &ServerStatus, status: &ServerStatus) -> bool {
    let id = |s: &ServerStatus| s.machine.as_ref().filter(|m| m.phase != MachinePhase::Gone).and_then(|m| m.id.clone());
    id(before) != id(status)
}

fn rebooted(before: &ServerStatus, status: &ServerStatus) -> bool {
    let boot = |s: &ServerStatus| s.machine.as_ref().and_then(|m| m.boot_id.clone());
    boot(before) != boot(status)
}

fn installed_or_deployed(before: &ServerStatus, status: &ServerStatus) -> bool {
    let packages = |s: &ServerStatus| s.environment.as_ref().map(|e| e.packages.clone());
    let revision = |s: &ServerStatus| s.app.as_ref().map(|a| a.revision.clone());
    packages(before) != packages(status) || revision(before) != revision(status)
}
