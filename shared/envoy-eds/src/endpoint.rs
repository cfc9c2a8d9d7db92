//! What the user of this crate declares: endpoints, and the traffic that each should get.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

/// One host of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Names the endpoint in messages. It is not sent: Envoy knows a host by its address and port.
    pub name: String,
    /// Its address. Envoy takes no host name here.
    pub address: IpAddr,
    /// Its port, not 0.
    pub port: u16,
    /// Its share of the requests, relative to the other endpoints. 0 means the same as [`EndpointTraffic::Held`].
    pub weight: u32,
    /// The traffic that it should get.
    pub traffic: EndpointTraffic,
    /// Where it is. Envoy ignores it, unless its configuration turns on routing by zone or weighted localities. May be empty.
    pub zone: String,
}

impl Endpoint {
    /// What Envoy knows it by.
    #[must_use]
    pub fn socket(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }

    /// The traffic that it should get, with a weight of 0 taken into account.
    pub(crate) fn traffic(&self) -> EndpointTraffic {
        match self.traffic {
            EndpointTraffic::Serving if self.weight == 0 => EndpointTraffic::Held,
            traffic => traffic,
        }
    }
}

/// The traffic that an endpoint should get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointTraffic {
    /// New requests, by its weight.
    Serving,
    /// No new requests; those in flight may finish, and [`EnvoyAdmin::hosts`](crate::EnvoyAdmin::hosts) shows how many are left.
    Draining,
    /// None. Envoy is not told of it: see the [decision](crate#held-endpoints-are-left-out).
    Held,
}

/// Why endpoints cannot be sent to Envoy. Envoy would reject them, or ignore a part without a word.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEndpoints {
    /// Envoy cannot connect to port 0.
    #[error("endpoint `{name}` ({address}) has port 0: give the port on which it listens")]
    NoPort {
        /// The endpoint.
        name: String,
        /// Its address.
        address: IpAddr,
    },
    /// Of several entries with one address, Envoy uses the first and ignores the others.
    #[error("endpoints `{first}` and `{second}` are both {socket}: list each address and port once")]
    SameAddress {
        /// The endpoint that comes first.
        first: String,
        /// The other one.
        second: String,
        /// What they share.
        socket: SocketAddr,
    },
    /// Envoy adds the weights of a cluster up in 32 bits.
    #[error(
        "the weights of all endpoints add up to {sum}: at most {MAX_SUM} can be sent to Envoy; use smaller weights"
    )]
    TooHeavy {
        /// The sum.
        sum: u64,
    },
    /// A cluster is asked for by its name.
    #[error("the cluster has no name: give the `service_name` (or the name) of Envoy's cluster")]
    NoClusterName,
}

/// The largest sum of weights. Envoy adds them up in 32 bits; the rest is room for draining endpoints, which weigh 1 each.
const MAX_SUM: u64 = 4_000_000_000;

/// Checks what Envoy would not take, so that a rejected update is rare and a surprise.
pub(crate) fn check(cluster: &str, endpoints: &[Endpoint]) -> Result<(), InvalidEndpoints> {
    if cluster.is_empty() {
        return Err(InvalidEndpoints::NoClusterName);
    }
    let mut known: BTreeMap<SocketAddr, &str> = BTreeMap::new();
    for endpoint in endpoints {
        if endpoint.port == 0 {
            return Err(InvalidEndpoints::NoPort { name: endpoint.name.clone(), address: endpoint.address });
        }
        if let Some(first) = known.insert(endpoint.socket(), &endpoint.name) {
            return Err(InvalidEndpoints::SameAddress {
                first: first.to_owned(),
                second: endpoint.name.clone(),
                socket: endpoint.socket(),
            });
        }
    }
    let sum = endpoints.iter().map(|endpoint| u64::from(endpoint.weight)).sum();
    if sum > MAX_SUM { Err(InvalidEndpoints::TooHeavy { sum }) } else { Ok(()) }
}
