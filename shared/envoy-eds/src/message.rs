//! The messages of the protocol, as JSON. Only the fields that this crate sends or reads.

use std::{collections::BTreeMap, fmt, net::SocketAddr};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::assignment::{Assignment, Entry};

/// Where proxies ask for endpoints. The path is fixed in Envoy.
pub const PATH: &str = "/v3/discovery:endpoints";

/// The type of what is served.
pub(crate) const TYPE_URL: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";

/// Names the content of one assignment: the same endpoints give the same version, in every process and after every restart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AssignmentVersion(String);

impl AssignmentVersion {
    /// The version in a proxy's request. It may be any text.
    pub(crate) fn of_request(version_info: &str) -> Self {
        Self(version_info.to_owned())
    }

    fn of_content(resource: &[u8]) -> Self {
        let digest = hex::encode(Sha256::digest(resource));
        // 128 bits: no two contents ever share them by chance.
        Self(digest.chars().take(32).collect())
    }
}

impl fmt::Display for AssignmentVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a proxy asks. It sends more, which is skipped: 77 KB about its extensions.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct DiscoveryRequest {
    /// The version that the proxy has applied; empty before the first.
    #[serde(default, alias = "versionInfo")]
    pub(crate) version_info: String,
    /// Which proxy asks.
    pub(crate) node: Option<RequestNode>,
    /// The clusters that it asks for.
    #[serde(default, alias = "resourceNames")]
    pub(crate) resource_names: Vec<String>,
    /// The type that it asks for.
    #[serde(default, alias = "typeUrl")]
    pub(crate) type_url: String,
    /// Why the proxy has rejected the answer before.
    #[serde(alias = "errorDetail")]
    pub(crate) error_detail: Option<ErrorDetail>,
}

/// Which proxy asks.
#[derive(Debug, Deserialize)]
pub(crate) struct RequestNode {
    /// `node.id` of its bootstrap configuration.
    #[serde(default)]
    pub(crate) id: String,
}

/// Why a proxy has rejected an answer.
#[derive(Debug, Deserialize)]
pub(crate) struct ErrorDetail {
    /// In its own words.
    #[serde(default)]
    pub(crate) message: String,
}

/// The answer with an assignment, and the version of that.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// The version.
    pub(crate) version: AssignmentVersion,
    /// A `DiscoveryResponse` as JSON.
    pub(crate) body: Bytes,
}

impl Answer {
    /// Writes the answer for one cluster.
    pub(crate) fn new(cluster: &str, assignment: &Assignment) -> Result<Self, serde_json::Error> {
        let resource = serde_json::to_vec(&ClusterLoadAssignment::new(cluster, assignment))?;
        let version = AssignmentVersion::of_content(&resource);
        // The version is hexadecimal and the resource is JSON already, so nothing needs to be escaped.
        let head = format!(r#"{{"version_info":"{version}","type_url":"{TYPE_URL}","resources":["#);
        let body = [head.as_bytes(), &resource, b"]}"].concat();
        Ok(Self { version, body: body.into() })
    }
}

#[derive(Serialize)]
struct ClusterLoadAssignment<'a> {
    #[serde(rename = "@type")]
    type_url: &'static str,
    cluster_name: &'a str,
    endpoints: Vec<LocalityLbEndpoints<'a>>,
}

#[derive(Serialize)]
struct LocalityLbEndpoints<'a> {
    locality: Locality<'a>,
    load_balancing_weight: u32,
    lb_endpoints: Vec<LbEndpoint>,
}

#[derive(Serialize)]
struct Locality<'a> {
    zone: &'a str,
}

#[derive(Serialize)]
struct LbEndpoint {
    endpoint: AddressOf,
    health_status: &'static str,
    load_balancing_weight: u32,
}

#[derive(Serialize)]
struct AddressOf {
    address: Address,
}

#[derive(Serialize)]
struct Address {
    socket_address: SocketAddress,
}

#[derive(Serialize)]
struct SocketAddress {
    address: String,
    port_value: u16,
}

impl<'a> ClusterLoadAssignment<'a> {
    fn new(cluster: &'a str, assignment: &'a Assignment) -> Self {
        let mut zones: BTreeMap<&str, Vec<(&SocketAddr, &Entry)>> = BTreeMap::new();
        for (socket, entry) in &assignment.entries {
            zones.entry(&entry.zone).or_default().push((socket, entry));
        }
        let endpoints = zones.into_iter().map(|(zone, entries)| LocalityLbEndpoints::new(zone, &entries)).collect();
        Self { type_url: TYPE_URL, cluster_name: cluster, endpoints }
    }
}

impl<'a> LocalityLbEndpoints<'a> {
    fn new(zone: &'a str, entries: &[(&SocketAddr, &Entry)]) -> Self {
        // With this weight, endpoints keep their shares also in a cluster with `locality_weighted_lb_config`, where a zone
        // without a weight gets no requests at all. Other clusters ignore it.
        let serving = entries.iter().filter(|(_, entry)| !entry.draining).map(|(_, entry)| entry.weight);
        let weight = serving.fold(0, u32::saturating_add).max(1);
        let lb_endpoints = entries.iter().map(|(socket, entry)| LbEndpoint::new(socket, entry)).collect();
        Self { locality: Locality { zone }, load_balancing_weight: weight, lb_endpoints }
    }
}

impl LbEndpoint {
    fn new(socket: &SocketAddr, entry: &Entry) -> Self {
        let socket_address = SocketAddress { address: socket.ip().to_string(), port_value: socket.port() };
        Self {
            endpoint: AddressOf { address: Address { socket_address } },
            health_status: if entry.draining { "DRAINING" } else { "HEALTHY" },
            load_balancing_weight: entry.weight,
        }
    }
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
