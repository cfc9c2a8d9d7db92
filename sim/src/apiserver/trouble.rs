//! Answers of an API server that is in trouble, in its words. A client sees them whatever it asked for.

use axum::body::Body;
use http::{HeaderValue, Response, StatusCode, header};

use super::{ApiServer, failure::Failure};

/// What is wrong with the API server when it answers a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Its flow control lets no more requests in (429).
    IsBusy,
    /// Its etcd has no leader (500).
    HasNoLeader,
    /// It is not ready (503).
    IsNotReady,
    /// It did not end the request in time (504). The request may have had its effect.
    TimesOut,
    /// Somebody else wrote again and again (409).
    IsContended,
    /// What the request refers to was compacted (410).
    HasForgotten,
}

impl Trouble {
    /// Without any effect, on whatever request.
    pub(crate) const REFUSALS: [Self; 3] = [Self::IsBusy, Self::HasNoLeader, Self::IsNotReady];
}

impl ApiServer {
    /// An answer of an API server that is in trouble.
    pub(crate) fn troubled(trouble: Trouble) -> Response<Body> {
        let (code, reason, message) = match trouble {
            Trouble::IsBusy => return too_many_requests(),
            Trouble::HasNoLeader => (500, "InternalError", "Internal error occurred: etcdserver: no leader"),
            Trouble::IsNotReady => (503, "ServiceUnavailable", "apiserver not ready"),
            Trouble::TimesOut => (
                504,
                "Timeout",
                "Timeout: request did not complete within requested timeout - context deadline exceeded",
            ),
            Trouble::IsContended => (
                409,
                "Conflict",
                "Operation cannot be fulfilled on the object: the object has been modified; please apply your changes to \
                 the latest version and try again",
            ),
            Trouble::HasForgotten => (
                410,
                "Expired",
                "The provided continue parameter is too old to display a consistent list result. You must start a new \
                 list without the continue parameter.",
            ),
        };
        Failure { code, reason, message: message.to_owned() }.into_response()
    }

    /// A watch that is behind what was compacted: it begins, and ends with an error.
    pub(crate) fn expired_watch() -> Response<Body> {
        Response::new(Body::from(Self::expired_line()))
    }

    /// The last line of a watch that is behind what was compacted.
    pub(crate) fn expired_line() -> String {
        let status = Failure::expired("The resourceVersion for the provided watch is too old.").status();
        format!("{{\"type\":\"ERROR\",\"object\":{status}}}\n")
    }
}

/// The flow control answers in plain text, and says when to come back.
fn too_many_requests() -> Response<Body> {
    let mut response = Response::new(Body::from("Too many requests, please try again later.\n"));
    *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
    let headers = response.headers_mut();
    headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
