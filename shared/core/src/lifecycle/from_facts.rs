//! The part of the decision that follows from the facts alone.

use super::decision::Decision;
use crate::api::{Server, State};

/// The state that the facts alone demand for a Server that is not being retired.
pub(super) fn state_from_facts(server: &Server) -> Decision {
    let status = server.known_status();
    if server.machine_unreachable() {
        let detail = status.reachability.as_ref().map_or("", |fact| fact.message.as_str());
        return Decision::new(State::Unknown, with_detail("the machine is unreachable", detail));
    }
    if let Some(reason) = environment_reason(server) {
        return Decision::new(State::Initializing, reason);
    }
    if !server.app_matches() {
        return Decision::new(State::Deploying, "the application is not deployed as declared");
    }
    if !server.health_is_proven() {
        let detail = status.health.as_ref().map_or("", |fact| fact.message.as_str());
        return Decision::new(State::Deploying, with_detail("health is not proven", detail));
    }
    Decision::new(State::Ready, "environment, application and health are as declared")
}

/// Why the environment is not as declared; none when it is.
fn environment_reason(server: &Server) -> Option<&'static str> {
    let status = server.known_status();
    if status.state == Some(State::Unknown) {
        Some("the machine is reachable again: everything has to be verified")
    } else if !server.machine_may_exist() {
        Some("there is no machine")
    } else if !server.machine_runs() {
        Some("the machine is not running")
    } else if !server.environment_matches() {
        Some("the environment is not as declared")
    } else if !server.is_registered() {
        Some("the Server is not registered with its load balancers as declared")
    } else {
        None
    }
}

fn with_detail(reason: &str, detail: &str) -> String {
    if detail.is_empty() { reason.to_owned() } else { format!("{reason}: {detail}") }
}
