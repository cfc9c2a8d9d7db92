//! Writes to a Server, as an API server with Berth's webhook makes them.

use berth_core::{
    api::{Executor, Server, ServerSpec},
    identity::{Author, Identities},
    lifecycle::{Refusal, RefusalReason, admit_create, admit_status, admit_update},
    protocol::StatusWrite,
};
use k8s_openapi::jiff::Timestamp;

use crate::clock::start;

/// The user of a controller.
pub fn controller(executor: Executor) -> Author {
    Author::new(Identities::default().username(executor))
}

/// A person.
pub fn person(name: &str) -> Author {
    Author::new(name)
}

/// `<executor>/<instance>`.
pub fn holder(executor: Executor, instance: &str) -> String {
    format!("{executor}/{instance}")
}

/// Why a write was not made.
#[derive(Clone, Debug, PartialEq)]
pub enum Denied {
    /// A `test` of its patch failed.
    Stale,
    /// Admission refused it.
    Refused(Refusal),
}

/// Field and reason of a refusal.
pub fn refusal<T: std::fmt::Debug>(result: Result<T, Denied>) -> (String, RefusalReason) {
    match result {
        Err(Denied::Refused(refusal)) => (refusal.field, refusal.reason),
        other => panic!("expected a refusal, got {other:?}"),
    }
}

/// The reason of a refusal.
pub fn reason<T: std::fmt::Debug>(result: Result<T, Denied>) -> RefusalReason {
    refusal(result).1
}

/// The object as an API server stores it: as its JSON says.
pub fn stored(server: &Server) -> Server {
    serde_json::from_value(serde_json::to_value(server).unwrap()).unwrap()
}

/// Does what an API server does with a status write: applies the patch, asks the webhook, and stores only the status.
pub fn write_status(old: &Server, write: StatusWrite, author: &Author, now: Timestamp) -> Result<Server, Denied> {
    let mut json = serde_json::to_value(old).unwrap();
    json_patch::patch(&mut json, &write.into_patch()).map_err(|_| Denied::Stale)?;
    let new: Server = serde_json::from_value(json).unwrap();
    let admitted = admit_status(old, new, author, &Identities::default(), now).map_err(Denied::Refused)?;
    Ok(stored(&Server { status: admitted.status, ..old.clone() }))
}

/// Does what an API server does with a write to the declaration: asks the webhook, and raises the generation if it changed.
pub fn write_spec(old: &Server, new: Server, author: &Author, now: Timestamp) -> Result<Server, Denied> {
    let mut new = admit_update(old, new, author, &Identities::default(), now).map_err(Denied::Refused)?;
    new.status.clone_from(&old.status);
    if new.spec != old.spec {
        new.metadata.generation = Some(old.metadata.generation.unwrap_or(0) + 1);
    }
    Ok(stored(&new))
}

/// A newly created Server with this declaration.
pub fn created(spec: ServerSpec) -> Server {
    let mut server = Server::new("web-0", spec);
    server.metadata.namespace = Some("default".into());
    server.metadata.uid = Some("uid-1".into());
    server.metadata.resource_version = Some("1".into());
    server.metadata.generation = Some(1);
    stored(&admit_create(server, &controller(Executor::ReplicasetController), start()).unwrap())
}
