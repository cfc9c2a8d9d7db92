//! What Envoy itself says about its hosts, from its admin interface.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Request, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, de::DeserializeOwned};
use tokio::net::TcpStream;

/// The largest answer that is read, in bytes. A host takes 800 bytes.
const MAX_ANSWER: usize = 256 << 20;

/// Why Envoy's admin interface gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// There was no answer, or none that can be used.
    #[error("Envoy's admin interface at {address}: {path}: {reason}")]
    NoAnswer {
        /// Where it should be.
        address: SocketAddr,
        /// What was asked.
        path: String,
        /// What went wrong.
        reason: String,
    },
    /// It has no such cluster.
    #[error(
        "Envoy at {address} has no cluster that gets its endpoints as `{cluster}`: compare `service_name` in its configuration"
    )]
    NoCluster {
        /// Where it is.
        address: SocketAddr,
        /// The cluster.
        cluster: String,
    },
}

/// The admin interface of one proxy. It is HTTP without TLS and without authentication, and can also stop the proxy: it should be
/// reachable only from where this runs.
#[derive(Clone, Copy, Debug)]
pub struct EnvoyAdmin {
    address: SocketAddr,
    timeout: Duration,
}

/// A host as one proxy sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvoyHost {
    /// Its address and port.
    pub socket: SocketAddr,
    /// Its weight.
    pub weight: u32,
    /// Requests that have been sent to it and are not finished, over all workers.
    pub active_requests: u64,
    /// Connections to it.
    pub active_connections: u64,
    /// The health that the proxy was told by EDS: `HEALTHY`, `DRAINING`.
    pub told: String,
    /// Active health checks fail, or none has succeeded yet.
    pub failed_active_check: bool,
    /// It was ejected for the errors that it gave (outlier detection).
    pub ejected: bool,
    /// It is no longer in the assignment, and stays because its active health checks succeed.
    pub pending_removal: bool,
}

impl EnvoyHost {
    /// Whether the proxy sends it new requests, unless it is in panic.
    #[must_use]
    pub fn takes_requests(&self) -> bool {
        self.told == "HEALTHY" && !self.failed_active_check && !self.ejected
    }
}

/// What one proxy has done with the assignments of one cluster since it started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EnvoyUpdates {
    /// Assignments that it has applied.
    pub applied: u64,
    /// Assignments that it has rejected.
    pub rejected: u64,
    /// Requests to the EDS server that failed.
    pub failed: u64,
}

impl EnvoyAdmin {
    /// The interface at this address. No question takes longer than `timeout`.
    #[must_use]
    pub fn new(address: SocketAddr, timeout: Duration) -> Self {
        Self { address, timeout }
    }

    /// The hosts of a cluster, named as in [`EdsService::set`](crate::EdsService::set). A host that Envoy has removed is not among
    /// them, also while requests to it are in flight.
    pub async fn hosts(&self, cluster: &str) -> Result<Vec<EnvoyHost>, AdminError> {
        const PATH: &str = "/clusters?format=json";
        let answer: Clusters = self.get(PATH).await?;
        let found = answer.cluster_statuses.into_iter().find(|found| {
            let service = if found.eds_service_name.is_empty() { &found.name } else { &found.eds_service_name };
            service == cluster
        });
        let found =
            found.ok_or_else(|| AdminError::NoCluster { address: self.address, cluster: cluster.to_owned() })?;
        found.host_statuses.iter().map(|host| host.read().map_err(|reason| self.no_answer(PATH, reason))).collect()
    }

    /// What the proxy has done with the assignments of a cluster. `name` is the name of the cluster in its configuration.
    pub async fn updates(&self, name: &str) -> Result<EnvoyUpdates, AdminError> {
        let path = "/stats?format=json&filter=.update_(success|rejected|failure)$";
        let answer: Stats = self.get(path).await?;
        let counter = |what: &str| {
            let wanted = format!("cluster.{name}.update_{what}");
            let found = answer.stats.iter().find(|stat| stat.name == wanted);
            found.and_then(|stat| stat.value.as_ref()).and_then(serde_json::Value::as_u64)
        };
        let read = || {
            let [applied, rejected, failed] = ["success", "rejected", "failure"].map(counter);
            Some(EnvoyUpdates { applied: applied?, rejected: rejected?, failed: failed? })
        };
        read().ok_or_else(|| AdminError::NoCluster { address: self.address, cluster: name.to_owned() })
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, AdminError> {
        let asked = tokio::time::timeout(self.timeout, self.fetch(path)).await;
        let body = asked.unwrap_or_else(|_| Err(format!("no answer within {:?}", self.timeout)));
        let body = body.map_err(|reason| self.no_answer(path, reason))?;
        serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_slice(&body))
            .map_err(|error| self.no_answer(path, format!("the answer is not as expected: {error}")))
    }

    async fn fetch(&self, path: &str) -> Result<Bytes, String> {
        let stream = TcpStream::connect(self.address).await.map_err(|error| format!("cannot connect: {error}"))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        let request = Request::get(path)
            .header(header::HOST, self.address.to_string())
            .header(header::CONNECTION, "close")
            .body(Empty::<Bytes>::new())
            .map_err(|error| error.to_string())?;
        let answer = async move {
            let answer = sender.send_request(request).await.map_err(|error| format!("no HTTP answer: {error}"))?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
            let body = body.map_err(|error| format!("cannot read the answer: {error}"))?.to_bytes();
            if status.is_success() { Ok(body) } else { Err(format!("answered {status}")) }
        };
        // The connection has to be driven while the answer is read; how it ends shows in the answer.
        let (answer, _) = tokio::join!(biased; answer, connection);
        answer
    }

    fn no_answer(&self, path: &str, reason: String) -> AdminError {
        AdminError::NoAnswer { address: self.address, path: path.to_owned(), reason }
    }
}

/// Envoy leaves out what is 0 or false.
#[derive(Deserialize)]
struct Clusters {
    #[serde(default)]
    cluster_statuses: Vec<ClusterStatus>,
}

#[derive(Deserialize)]
struct ClusterStatus {
    #[serde(default)]
    name: String,
    #[serde(default)]
    eds_service_name: String,
    #[serde(default)]
    host_statuses: Vec<HostStatus>,
}

#[derive(Deserialize)]
struct HostStatus {
    address: HostAddress,
    #[serde(default)]
    stats: Vec<HostStat>,
    #[serde(default)]
    health_status: HostHealth,
    #[serde(default)]
    weight: u32,
}

#[derive(Deserialize)]
struct HostAddress {
    socket_address: SocketAddressOf,
}

#[derive(Deserialize)]
struct SocketAddressOf {
    address: String,
    port_value: u16,
}

/// A 64-bit number is a text in the JSON of protocol buffers.
#[derive(Deserialize)]
struct HostStat {
    #[serde(default)]
    name: String,
    #[serde(default)]
    value: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
#[expect(clippy::struct_excessive_bools, reason = "these are Envoy's fields")]
struct HostHealth {
    eds_health_status: String,
    failed_active_health_check: bool,
    pending_active_hc: bool,
    failed_outlier_check: bool,
    pending_dynamic_removal: bool,
}

#[derive(Deserialize)]
struct Stats {
    stats: Vec<Stat>,
}

#[derive(Deserialize)]
struct Stat {
    #[serde(default)]
    name: String,
    #[serde(default)]
    value: Option<serde_json::Value>,
}

impl HostStatus {
    fn read(&self) -> Result<EnvoyHost, String> {
        let SocketAddressOf { address, port_value } = &self.address.socket_address;
        let ip: IpAddr = address.parse().map_err(|_| format!("the host `{address}` is no IP address"))?;
        let number = |name: &str| {
            let stat = self.stats.iter().find(|stat| stat.name == name);
            let value = stat.and_then(|stat| stat.value.as_deref()).unwrap_or("0");
            value
                .parse::<u64>()
                .map_err(|_| format!("{name} of {address}:{port_value} is `{value}`, which is no number"))
        };
        Ok(EnvoyHost {
            socket: SocketAddr::new(ip, *port_value),
            weight: self.weight,
            active_requests: number("rq_active")?,
            active_connections: number("cx_active")?,
            told: self.health_status.eds_health_status.clone(),
            failed_active_check: self.health_status.failed_active_health_check || self.health_status.pending_active_hc,
            ejected: self.health_status.failed_outlier_check,
            pending_removal: self.health_status.pending_dynamic_removal,
        })
    }
}

#[cfg(test)]
#[path = "admin_tests.rs"]
mod tests;
