//! The runtime API of HAProxy as a driver.
//!
//! An entry with traffic is `ready`, one that drains is in `drain`, and one without traffic is in maintenance (`maint`). Servers with
//! other names in the same backend are left alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use berth_core::api::{BalancerClass, Credentials, HaProxyAccess, HaProxySocket, TrafficPhase};
use berth_haproxy::{
    Address, AdminState, CheckOptions, ClientTls, Haproxy, HaproxyError, NewServer, Problem, RefusalKind, ServerChange,
    ServerId, ServerState, Socket,
};
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};

use crate::classes::{
    driver::{Change, Driver, DriverError, Entry, EntryKey, Shown, ShownEntry},
    names,
};

/// The limit of one answer. Processes are read each second, and one that does not answer holds up the others of its class for this
/// long.
const TIME_LIMIT: Duration = Duration::from_secs(2);

/// The processes of an HAProxy.
#[derive(Debug)]
pub struct HaproxyDriver {
    processes: BTreeMap<String, Haproxy>,
}

/// The driver of a class. The error says what is wrong with the class.
///
/// # Errors
/// When an address or a certificate cannot be used.
pub async fn driver(client: &Client, class: &BalancerClass) -> Result<Arc<dyn Driver>, String> {
    let access = class.spec.haproxy.as_ref().ok_or("spec.haproxy is missing: it names the processes")?;
    let tls = match &access.tls {
        Some(secret) => Some(client_tls(client, secret).await?),
        None => None,
    };
    Ok(Arc::new(HaproxyDriver::new(access, tls.as_ref())?))
}

async fn client_tls(client: &Client, secret: &Credentials) -> Result<ClientTls, String> {
    let Credentials { namespace, name } = secret;
    let found = Api::<Secret>::namespaced(client.clone(), namespace).get(name).await;
    let found =
        found.map_err(|error| format!("spec.haproxy.tls: Secret {namespace}/{name} cannot be read: {error}"))?;
    let part = |key: &str| {
        let value = found.data.as_ref().and_then(|data| data.get(key));
        value
            .map(|value| value.0.clone())
            .ok_or_else(|| format!("spec.haproxy.tls: Secret {namespace}/{name} has no {key}"))
    };
    let (certificate, key, ca) = (part("tls.crt")?, part("tls.key")?, part("ca.crt")?);
    ClientTls::from_pem(&certificate, &key, &ca, None).map_err(|error| format!("spec.haproxy.tls: {error}"))
}

impl HaproxyDriver {
    /// The processes that the class names.
    ///
    /// # Errors
    /// When an address cannot be used.
    pub fn new(access: &HaProxyAccess, tls: Option<&ClientTls>) -> Result<Self, String> {
        let socket = match access.socket {
            HaProxySocket::Master => Socket::Master,
            HaProxySocket::Worker => Socket::Worker,
        };
        let process = |text: &String| {
            let address = address(text, tls.cloned())
                .ok_or_else(|| format!("spec.haproxy.addresses: {text:?} is neither unix:/path nor host:port"))?;
            Ok((text.clone(), Haproxy::new(address, socket, TIME_LIMIT)))
        };
        Ok(Self { processes: access.addresses.iter().map(process).collect::<Result<_, String>>()? })
    }

    fn process(&self, name: &str) -> Result<&Haproxy, DriverError> {
        self.processes
            .get(name)
            .ok_or_else(|| DriverError::Unreachable(format!("{name} is none of the class's processes")))
    }

    async fn read_process(&self, process: &str, backends: &BTreeSet<String>) -> Result<Shown, DriverError> {
        let haproxy = self.process(process)?;
        let state = haproxy.state(None).await.map_err(|error| driver_error(&error))?;
        let mut shown = Shown::default();
        let ours = state.servers.iter().filter(|server| names::server_of(&server.id.name).is_some());
        for server in ours {
            let key = EntryKey { backend: server.id.backend.clone(), name: server.id.name.clone() };
            shown.entries.insert(key, ShownEntry { entry: entry(server), requests: Some(server.in_flight.total()) });
        }
        shown.backends = state.servers.into_iter().map(|server| server.id.backend).collect();
        // A backend without servers is in no list of servers.
        for backend in backends.difference(&shown.backends.clone()) {
            match haproxy.servers(backend).await {
                Ok(_) => _ = shown.backends.insert(backend.clone()),
                Err(error) if error.refusal() == Some(RefusalKind::NoSuchBackend) => {}
                Err(error) => return Err(driver_error(&error)),
            }
        }
        count_requests(haproxy, &mut shown).await?;
        Ok(shown)
    }

    async fn change_process(
        &self,
        process: &str,
        shown: &Shown,
        changes: &[Change],
    ) -> Result<Vec<Result<(), DriverError>>, DriverError> {
        let haproxy = self.process(process)?;
        let steps: Vec<_> = changes.iter().map(|(key, wanted)| steps(shown, key, wanted.as_ref())).collect();
        let all: Vec<ServerChange> =
            steps.iter().flat_map(|steps| steps.as_deref().unwrap_or_default()).cloned().collect();
        let mut outcomes = haproxy.apply(&all).await.map_err(|error| driver_error(&error))?.into_iter();
        let of_change = |steps: Result<Vec<ServerChange>, DriverError>| {
            let outcomes: Vec<_> = outcomes.by_ref().take(steps?.len()).collect();
            outcomes.into_iter().collect::<Result<(), HaproxyError>>().map_err(|error| driver_error(&error))
        };
        Ok(steps.into_iter().map(of_change).collect())
    }
}

/// Old workers go on with their requests after a reload. They are asked only while something drains.
async fn count_requests(haproxy: &Haproxy, shown: &mut Shown) -> Result<(), DriverError> {
    if shown.entries.values().all(|found| found.entry.phase != TrafficPhase::Draining) {
        return Ok(());
    }
    let table = haproxy.in_flight(None).await.map_err(|error| driver_error(&error))?;
    for (key, found) in &mut shown.entries {
        let id = ServerId::new(key.backend.clone(), key.name.clone());
        found.requests = table.complete.then(|| table.of(&id).total());
    }
    Ok(())
}

fn address(text: &str, tls: Option<ClientTls>) -> Option<Address> {
    if let Some(path) = text.strip_prefix("unix:") {
        return Some(Address::Unix(path.into()));
    }
    let (host, port) = text.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    Some(Address::Tcp { host, port: port.parse().ok()?, tls })
}

/// What a server of HAProxy is to Berth.
fn entry(server: &ServerState) -> Entry {
    let phase = match server.admin {
        AdminState::Ready => TrafficPhase::Serving,
        AdminState::Drain => TrafficPhase::Draining,
        AdminState::Maint => TrafficPhase::Held,
    };
    let address = server.address.clone().unwrap_or_default();
    Entry { address, port: server.port, weight: server.weight, phase }
}

/// The commands that make a server what is wanted. One that has to go is taken out of traffic first.
fn steps(shown: &Shown, key: &EntryKey, wanted: Option<&Entry>) -> Result<Vec<ServerChange>, DriverError> {
    let id = || ServerId::new(key.backend.clone(), key.name.clone());
    let set = |phase| match phase {
        TrafficPhase::Serving => ServerChange::Enable(id()),
        TrafficPhase::Draining => ServerChange::SetState(id(), AdminState::Drain),
        TrafficPhase::Held => ServerChange::SetState(id(), AdminState::Maint),
    };
    let found = shown.entries.get(key).map(|found| &found.entry);
    let Some(wanted) = wanted else {
        return Ok(if found.is_some() {
            vec![set(TrafficPhase::Held), ServerChange::Delete(id())]
        } else {
            Vec::new()
        });
    };
    let mut steps = Vec::new();
    match found {
        None => {
            let server = new_server(key, wanted).ok_or_else(|| {
                DriverError::Refused(format!("{:?} is no IP address: HAProxy needs one", wanted.address))
            })?;
            steps.push(ServerChange::Add(server));
        }
        Some(found) if found.weight != wanted.weight => steps.push(ServerChange::SetWeight(id(), wanted.weight)),
        Some(_) => {}
    }
    // A new server begins in maintenance.
    if found.map_or(TrafficPhase::Held, |found| found.phase) != wanted.phase {
        steps.push(set(wanted.phase));
    }
    Ok(steps)
}

/// The server of an entry, the same at run time and in the configuration; none if the address is no IP address.
pub(super) fn new_server(key: &EntryKey, entry: &Entry) -> Option<NewServer> {
    let address: IpAddr = entry.address.parse().ok()?;
    let id = ServerId::new(key.backend.clone(), key.name.clone());
    let (port, weight, check) = (entry.port, entry.weight, Some(CheckOptions::default()));
    Some(NewServer { id, address, port, weight, check, options: Vec::new() })
}

fn driver_error(error: &HaproxyError) -> DriverError {
    let text = error.to_string();
    match error.refusal() {
        Some(RefusalKind::HasConnections | RefusalKind::NotInMaintenance | RefusalKind::WorkerIsLeaving) => {
            DriverError::NotYet(text)
        }
        Some(_) => DriverError::Refused(text),
        None if matches!(error.problem, Problem::NotSent(_)) => DriverError::Refused(text),
        None => DriverError::Unreachable(text),
    }
}

impl Driver for HaproxyDriver {
    fn processes(&self) -> Vec<String> {
        self.processes.keys().cloned().collect()
    }

    fn read<'a>(
        &'a self,
        process: &'a str,
        backends: &'a BTreeSet<String>,
    ) -> BoxFuture<'a, Result<Shown, DriverError>> {
        Box::pin(self.read_process(process, backends))
    }

    fn apply<'a>(
        &'a self,
        process: &'a str,
        shown: &'a Shown,
        changes: &'a [Change],
    ) -> BoxFuture<'a, Vec<Result<(), DriverError>>> {
        Box::pin(async move {
            let outcomes = self.change_process(process, shown, changes).await;
            outcomes.unwrap_or_else(|error| vec![Err(error); changes.len()])
        })
    }
}
