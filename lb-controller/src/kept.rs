//! The Servers that a panic floor keeps in traffic: who they are, for metrics, and to look at them again when others are back.

use std::{collections::BTreeMap, fmt};

use berth_core::lifecycle::HoldCause;
use parking_lot::Mutex;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use crate::{member::ServerRef, panic_floor::FloorCounts};

/// Why a Server stays in traffic although it is sick.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The backend whose floor keeps it, such as `Service web`.
    pub backend: String,
    /// How many Servers of the backend serve, and how many must.
    pub counts: FloorCounts,
    /// What the traffic would have been held for.
    pub cause: HoldCause,
}

impl Kept {
    /// What this and later messages about the same backend begin with.
    #[must_use]
    pub fn title(&self) -> String {
        format!("kept in traffic by the panic floor of {}:", self.backend)
    }
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FloorCounts { serving, registered, needed } = self.counts;
        write!(f, "{} {serving} of {registered} Servers serve, at least {needed} must", self.title())
    }
}

/// What a Server that is kept in traffic would have lost it for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KeptLabels {
    /// `sick`, or `returning`: the machine was out of reach and has to be verified.
    reason: &'static str,
}

/// The Servers that a panic floor keeps in traffic, as this process has found.
#[derive(Debug, Default)]
pub struct KeptServers {
    by_uid: Mutex<BTreeMap<String, (ServerRef, Kept)>>,
    now: Gauge,
    times: Family<KeptLabels, Counter>,
}

impl KeptServers {
    /// Adds the metrics to the registry.
    pub fn register(&self, r: &mut Registry) {
        r.register(
            "panic_floor_servers",
            "Servers that a panic floor keeps in traffic although they are sick or have to be verified",
            self.now.clone(),
        );
        r.register(
            "panic_floor_kept",
            "Times that a panic floor has begun to keep a Server in traffic, by reason",
            self.times.clone(),
        );
    }

    /// Records that the Server is kept.
    pub fn keep(&self, server: &ServerRef, kept: &Kept) {
        let mut by_uid = self.by_uid.lock();
        let before = by_uid.insert(server.uid.clone(), (server.clone(), kept.clone()));
        if before.is_none_or(|(_, before)| (before.cause, before.backend) != (kept.cause, kept.backend.clone())) {
            let reason = if kept.cause == HoldCause::Returning { "returning" } else { "sick" };
            self.times.get_or_create(&KeptLabels { reason }).inc();
        }
        self.count(&by_uid);
    }

    /// Records that the Server is not kept, or not any more.
    pub fn let_go(&self, uid: &str) {
        let mut by_uid = self.by_uid.lock();
        if by_uid.remove(uid).is_some() {
            self.count(&by_uid);
        }
    }

    /// The Servers in this namespace that this backend keeps.
    #[must_use]
    pub fn of(&self, namespace: &str, backend: &str) -> Vec<(ServerRef, Kept)> {
        let by_uid = self.by_uid.lock();
        let is_its = |(server, kept): &&(ServerRef, Kept)| server.namespace == namespace && kept.backend == backend;
        by_uid.values().filter(is_its).cloned().collect()
    }

    fn count(&self, by_uid: &BTreeMap<String, (ServerRef, Kept)>) {
        self.now.set(i64::try_from(by_uid.len()).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(name: &str) -> ServerRef {
        ServerRef { namespace: "ns".into(), name: name.into(), uid: name.into() }
    }

    fn kept(backend: &str, cause: HoldCause) -> Kept {
        Kept { backend: backend.into(), counts: FloorCounts { serving: 4, registered: 8, needed: 4 }, cause }
    }

    #[test]
    fn a_server_is_counted_once_until_it_is_kept_for_something_else() {
        let servers = KeptServers::default();
        let mut registry = Registry::with_prefix("berth");
        servers.register(&mut registry);
        for cause in [HoldCause::Sick, HoldCause::Sick, HoldCause::Returning] {
            servers.keep(&server("a"), &kept("Service web", cause));
        }
        servers.keep(&server("b"), &kept("Service other", HoldCause::Sick));
        servers.let_go("c");
        let exposed = || {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
            text
        };
        assert!(exposed().contains("berth_panic_floor_servers 2"), "{}", exposed());
        assert!(exposed().contains("berth_panic_floor_kept_total{reason=\"sick\"} 2"), "{}", exposed());
        assert!(exposed().contains("berth_panic_floor_kept_total{reason=\"returning\"} 1"), "{}", exposed());
        let of_web = servers.of("ns", "Service web");
        assert_eq!(of_web.iter().map(|(server, _)| server.name.as_str()).collect::<Vec<_>>(), ["a"]);
        assert!(servers.of("elsewhere", "Service web").is_empty());
        servers.let_go("a");
        servers.let_go("b");
        assert!(exposed().contains("berth_panic_floor_servers 0"), "{}", exposed());
    }

    #[test]
    fn the_message_names_the_backend_and_the_numbers() {
        let message = kept("Service web", HoldCause::Sick).to_string();
        assert_eq!(message, "kept in traffic by the panic floor of Service web: 4 of 8 Servers serve, at least 4 must");
    }
}
