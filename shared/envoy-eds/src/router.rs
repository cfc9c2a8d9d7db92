//! The HTTP side: what proxies ask, and what they are answered.

use axum::{
    Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::post,
};
use bytes::Bytes;
use http::{StatusCode, header};

use crate::{
    message::{AssignmentVersion, DiscoveryRequest, PATH, TYPE_URL},
    service::{EdsError, EdsService},
};

impl EdsService {
    /// The routes that proxies use: `POST /v3/discovery:endpoints`. Whoever reaches them can read the endpoints, and can say that
    /// a proxy has applied them: they are for the proxies' network alone.
    pub fn router(&self) -> Router {
        Router::new().route(PATH, post(discover)).with_state(self.clone())
    }
}

/// What a proxy asks, after it was checked.
#[derive(Debug)]
struct Question {
    cluster: String,
    proxy: String,
    runs: Option<AssignmentVersion>,
    error: Option<String>,
}

async fn discover(State(service): State<EdsService>, body: Bytes) -> Response {
    let question = match question(&body) {
        Ok(question) => question,
        Err(reason) => return (StatusCode::BAD_REQUEST, format!("{reason}\n")).into_response(),
    };
    match service.ask(&question.cluster, &question.proxy, question.runs.as_ref(), question.error) {
        Ok(Some(answer)) => ([(header::CONTENT_TYPE, "application/json")], answer).into_response(),
        Ok(None) => StatusCode::NOT_MODIFIED.into_response(),
        // Envoy keeps what it has and asks again, as after any other answer than 200.
        Err(error @ EdsError::UnknownCluster { .. }) => (StatusCode::NOT_FOUND, format!("{error}\n")).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

/// Reads a request, or says what is wrong with it.
fn question(body: &[u8]) -> Result<Question, String> {
    let request: DiscoveryRequest = serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_slice(body))
        .map_err(|error| format!("the body is no DiscoveryRequest in JSON: {error}"))?;
    if !request.type_url.is_empty() && request.type_url != TYPE_URL {
        return Err(format!("type_url is `{}`: only `{TYPE_URL}` is served here", request.type_url));
    }
    let proxy = request.node.map(|node| node.id).unwrap_or_default();
    if proxy.is_empty() {
        return Err(
            "node.id is missing: give the proxy one, different from all others, by `node.id` in its bootstrap \
                    configuration or by --service-node"
                .to_owned(),
        );
    }
    let [cluster] = request.resource_names.as_slice() else {
        return Err(format!(
            "resource_names has {} names: exactly one cluster can be asked for, and by REST Envoy asks so",
            request.resource_names.len()
        ));
    };
    Ok(Question {
        cluster: cluster.clone(),
        proxy,
        runs: Some(request.version_info)
            .filter(|version| !version.is_empty())
            .as_deref()
            .map(AssignmentVersion::of_request),
        error: request.error_detail.map(|detail| detail.message),
    })
}

#[cfg(test)]
#[path = "router_tests.rs"]
mod tests;
