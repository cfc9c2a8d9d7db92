//! Serves endpoints to [Envoy](https://www.envoyproxy.io), says which proxies have applied them, and reads Envoy's admin interface.
//! It knows nothing of Berth: whoever has endpoints can use it.
//!
//! [`EdsService`] holds the desired endpoints of each cluster. [`EdsService::router`] has the routes that proxies ask.
//! [`EdsService::set`] changes the endpoints, and [`EdsService::wait_acknowledged`] waits until all proxies have applied them.
//! [`EnvoyAdmin`] asks one proxy how many requests are in flight on each host, which tells when a draining endpoint is drained.
//!
//! ```
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use berth_envoy_eds::{EdsService, Endpoint, EndpointTraffic, ProxyRules};
//! use std::time::Duration;
//!
//! let service = EdsService::new(ProxyRules { expected: Some(2), ..ProxyRules::default() });
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:18000").await?;
//! tokio::spawn(axum::serve(listener, service.router()).into_future());
//!
//! let traffic = EndpointTraffic::Serving;
//! let address = "10.0.0.7".parse()?;
//! let endpoint = Endpoint { name: "web-7".into(), address, port: 8080, weight: 100, traffic, zone: "a".into() };
//! let version = service.set("web", &[endpoint])?;
//! service.wait_acknowledged("web", &version, Duration::from_secs(30)).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # The protocol
//!
//! Envoy's name for this is EDS, the endpoint discovery service. Its messages are protocol buffers; by REST they are JSON, and need no
//! gRPC. Envoy sends `POST /v3/discovery:endpoints` for each of its clusters, again and again:
//!
//! | what the proxy sends | what it is answered |
//! | --- | --- |
//! | the version that it has applied is the newest | 304: nothing changes |
//! | another version, or none yet | 200, the whole assignment and its version |
//! | a cluster for which nothing was set | 404 with the reason |
//! | no node id, no JSON, several clusters, another type | 400 with the reason |
//!
//! - **The next request acknowledges.** A request names the version that the proxy has applied, so what was answered once counts as applied
//!   when the proxy has asked again.
//! - **Envoy asks, nobody calls it.** After each answer it waits for its `refresh_delay` and a random time up to the same length. So a
//!   change arrives after at most twice the `refresh_delay`, and is acknowledged at most as long after that. To take an endpoint out
//!   takes two changes (see below). Measured, until acknowledged: with `refresh_delay: 1s`, 2.9 s on average for a weight and 6.1 s for an
//!   endpoint that is taken out (at most 3.6 s and 6.7 s); with `0.1s`, 0.34 s and 0.62 s. A request has 77 KB, because Envoy describes
//!   its extensions each time.
//! - **Anything but a new assignment changes nothing.** On 304, 404 or no answer at all the proxy keeps the endpoints that it has, for
//!   as long as it runs. An assignment without endpoints, in contrast, empties it. So nothing is served for a cluster before its first
//!   [`EdsService::set`]; an empty list is served when it was set.
//! - **A version is a digest of the content.** A new process that sets the same endpoints has the same version, and no proxy applies
//!   anything again.
//! - **A rejected assignment changes nothing.** Envoy takes an assignment as a whole or not at all, and asks again with its old version.
//!   By REST it says why only in its log, not in its requests and not by its admin interface: [`ProxyStatus::rejection`] tells
//!   that an assignment was rejected, and where to read why. A proxy that does send `error_detail` is
//!   quoted. What Envoy is known to reject, [`EdsService::set`] refuses before, in words.
//!
//! # Held endpoints are left out
//!
//! Envoy has no state for "known, and gets nothing". A weight of 0 is not possible: Envoy rejects the whole update. `DRAINING` looks
//! right and is not: when no host of a cluster is healthy, Envoy is in panic and sends requests to all hosts, draining ones included
//! ([envoy#46800](https://github.com/envoyproxy/envoy/issues/46800); 40 of 40 requests in the test). A held endpoint may be in the middle
//! of an update, so it is not among the hosts at all.
//!
//! It cannot just be left out either. Envoy keeps a host that it no longer finds in the assignment while its active health checks
//! succeed, and goes on to send it requests. So an endpoint that is in the assignment and is no longer wanted is sent as
//! `DRAINING` first, and left out when all proxies act on that. Neither costs a request: those in flight are finished.
//! [`Acknowledgement::leaving`] has the endpoints that are in between.
//!
//! # What the proxy's configuration needs
//!
//! ```yaml
//! node: { id: edge-1 }                       # different for each proxy
//! clusters:
//! - name: web
//!   type: EDS
//!   lb_policy: ROUND_ROBIN                   # shares as declared; LEAST_REQUEST mixes them with the requests in flight
//!   ignore_health_on_host_removal: true      # with active checks: forget a host that is left out
//!   common_lb_config:
//!     update_merge_window: 0s                # with active checks: a new host gets requests as soon as it passes one
//!   eds_cluster_config:
//!     eds_config:
//!       resource_api_version: V3
//!       initial_fetch_timeout: 0s            # a new proxy takes no request before it has endpoints; 15s unless given
//!       api_config_source:
//!         api_type: REST
//!         transport_api_version: V3
//!         cluster_names: [eds]               # a static cluster with the address of this server
//!         refresh_delay: 1s
//! ```
//!
//! The tests run a real Envoy with this configuration, and show what happens without some of its lines.
//!
//! # Limits
//!
//! - A proxy that is cut off from this server goes on with what it knows. It is waited for until it has been silent for
//!   [`ProxyRules::forget_after`], and not longer: that it sends nothing to an endpoint that is gone is then no longer sure.
//! - What was sent by an earlier process is not known. If the first [`EdsService::set`] after a start lacks an endpoint that proxies
//!   have, it is left out without having drained. Without active checks, or with `ignore_health_on_host_removal`, that costs no
//!   request; with active checks alone, the host keeps its requests. Set it with [`EndpointTraffic::Draining`] first.
//! - Of several copies of a program, one should call [`EdsService::set`]. The others answer 404, and a proxy that has all of them in
//!   its `eds` cluster goes to the next one with its next request. Copies that serve different endpoints make proxies change
//!   back and forth.
//! - Two proxies with one node id, or two clusters of one proxy with one `service_name`, are taken for one: what the first of them
//!   has applied counts for both.
//! - A host that Envoy has removed is no longer listed by [`EnvoyAdmin::hosts`], also while requests to it are in flight: to
//!   see them end, drain first.
//! - While nobody else serves, draining endpoints get requests, unless `healthy_panic_threshold` is 0.
//! - Requests of proxies are not authenticated, and the answers are not encrypted.
//!
//! # Parts
//!
//! `assignment` decides what is sent, `proxies` and `cluster` who has applied it: they are pure. `message` is the JSON, `service` the state
//! behind a lock, `router` the HTTP.

mod admin;
mod assignment;
mod cluster;
mod endpoint;
mod message;
mod proxies;
mod router;
mod service;

pub use self::{
    admin::{AdminError, EnvoyAdmin, EnvoyHost, EnvoyUpdates},
    cluster::Acknowledgement,
    endpoint::{Endpoint, EndpointTraffic, InvalidEndpoints},
    message::{AssignmentVersion, PATH},
    proxies::{ProxyRules, ProxyStatus, Rejection},
    service::{EdsError, EdsService},
};
