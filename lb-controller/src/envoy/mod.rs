//! Envoy as a load balancer: it asks this program for its endpoints.
//!
//! A proxy asks for the endpoints of `CLASS/BACKEND` by REST, `POST /v3/discovery:endpoints`, and says with its next request what it has
//! applied: see [`berth_envoy_eds`]. So `classes` has the routes, and knows which classes this copy serves; `class` holds what a class
//! should show and which proxies show it, with `backend` as the pure part; `requests` counts what is under way at endpoints that
//! drain; `driver` is what the rest of the program sees. `docs/howto/envoy.md` has the configuration of a proxy.
//!
//! - Only the copy in charge answers. The others answer 404, close the connection, and the proxy goes to another one.
//! - Nothing is served before everything is known: [`Driver::begin`](crate::classes::driver::Driver::begin).
//! - What is *shown* is what proxies have acknowledged. While a proxy may still act on an older list, an entry that differs between
//!   the two has no address, so that it is equal to nothing that anybody wants.

mod backend;
mod class;
mod classes;
mod driver;
mod requests;

pub use classes::EnvoyClasses;
