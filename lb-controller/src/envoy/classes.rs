//! The classes of all Envoys, and where proxies ask for their endpoints.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header::CONNECTION},
    response::{IntoResponse, Response},
    routing::post,
};
use berth_core::api::BalancerClass;
use berth_envoy_eds::PATH;
use parking_lot::Mutex;
use serde::Deserialize;
use tower::ServiceExt as _;

use super::driver::{EnvoyDriver, Slot};
use crate::classes::driver::Driver;

/// The classes whose proxies ask this copy. Clones share them.
#[derive(Clone)]
pub struct EnvoyClasses {
    slots: Arc<Mutex<BTreeMap<String, Arc<Slot>>>>,
    is_served: bool,
}

impl EnvoyClasses {
    /// No class yet. `is_served` says whether proxies reach the [`EnvoyClasses::routes`].
    #[must_use]
    pub fn new(is_served: bool) -> Self {
        Self { slots: Arc::default(), is_served }
    }

    /// The driver of a class.
    ///
    /// # Errors
    /// What is wrong with the class.
    pub fn driver(&self, class: &BalancerClass) -> Result<Arc<dyn Driver>, String> {
        if !self.is_served {
            return Err(
                "lb-controller is started without --servers-address, where Envoy asks for its endpoints".to_owned()
            );
        }
        let slot = Arc::clone(self.slots.lock().entry(class.name().to_owned()).or_default());
        Ok(Arc::new(EnvoyDriver::new(class, slot)?))
    }

    /// Where proxies ask.
    pub fn routes(&self) -> Router {
        Router::new().route(PATH, post(discover)).with_state(self.clone())
    }

    /// The routes of the class and backend that are asked for.
    fn routes_of(&self, resource: &str) -> Result<Router, String> {
        let (class, backend) = resource.split_once('/').ok_or_else(|| {
            format!("{resource:?} is asked for: set `service_name` of the cluster to BalancerClass/backend")
        })?;
        let slot = self.slots.lock().get(class).cloned();
        let served = slot.and_then(|slot| slot.served()).ok_or_else(|| {
            format!("BalancerClass {class} is not served by this copy of lb-controller: it does not exist, has another driver, or another copy is in charge")
        })?;
        served.routes(backend)
    }
}

/// What is asked for. The rest is read by the service of the class.
#[derive(Deserialize)]
struct Asked {
    #[serde(default, alias = "resourceNames")]
    resource_names: Vec<String>,
}

/// Hands the request to its class.
async fn discover(State(classes): State<EnvoyClasses>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = match axum::body::to_bytes(body, MAX_REQUEST).await {
        Ok(body) => body,
        Err(error) => return (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
    };
    let resource = match resource(&body) {
        Ok(resource) => resource,
        Err(why) => return (StatusCode::BAD_REQUEST, format!("{why}\n")).into_response(),
    };
    match classes.routes_of(&resource) {
        Ok(routes) => match routes.oneshot(Request::from_parts(parts, Body::from(body))).await {
            Ok(response) => response,
            Err(never) => match never {},
        },
        // The proxy keeps its endpoints. With the next connection it may reach the copy that is in charge.
        Err(why) => {
            let close = HeaderValue::from_static("close");
            (StatusCode::NOT_FOUND, [(CONNECTION, close)], format!("{why}\n")).into_response()
        }
    }
}

/// The largest request, in bytes. Envoy's has 77 KB.
const MAX_REQUEST: usize = 2 << 20;

/// The name of the resource that is asked for.
fn resource(body: &Bytes) -> Result<String, String> {
    let asked: Asked =
        serde_json::from_slice(body).map_err(|error| format!("the body is no DiscoveryRequest in JSON: {error}"))?;
    let [resource] = asked.resource_names.as_slice() else {
        return Err(format!("resource_names has {} names: Envoy asks for one at a time", asked.resource_names.len()));
    };
    Ok(resource.clone())
}
