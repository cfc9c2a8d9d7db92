//! Asks Prometheus. Where it is, and with which credentials, only a MonitoringClass says.

use std::{collections::BTreeMap, error::Error as _, time::Duration};

use berth_core::api::MonitoringClass;
use berth_runtime::ApiError;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use super::{
    answer::{self, Answer},
    rules,
};
use crate::alarms::Seen;

/// How long a query may take. A VMDeployment waits for it, so it is short; what takes longer is no query to ask every minute.
const LIMIT: Duration = Duration::from_secs(5);

/// More bytes than this are not read of an answer: it is enough for two series of each of 10,000 Servers.
const MOST_BYTES: usize = 4 << 20;

/// A Prometheus that may be asked.
pub(super) struct Prometheus {
    class: String,
    http: reqwest::Client,
    url: String,
    credentials: Option<LogIn>,
}

enum LogIn {
    Token(String),
    Basic(String, String),
}

/// The data of a Secret.
type SecretData = BTreeMap<String, Vec<u8>>;

impl Prometheus {
    /// The Prometheus of this class. The inner error says why this namespace cannot ask it.
    pub(super) async fn of_class(
        client: &Client,
        class: &str,
        namespace: &str,
    ) -> Result<Result<Self, String>, ApiError> {
        let found = Api::<MonitoringClass>::all(client.clone()).get_opt(class).await;
        let Some(found) = found.map_err(ApiError::doing(format!("read MonitoringClass {class}")))? else {
            return Ok(Err(format!("there is no MonitoringClass {class}")));
        };
        if found.spec.allowed_namespaces.as_ref().is_some_and(|allowed| !allowed.iter().any(|name| name == namespace)) {
            return Ok(Err(format!(
                "MonitoringClass {class} does not allow namespace {namespace} (its spec.allowedNamespaces)"
            )));
        }
        let secret = match read_secret(client, &found).await? {
            Ok(secret) => secret,
            Err(problem) => return Ok(Err(format!("MonitoringClass {class}: spec.credentials: {problem}"))),
        };
        Ok(Self::new(&found, &secret).map_err(|problem| format!("MonitoringClass {class}: {problem}")))
    }

    fn new(class: &MonitoringClass, secret: &SecretData) -> Result<Self, String> {
        let mut headers = HeaderMap::new();
        if let Some(tenant) = &class.spec.tenant {
            let name = HeaderName::try_from(&tenant.header).map_err(|error| format!("spec.tenant.header: {error}"))?;
            let value = HeaderValue::try_from(&tenant.value).map_err(|error| format!("spec.tenant.value: {error}"))?;
            headers.insert(name, value);
        }
        let mut builder = reqwest::Client::builder()
            .no_proxy()
            // The address of the class is the only one that is asked.
            .redirect(reqwest::redirect::Policy::none())
            .timeout(LIMIT)
            .default_headers(headers);
        if let Some(ca) = secret.get("ca.crt") {
            let ca = reqwest::Certificate::from_pem(ca);
            builder = builder.tls_certs_only([ca.map_err(|error| format!("ca.crt in the Secret: {error}"))?]);
        }
        let http = builder.build().map_err(|error| format!("spec.address: {error}"))?;
        Ok(Self {
            class: class.name().to_owned(),
            http,
            url: format!("{}/api/v1", class.spec.address.trim_end_matches('/')),
            credentials: log_in(secret)?,
        })
    }

    /// The answer to the query, or what is wrong in words.
    pub(super) async fn ask(&self, query: &str) -> Result<Answer, String> {
        let limit = format!("{}s", LIMIT.as_secs());
        let body = form_urlencoded::Serializer::new(String::new())
            .append_pair("query", query)
            .append_pair("timeout", &limit)
            .finish();
        let form = "application/x-www-form-urlencoded";
        let request =
            self.http.post(format!("{}/query", self.url)).header(reqwest::header::CONTENT_TYPE, form).body(body);
        let answer = self.answer(request).await.and_then(|(code, body)| answer::parse(code, &body));
        answer.map_err(|problem| self.said(&problem))
    }

    /// Which of these alarms fire, with these labels, or what is wrong in words.
    pub(super) async fn alarms(&self, names: &[String], labels: &BTreeMap<String, String>) -> Result<Seen, String> {
        // What is not asked for by name is left out below: older versions name all rules.
        let query = names.iter().fold(form_urlencoded::Serializer::new(String::new()), |mut query, name| {
            query.append_pair("rule_name[]", name);
            query
        });
        let query = { query }.append_pair("type", "alert").finish();
        let answer = self.answer(self.http.get(format!("{}/rules?{query}", self.url))).await;
        let seen = answer.and_then(|(code, body)| rules::parse(code, &body, names, labels));
        seen.map_err(|problem| self.said(&problem))
    }

    fn said(&self, problem: &str) -> String {
        format!("Prometheus of MonitoringClass {}: {problem}", self.class)
    }

    /// Status and body of the answer to this request.
    async fn answer(&self, request: reqwest::RequestBuilder) -> Result<(u16, Vec<u8>), String> {
        let request = match &self.credentials {
            Some(LogIn::Token(token)) => request.bearer_auth(token),
            Some(LogIn::Basic(user, password)) => request.basic_auth(user, Some(password)),
            None => request,
        };
        let mut response = request.send().await.map_err(|error| no_answer(&error))?;
        let (code, mut body) = (response.status().as_u16(), Vec::new());
        while let Some(part) = response.chunk().await.map_err(|error| no_answer(&error))? {
            if body.len() + part.len() > MOST_BYTES {
                return Err(format!("its answer has more than {MOST_BYTES} bytes: let the query return fewer series"));
            }
            body.extend_from_slice(&part);
        }
        Ok((code, body))
    }
}

/// What keeps it from answering. The address is left out: it is the class's, and not everybody's who reads the status.
fn no_answer(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return format!("it does not answer within {} s", LIMIT.as_secs());
    }
    let mut cause = error.source();
    while let Some(deeper) = cause.and_then(std::error::Error::source) {
        cause = Some(deeper);
    }
    format!("it does not answer: {}", cause.map_or_else(|| "the connection broke".to_owned(), ToString::to_string))
}

/// The Secret that the class names; empty if it names none. The inner error says what is wrong with it.
async fn read_secret(client: &Client, class: &MonitoringClass) -> Result<Result<SecretData, String>, ApiError> {
    let Some(of) = &class.spec.credentials else { return Ok(Ok(SecretData::new())) };
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
