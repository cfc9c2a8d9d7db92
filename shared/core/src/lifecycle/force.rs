//! A person's force: when it is in effect, and when it ends.

use super::{declared, from_facts::state_from_facts};
use crate::{
    api::{Force, ForceStatus, Server, ServerSpec},
    digest,
};

impl Server {
    /// Whether a person forces the Server into a state: a force that has not ended, or one that the webhook has not decided on
    /// yet. Automation leaves such a Server alone.
    #[must_use]
    pub fn is_forced(&self) -> bool {
        self.spec.force.as_ref().is_some_and(|force| {
            let known = self.known_status().force.as_ref().filter(|known| known.id == id(force));
            known.is_none_or(|known| known.active)
        })
    }

    /// Who forces the Server into which state, and why; none when nobody does.
    #[must_use]
    pub fn force_note(&self) -> Option<String> {
        let force = self.spec.force.as_ref().filter(|_| self.is_forced())?;
        let by = force.by.as_deref().unwrap_or("a person");
        Some(format!("{} is forced to {} by {by} ({})", self.name(), force.state, force.reason))
    }
}

/// The force that is in effect.
pub(super) fn in_effect(server: &Server) -> Option<&Force> {
    let force = server.spec.force.as_ref()?;
    let status = server.known_status().force.as_ref()?;
    (status.active && status.id == id(force)).then_some(force)
}

/// Brings `status.force` up to date. Returns whether a new force demands the state that the Server is already in, which is a
/// request to retry its failed tasks.
pub(super) fn observe(server: &mut Server) -> bool {
    let Some(force) = server.spec.force.clone() else {
        if let Some(status) = &mut server.status {
            status.force = None;
        }
        return false;
    };
    let state = server.known_status().state;
    let known = server.known_status().force.clone().filter(|known| known.id == id(&force));
    let is_retry = known.is_none() && state == Some(force.state);
    let mut status = known.unwrap_or_else(|| ForceStatus { id: id(&force), active: true, message: String::new() });
    if status.active
        && let Some(reason) = reason_to_end(server, &force)
    {
        status.active = false;
        reason.clone_into(&mut status.message);
    }
    server.status.get_or_insert_default().force = Some(status);
    is_retry
}

/// Why the force is no longer in effect; none while it is.
fn reason_to_end(server: &Server, force: &Force) -> Option<&'static str> {
    if force.declaration.as_deref() != Some(declaration(&server.spec).as_str()) {
        Some("the declaration changed")
    } else if state_from_facts(server).state == force.state {
        Some("the facts agree")
    } else {
        None
    }
}

fn id(force: &Force) -> String {
    digest::short(force)
}

/// Digest of the declaration without force, requests and retention: changes of those do not end a force. Nor does an upgrade
/// that adds fields with defaults.
pub(super) fn declaration(spec: &ServerSpec) -> String {
    declared::digest_of_spec(&ServerSpec { force: None, retry: None, reboot: None, retain: None, ..spec.clone() })
}
