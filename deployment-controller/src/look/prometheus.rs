//! Asks Prometheus. Where it is, and with which credentials, only a MonitoringClass says.

use std::{collections::BTreeMap, time::Duration};

use berth_core::api::MonitoringClass;
use berth_runtime::ApiError;
use kube::{Api, Client};
use reqwest::{
    Method,
    header::{HeaderMap, HeaderName, HeaderValue},
};

use super::{
    answer::{self, Answer},
    rules,
};
use crate::{
    alarms::Seen,
    class_access::{Http, SecretData, read_secret},
};

/// How long a query may take. A VMDeployment waits for it, so it is short; what takes longer is no query to ask every minute.
const LIMIT: Duration = Duration::from_secs(5);

/// More bytes than this are not read of an answer: it is enough for two series of each of 10,000 Servers.
const MOST_BYTES: usize = 4 << 20;

/// A Prometheus that may be asked.
pub(super) struct Prometheus {
    class: String,
    http: Http,
    url: String,
}

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
        if !found.spec.allows(namespace) {
            return Ok(Err(format!(
                "MonitoringClass {class} does not allow namespace {namespace} (its spec.allowedNamespaces)"
            )));
        }
        let secret = match read_secret(client, found.spec.credentials.as_ref()).await? {
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
        Ok(Self {
            class: class.name().to_owned(),
            http: Http::new(secret, LIMIT, headers)?,
            url: format!("{}/api/v1", class.spec.address.trim_end_matches('/')),
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
        let request = self.http.request(Method::POST, format!("{}/query", self.url));
        let request = request.header(reqwest::header::CONTENT_TYPE, form).body(body);
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
        let answer = self.answer(self.http.request(Method::GET, format!("{}/rules?{query}", self.url))).await;
        let seen = answer.and_then(|(code, body)| rules::parse(code, &body, names, labels));
        seen.map_err(|problem| self.said(&problem))
    }

    fn said(&self, problem: &str) -> String {
        format!("Prometheus of MonitoringClass {}: {problem}", self.class)
    }

    /// Status and body of the answer to this request.
    async fn answer(&self, request: reqwest::RequestBuilder) -> Result<(u16, Vec<u8>), String> {
        let answer = self.http.answer(request, MOST_BYTES).await?;
        answer.ok_or_else(|| format!("its answer has more than {MOST_BYTES} bytes: let the query return fewer series"))
    }
}
