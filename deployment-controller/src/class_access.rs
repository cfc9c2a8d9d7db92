//! How a neighbour that a class names is spoken to by HTTP: with the Secret of the class, and within limits.

use std::{collections::BTreeMap, error::Error as _, time::Duration};

use berth_core::api::Credentials;
use berth_runtime::ApiError;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use reqwest::header::HeaderMap;

/// The data of a Secret.
pub(crate) type SecretData = BTreeMap<String, Vec<u8>>;

/// What a log-in is replaced by in texts of the neighbour.
const HIDDEN: &str = "***";

enum LogIn {
    Token(String),
    Basic(String, String),
}

/// The Secret that a class names; empty if it names none. The inner error says what is wrong with it.
pub(crate) async fn read_secret(
    client: &Client,
    credentials: Option<&Credentials>,
) -> Result<Result<SecretData, String>, ApiError> {
    let Some(of) = credentials else { return Ok(Ok(SecretData::new())) };
    let secret = format!("Secret {}/{}", of.namespace, of.name);
    match Api::<Secret>::namespaced(client.clone(), &of.namespace).get(&of.name).await {
        Ok(found) => Ok(Ok(found.data.into_iter().flatten().map(|(key, value)| (key, value.0)).collect())),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Err(format!("there is no {secret}"))),
        Err(kube::Error::Api(status)) if status.code == 403 => Ok(Err(format!(
            "deployment-controller may not read {secret}: bind a Role with `get` on it to the ServiceAccount \
             berth-system/deployment-controller"
        ))),
        Err(error) => Err(ApiError::doing(format!("read {secret}"))(error)),
    }
}

/// A way to speak HTTP with one neighbour.
pub(crate) struct Http {
    client: reqwest::Client,
    log_in: Option<LogIn>,
    limit: Duration,
}

impl Http {
    /// With the log-in and the authority (`ca.crt`) of this Secret and these headers. A request may take `limit`. The error never
    /// contains anything of the Secret's content.
    pub(crate) fn new(secret: &SecretData, limit: Duration, headers: HeaderMap) -> Result<Self, String> {
        let mut builder = reqwest::Client::builder()
            .no_proxy()
            // The address of the class is the only one that is asked.
            .redirect(reqwest::redirect::Policy::none())
            .timeout(limit)
            .default_headers(headers);
        if let Some(ca) = secret.get("ca.crt") {
            let ca = reqwest::Certificate::from_pem(ca);
            builder = builder.tls_certs_only([ca.map_err(|error| format!("ca.crt in the Secret: {error}"))?]);
        }
        let client = builder.build().map_err(|error| format!("its address cannot be asked: {error}"))?;
        Ok(Self { client, log_in: log_in(secret)?, limit })
    }

    /// A request to this address.
    pub(crate) fn request(&self, method: reqwest::Method, url: String) -> reqwest::RequestBuilder {
        self.client.request(method, url)
    }

    /// Status and body of the answer to this request; none if the body has more bytes than this. The error says what keeps the
    /// neighbour from answering.
    pub(crate) async fn answer(
        &self,
        request: reqwest::RequestBuilder,
        most_bytes: usize,
    ) -> Result<Option<(u16, Vec<u8>)>, String> {
        let request = match &self.log_in {
            Some(LogIn::Token(token)) => request.bearer_auth(token),
            Some(LogIn::Basic(user, password)) => request.basic_auth(user, Some(password)),
            None => request,
        };
        let mut response = request.send().await.map_err(|error| self.no_answer(&error))?;
        let (code, mut body) = (response.status().as_u16(), Vec::new());
        while let Some(part) = response.chunk().await.map_err(|error| self.no_answer(&error))? {
            if body.len() + part.len() > most_bytes {
                return Ok(None);
            }
            body.extend_from_slice(&part);
        }
        Ok(Some((code, body)))
    }

    /// The text without the log-in, which a neighbour may repeat in its words.
    pub(crate) fn hide_log_in(&self, text: &str) -> String {
        match &self.log_in {
            Some(LogIn::Token(secret) | LogIn::Basic(_, secret)) if !secret.is_empty() => text.replace(secret, HIDDEN),
            _ => text.to_owned(),
        }
    }

    /// What keeps it from answering. The address is left out: it is the class's, and not everybody's who reads the status.
    fn no_answer(&self, error: &reqwest::Error) -> String {
        if error.is_timeout() {
            return format!("it does not answer within {} s", self.limit.as_secs());
        }
        let mut cause = error.source();
        while let Some(deeper) = cause.and_then(std::error::Error::source) {
            cause = Some(deeper);
        }
        format!("it does not answer: {}", cause.map_or_else(|| "the connection broke".to_owned(), ToString::to_string))
    }
}

/// How to log in. The error never contains anything of the Secret's content.
fn log_in(secret: &SecretData) -> Result<Option<LogIn>, String> {
    let text = |key: &str| {
        let value = secret.get(key).map(|value| std::str::from_utf8(value).map(|text| text.trim().to_owned()));
        value.transpose().map_err(|_| format!("spec.credentials: {key} in the Secret is no text"))
    };
    match (text("token")?, text("username")?, text("password")?) {
        (Some(token), None, None) => Ok(Some(LogIn::Token(token))),
        (None, Some(user), Some(password)) => Ok(Some(LogIn::Basic(user, password))),
        (None, None, None) => Ok(None),
        _ => Err("spec.credentials: the Secret needs either token, or username and password".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_logs_in_by_token_or_by_user_and_password() {
        let of = |keys: &[&str]| {
            let secret = keys.iter().map(|key| ((*key).to_owned(), format!("{key}-s3cr\n").into_bytes())).collect();
            log_in(&secret)
        };
        assert!(matches!(of(&["token"]), Ok(Some(LogIn::Token(token))) if token == "token-s3cr"));
        assert!(matches!(of(&["username", "password"]), Ok(Some(LogIn::Basic(user, _))) if user == "username-s3cr"));
        assert!(matches!(of(&["ca.crt"]), Ok(None)));
        for keys in [&["token", "password"][..], &["username"], &["password"]] {
            let error = of(keys).err().unwrap();
            assert!(error.contains("either token, or username and password") && !error.contains("s3cr"), "{error}");
        }
    }
}
