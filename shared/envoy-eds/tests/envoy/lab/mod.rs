//! What the tests are made of: HTTP servers, an EDS server that can be killed, Envoy, and a client.

mod backend;
mod client;
mod eds_server;
mod proxy;

use std::{
    fmt::Display,
    time::{Duration, Instant},
};

use berth_envoy_eds::{Acknowledgement, AssignmentVersion, EdsService, Endpoint, EndpointTraffic, ProxyRules};

pub(crate) use self::{
    backend::Backend,
    client::{Load, Tally, get},
    eds_server::EdsServer,
    proxy::{Config, Proxy},
};

/// Longer than anything takes, also on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(30);

/// There is one proxy.
pub(crate) const ONE: ProxyRules = ProxyRules {
    expected: Some(1),
    learn_for: Duration::ZERO,
    forget_after: Duration::from_mins(2),
    // The recommended configuration merges no updates. This is for the way from the main thread to the workers.
    takes_effect: Duration::from_millis(100),
};

/// Repeats the check until it gives a value.
pub(crate) async fn eventually<T>(what: impl Display, mut check: impl AsyncFnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + LONG;
    loop {
        let last = match check().await {
            Ok(value) => return value,
            Err(state) => state,
        };
        assert!(Instant::now() < deadline, "{what}: not within {LONG:?}; last state: {last}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Servers, the service with its server, and one proxy. Every server starts without traffic.
pub(crate) struct Lab {
    pub(crate) backends: Vec<Backend>,
    pub(crate) service: EdsService,
    pub(crate) server: EdsServer,
    pub(crate) proxy: Proxy,
}

impl Lab {
    /// Four servers, and a proxy with this configuration.
    pub(crate) async fn start(config: Config) -> Self {
        Self::start_with(config, ONE).await
    }

    /// The same, with other rules about proxies.
    pub(crate) async fn start_with(config: Config, rules: ProxyRules) -> Self {
        let service = EdsService::new(rules);
        let server = EdsServer::start(service.router(), None);
        let mut backends = Vec::new();
        for host in 1..=4 {
            backends.push(Backend::start(host).await);
        }
        let proxy = Proxy::start("edge-1", server.address(), &config).await;
        Self { backends, service, server, proxy }
    }

    /// The four servers as endpoints with these weights and this traffic; zones `a` and `b` in turn.
    pub(crate) fn endpoints(&self, weights: [u32; 4], traffic: [EndpointTraffic; 4]) -> Vec<Endpoint> {
        let given = self.backends.iter().zip(weights).zip(traffic).zip(["a", "b"].into_iter().cycle());
        let endpoint = |(((backend, weight), traffic), zone): (((&Backend, u32), EndpointTraffic), &str)| Endpoint {
            name: backend.name.clone(),
            address: backend.address.ip(),
            port: backend.address.port(),
            weight,
            traffic,
            zone: zone.to_owned(),
        };
        given.map(endpoint).collect()
    }

    /// Sets the endpoints and waits until the proxy has applied them.
    pub(crate) async fn apply(&self, endpoints: &[Endpoint]) -> AssignmentVersion {
        let version = self.service.set("web", endpoints).unwrap();
        self.applied(&version).await;
        version
    }

    /// Waits until the proxy has applied this version.
    pub(crate) async fn applied(&self, version: &AssignmentVersion) -> Acknowledgement {
        let waited = self.service.wait_acknowledged("web", version, LONG).await;
        waited.unwrap_or_else(|error| panic!("{error}\n{}", self.proxy.log()))
    }

    /// Waits until the proxy sends requests to exactly these servers, by its own account: with active checks, a new server has
    /// to pass one first.
    pub(crate) async fn takes_requests(&self, hosts: &[usize]) {
        let wanted: Vec<_> = hosts.iter().map(|host| self.backends[host - 1].address).collect();
        eventually(format!("requests to {wanted:?}"), async || {
            let hosts = self.proxy.admin.hosts("web").await.map_err(|error| error.to_string())?;
            let mut taking: Vec<_> =
                hosts.iter().filter(|host| host.takes_requests()).map(|host| host.socket).collect();
            taking.sort();
            if taking == wanted { Ok(()) } else { Err(format!("{hosts:?}")) }
        })
        .await;
    }

    /// Sends so many requests, one after the other on each of eight connections, and returns who answered.
    pub(crate) async fn ask(&self, requests: usize) -> Tally {
        client::ask(self.proxy.listener().await, requests).await
    }
}

/// All four with traffic.
pub(crate) const SERVING: [EndpointTraffic; 4] = [EndpointTraffic::Serving; 4];
