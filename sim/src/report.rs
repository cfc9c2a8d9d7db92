//! What fleets of several sizes cost the API server: measured in the world, where nothing goes wrong.

use std::{fmt, sync::Arc, time::Duration};

use berth_core::api::{MachineClass, Server, State, VMDeployment};
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{Faults, Program, RequestCounts, World, meter::Traffic, people::create, ports::APP_PORT, requests::since};

/// The most that a phase may take, in the time of the world.
const LIMIT: Duration = Duration::from_hours(24);
/// How long what is on its way may take to arrive.
const SETTLING: Duration = Duration::from_secs(20);

/// The most Servers of one VMDeployment.
const SET: usize = 1_000;
/// The revision of the code that is rolled out.
const NEWER: &str = "newer";

/// A part of the life of a fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// From nothing to Ready.
    Up,
    /// Another code, on as many Servers at once as the budget allows.
    RollOut,
    /// From Ready to nothing.
    Down,
}

/// What one phase has cost.
#[derive(Clone, Debug, PartialEq)]
pub struct Cost {
    /// How many Servers there were.
    pub servers: usize,
    /// How many copies of each program there were.
    pub copies: usize,
    /// Which phase.
    pub phase: Phase,
    /// What all programs asked of the API server.
    pub traffic: Traffic,
    /// How often controllers reconciled an object.
    pub reconciles: u64,
    /// The requests behind that, by kind.
    pub requests: RequestCounts,
}

/// What an API server needs for a request, in milliseconds of one processor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prices {
    /// For a request that changes something.
    pub write: f64,
    /// For a request for one object.
    pub read: f64,
    /// For each event of a watch.
    pub event: f64,
}

impl Cost {
    /// The names of the columns of a line of a table.
    pub const COLUMNS: &str =
        "servers  copies  phase     writes   reads  events    KB sent  KB read  reconciles  API server, each   all";

    /// A line of a table: what one Server cost, and how much of its processor the API server needed for that and for all.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "the numbers are rounded to be read")]
    pub fn line(&self, prices: Prices) -> String {
        let servers = self.servers as f64;
        let each = |count: u64| count as f64 / servers;
        let Traffic { writes, reads, lists, sent, received, events, watched } = self.traffic;
        let price = each(writes) * prices.write + each(reads + lists) * prices.read + each(events) * prices.event;
        format!(
            "{:>7}  {:>6}  {:<8} {:>7.2} {:>7.2} {:>7.2} {:>10.2} {:>8.2} {:>11.2} {:>14.1} ms {:>5.0} s",
            self.servers,
            self.copies,
            self.phase,
            each(writes),
            each(reads + lists),
            each(events),
            each(sent) / 1e3,
            each(received + watched) / 1e3,
            each(self.reconciles),
            price,
            price * servers / 1e3
        )
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Up => "up",
            Self::RollOut => "roll-out",
            Self::Down => "down",
        })
    }
}

/// Lets a fleet of this size come, get other code, and go, with so many copies of each program. Tells `ended` what each phase has
/// cost.
///
/// # Panics
/// When the fleet does not get there.
pub fn cost(servers: usize, copies: usize, ended: impl Fn(&Cost) + Send) {
    World::run(1, Faults::default(), |world| async move {
        world.api.keep_no_log();
        world.meter.count_kinds();
        for program in Program::ALL {
            for copy in 0..copies {
                let started = world.start(program, &format!("copy-{copy}"));
                started.unwrap_or_else(|error| panic!("{program:?} does not start: {error}"));
            }
        }
        let fleet = Fleet { world: &world, client: world.person("ann"), servers, copies };
        fleet.live(ended).await.unwrap_or_else(|error| panic!("{error}"));
    });
}

struct Fleet<'a> {
    world: &'a World,
    client: Client,
    servers: usize,
    copies: usize,
}

impl Fleet<'_> {
    async fn live(&self, ended: impl Fn(&Cost)) -> Result<(), kube::Error> {
        let deployments: Api<VMDeployment> = Api::default_namespaced(self.client.clone());
        let names: Vec<(String, usize)> = (0..self.servers.div_ceil(SET))
            .map(|number| (format!("web{number}"), SET.min(self.servers - number * SET)))
            .collect();
        create::<MachineClass>(&Api::all(self.client.clone()), class()).await?;
        for phase in [Phase::Up, Phase::RollOut, Phase::Down] {
            let (before, reconciled_before) = (self.traffic(), self.world.reconciles());
            let requests_before = self.world.meter.kinds();
            for (name, replicas) in &names {
                match phase {
                    Phase::Up => {
                        create::<Service>(&Api::default_namespaced(self.client.clone()), service(name)).await?;
                        create(&deployments, deployment(name, *replicas)).await?;
                    }
                    Phase::RollOut => {
                        let newer = Patch::Merge(json!({"spec": {"app": {"revision": NEWER}}}));
                        deployments.patch(name, &PatchParams::default(), &newer).await.map(drop)?;
                    }
                    Phase::Down => deployments.delete(name, &DeleteParams::default()).await.map(drop)?,
                }
            }
            let is_over = self.world.wait(LIMIT, async || self.is_over(phase)).await;
            assert!(is_over, "{} Servers: {phase} takes more than a day", self.servers);
            sleep(SETTLING).await;
            let reconciles = self.world.reconciles() - reconciled_before;
            let traffic = self.traffic() - before;
            let requests = since(&requests_before, &self.world.meter.kinds());
            let cost = Cost { servers: self.servers, copies: self.copies, phase, traffic, reconciles, requests };
            ended(&cost);
        }
        Ok(())
    }

    fn traffic(&self) -> Traffic {
        Traffic::sum(self.world.meter.read().values())
    }

    fn is_over(&self, phase: Phase) -> bool {
        let servers = self.world.servers();
        let slices: Vec<Arc<EndpointSlice>> = self.world.api.decoded("endpointslices");
        let endpoints: Vec<_> = slices.iter().flat_map(|slice| slice.endpoints.iter().flatten()).collect();
        if phase == Phase::Down {
            return servers.is_empty() && endpoints.is_empty();
        }
        let serving =
            endpoints.iter().filter(|endpoint| endpoint.conditions.as_ref().is_some_and(|c| c.ready == Some(true)));
        let ready = servers.iter().filter(|server| server.state() == Some(State::Ready));
        let is_newer = |server: &&Arc<Server>| {
            let app = server.status.as_ref().and_then(|status| status.app.as_ref());
            phase == Phase::Up || app.is_some_and(|app| app.revision == NEWER)
        };
        serving.count() == self.servers && ready.filter(is_newer).count() == self.servers
    }
}

fn class() -> Value {
    json!({
        "apiVersion": "berth.dev/v1alpha1", "kind": "MachineClass", "metadata": {"name": "small"},
        "spec": {"provider": "simulated", "access": {"user": "berth", "port": 22, "root": "opt/berth"}}
    })
}

fn service(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"ports": [{"name": "http", "port": 80}]}})
}

fn deployment(name: &str, replicas: usize) -> Value {
    json!({
        "apiVersion": "berth.dev/v1alpha1", "kind": "VMDeployment", "metadata": {"name": name},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": name}},
            "updateStrategy": {"maxUnavailable": "100%"},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"machine": {"className": "small"}, "packages": [{"name": "jq", "version": "1.7", "apt": {}}],
                         "healthCheck": {"httpGet": {"port": APP_PORT, "path": "/"}},
                         "traffic": {"backends": [{"service": name, "port": 80, "portName": "http"}], "drain": {"seconds": 2}}}
            },
            "app": {"name": "web", "revision": "first", "command": "./run",
                    "artifact": {"url": "http://a/web.tar", "sha256": "ab".repeat(32)}}
        }
    })
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    #[test]
    fn servers_that_come_at_once_look_their_service_up_once() {
        let lookups = Mutex::new(0);
        cost(20, 1, |cost| {
            let of_services = cost.requests.iter().filter(|(kind, _)| kind.what == "GET services");
            *lookups.lock() += of_services.map(|(_, count)| count).sum::<u64>();
        });
        assert!(*lookups.lock() <= 3, "{} lookups of one Service", lookups.lock());
    }
}
