//! The decision: which state a Server has to be in.

use super::{decision::Decision, force, from_facts::state_from_facts};
use crate::api::{Server, State};

/// The state that the Server has to be in. The first that applies wins: retirement, a person's force, diagnosis, the facts.
#[must_use]
pub fn decide(server: &Server) -> Decision {
    if let Some(retired) = retirement(server) {
        return retired;
    }
    if let Some(force) = force::in_effect(server) {
        let by = force.by.as_deref().unwrap_or("a person");
        return Decision::new(force.state, format!("forced by {by}: {}", force.reason));
    }
    match &server.spec.retain {
        Some(retain) => Decision::new(State::Unknown, format!("kept for diagnosis: {}", retain.reason)),
        None => state_from_facts(server),
    }
}

fn retirement(server: &Server) -> Option<Decision> {
    if server.metadata.deletion_timestamp.is_some() {
        Some(Decision::new(State::Offline, "deletion was requested"))
    } else if server.spec.offline {
        Some(Decision::new(State::Offline, "declared offline"))
    } else {
        None
    }
}
