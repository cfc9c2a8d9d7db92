//! What is stuck says whom it waits for.

use std::time::Duration;

use serde_json::Value;

use super::view::{View, is_being_deleted, owner, text};

/// How long nothing must have changed for a Server or a set to be stuck: retries are five minutes apart at most.
const QUIET: Duration = Duration::from_mins(10);

/// A Server or a set that is not as declared, on which nothing happens, and that does not say why.
pub(super) fn without_words(view: &View, now: Duration) -> Option<String> {
    let is_quiet = |plural, place| view.changed_at(plural, place).is_some_and(|at| at + QUIET < now);
    let says = |object: &Value| !text(object, "/status/waitingFor").is_empty();
    // Before its first decision a Server has no status: its set speaks for it. What a controller has not seen yet, on a watch that
    // is behind by minutes, has to wait.
    let is_spoken_for = |server: &Value| {
        let of = owner(server).map(|owner| text(owner, "/uid")).filter(|_| server.get("status").is_none());
        of.is_some_and(|uid| view.all("vmreplicasets").any(|(_, set)| text(set, "/metadata/uid") == uid && says(set)))
    };
    let mut servers = view.all("servers");
    let silent = servers.find(|(place, server)| {
        text(server, "/status/state") != "Ready"
            && !says(server)
            && is_quiet("servers", *place)
            && !is_spoken_for(server)
    });
    if let Some((place, server)) = silent {
        return Some(format!("{place} is {} and says nothing", text(server, "/status/state")));
    }
    let mut sets =
        view.all("vmreplicasets").filter(|(place, set)| !is_being_deleted(set) && is_quiet("vmreplicasets", *place));
    let silent = sets.find(|(place, set)| {
        let own: Vec<_> = view.servers_of(place, set).collect();
        let is_declared = |server: &Value| text(server, "/status/state") == "Ready";
        let ready = own.iter().filter(|(_, server)| is_declared(server)).count();
        let deployment = view.get("vmdeployments", place);
        let is_as_declared = set["spec"]["replicas"].as_u64() == u64::try_from(ready).ok() && own.len() == ready;
        let someone_says = says(set) || deployment.is_some_and(says) || own.iter().any(|(_, server)| says(server));
        !is_as_declared && !someone_says && own.iter().all(|(place, _)| is_quiet("servers", *place))
    });
    silent.map(|(place, _)| format!("the set {place} is not as declared and says nothing"))
}
