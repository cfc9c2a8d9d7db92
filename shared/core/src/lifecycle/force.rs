//! A person's force: when it is in effect, and when it ends.

use super::{decide::by_the_facts, facts};
use crate::{
    api::{Force, ForceStatus, Server, ServerSpec},
    digest,
};

/// The force that is in effect.
pub(super) fn in_effect(server: &Server) -> Option<&Force> {
    let force = server.spec.force.as_ref()?;
    let status = facts::status(server).force.as_ref()?;
    (status.active && status.id == id(force)).then_some(force)
}

/// Brings `status.force` up to date and says whether a new force asks for the state that the Server is in already,
/// which means: try again.
pub(super) fn refresh(server: &mut Server) -> bool {
    let Some(force) = server.spec.force.clone() else {
        if let Some(status) = &mut server.status {
            status.force = None;
        }
        return false;
    };
    let state = facts::status(server).state;
    let known = facts::status(server).force.clone().filter(|known| known.id == id(&force));
    let again = known.is_none() && state == Some(force.state);
    let mut status = known.unwrap_or_else(|| ForceStatus { id: id(&force), active: true, message: String::new() });
    if status.active
        && let Some(why) = ended(server, &force)
    {
        status.active = false;
        why.clone_into(&mut status.message);
    }
    server.status.get_or_insert_default().force = Some(status);
    again
}

fn ended(server: &Server, force: &Force) -> Option<&'static str> {
    if force.declaration.as_deref() != Some(declaration(&server.spec).as_str()) {
        Some("the declaration changed")
    } else if by_the_facts(server).state == force.state {
        Some("the facts agree")
    } else {
        None
    }
}

fn id(force: &Force) -> String {
    digest::short(force)
}

/// Digest of everything that is declared about the Server, but for what is asked for once.
pub(super) fn declaration(spec: &ServerSpec) -> String {
    digest::short(&ServerSpec { force: None, retry: None, reboot: None, retain: None, ..spec.clone() })
}
