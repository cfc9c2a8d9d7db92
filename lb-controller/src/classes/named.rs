//! Which backends and classes a Server names. Pure.

use berth_core::api::{Backend, Server};

/// The backends of the Server, as declared and as registered.
pub(super) fn backends_of(server: &Server) -> impl Iterator<Item = &Backend> {
    let declared = server.spec.traffic.iter().flat_map(|traffic| &traffic.backends);
    let fact = server.status.as_ref().and_then(|status| status.traffic.as_ref());
    declared.chain(fact.into_iter().flat_map(|fact| &fact.backends))
}

/// The classes that the Server names.
pub(super) fn classes_of(server: &Server) -> impl Iterator<Item = &str> {
    backends_of(server).filter_map(|backend| backend.class.as_deref())
}
