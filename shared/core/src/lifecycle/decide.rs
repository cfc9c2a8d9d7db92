//! The decision: which state a Server is in.

use super::{facts, force};
use crate::api::{Server, State};

/// The state that a Server is to be in, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The state.
    pub state: State,
    /// Why, in words.
    pub reason: String,
}

impl Decision {
    fn new(state: State, reason: impl Into<String>) -> Self {
        Self { state, reason: reason.into() }
    }
}

/// Which state the Server is to be in. First match wins: retirement, a person's force, diagnosis, then what the facts say.
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
        None => by_the_facts(server),
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

/// What the facts alone say about a Server that is not being retired.
pub(super) fn by_the_facts(server: &Server) -> Decision {
    let status = facts::status(server);
    if facts::unreachable(server) {
        let said = status.reachability.as_ref().map_or("", |fact| fact.message.as_str());
        return Decision::new(State::Unknown, with_detail("the machine cannot be reached", said));
    }
    if let Some(reason) = environment_reason(server) {
        return Decision::new(State::Initializing, reason);
    }
    if !facts::app_right(server) {
        return Decision::new(State::Deploying, "the deployed code is not as declared");
    }
    if !facts::health_proven(server) {
        let said = status.health.as_ref().map_or("", |fact| fact.message.as_str());
        return Decision::new(State::Deploying, with_detail("health is not proven", said));
    }
    Decision::new(State::Ready, "environment, code and health are as declared")
}

fn environment_reason(server: &Server) -> Option<&'static str> {
    let status = facts::status(server);
    if status.state == Some(State::Unknown) {
        Some("the machine is back: everything is verified again")
    } else if !facts::machine_may_exist(status) {
        Some("there is no machine")
    } else if !facts::machine_runs(status) {
        Some("the machine does not run")
    } else if !facts::environment_right(server) {
        Some("the environment is not as declared")
    } else if !facts::registered(server) {
        Some("the load balancers do not know it as declared")
    } else {
        None
    }
}

fn with_detail(what: &str, detail: &str) -> String {
    if detail.is_empty() { what.to_owned() } else { format!("{what}: {detail}") }
}
