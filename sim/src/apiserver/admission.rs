//! Mutating admission: calls the webhook's router, in this process, as its MutatingWebhookConfiguration says.

use axum::{Router, body::Body};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use cel::{Context, Program, objects::Value as CelValue};
use http::{Method, Request, header::CONTENT_TYPE};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::{failure::Failure, request::Subresource, resources::Resource, store::Stored};

/// Longest response that is read: many times the largest object.
const MAX_RESPONSE: usize = 16 << 20;

/// The webhooks of a MutatingWebhookConfiguration, all behind one router.
pub(crate) struct Webhooks {
    pub(crate) router: Router,
    pub(crate) registered: &'static [Webhook],
}

/// One webhook of the configuration.
pub(crate) struct Webhook {
    name: String,
    /// Path of the router that is called.
    path: String,
    rules: Vec<Rule>,
    conditions: Vec<Program>,
}

/// Which writes a webhook or a policy is for.
pub(crate) struct Rule(pub(crate) Value);

/// A write that admission has to decide on.
pub(crate) struct Write<'a> {
    pub(crate) resource: &'a Resource,
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    pub(crate) subresource: Option<Subresource>,
    /// CREATE, UPDATE or DELETE.
    pub(crate) operation: &'static str,
    pub(crate) user: &'a str,
    pub(crate) old: Option<&'a Stored>,
    pub(crate) uid: String,
}

/// Why a configuration of webhooks cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadWebhooks {
    /// It is not YAML.
    #[error("the MutatingWebhookConfiguration is not YAML: {0}")]
    Yaml(String),
    /// A match condition is not CEL.
    #[error("a match condition of {webhook} is not CEL: {message}")]
    Condition {
        /// The webhook that has the condition.
        webhook: String,
        /// What is wrong.
        message: String,
    },
}

/// The webhooks of a configuration, in YAML.
pub(crate) fn registered(configuration: &str) -> Result<Vec<Webhook>, BadWebhooks> {
    let configuration: Value =
        serde_saphyr::from_str(configuration).map_err(|error| BadWebhooks::Yaml(error.to_string()))?;
    configuration["webhooks"].as_array().into_iter().flatten().map(webhook).collect()
}

impl Webhooks {
    /// The object as the webhooks want it.
    pub(crate) async fn mutate(&self, write: &Write<'_>, mut object: Value) -> Result<Value, Failure> {
        for webhook in self.registered {
            if webhook.is_for(write) && webhook.conditions_hold(write, &object)? {
                object = self.call(webhook, write, object).await?;
            }
        }
        Ok(object)
    }

    async fn call(&self, webhook: &Webhook, write: &Write<'_>, object: Value) -> Result<Value, Failure> {
        let failed = |message: &dyn std::fmt::Display| Failure {
            code: 500,
            reason: "InternalError",
            message: format!("Internal error occurred: failed calling webhook {:?}: {message}", webhook.name),
        };
        let request =
            Request::builder().method(Method::POST).uri(&webhook.path).header(CONTENT_TYPE, "application/json");
        let request = request.body(Body::from(write.review(&object))).map_err(|error| failed(&error))?;
        let response = self.router.clone().oneshot(request).await.map_err(|never| failed(&never))?;
        let code = response.status();
        let body = axum::body::to_bytes(response.into_body(), MAX_RESPONSE).await.map_err(|error| failed(&error))?;
        if !code.is_success() {
            return Err(failed(&String::from_utf8_lossy(&body)));
        }
        let review: Value = serde_json::from_slice(&body).map_err(|error| failed(&error))?;
        let response = &review["response"];
        if response["allowed"] != true {
            return Err(denial(&webhook.name, &response["status"]));
        }
        let Some(patch) = response["patch"].as_str() else { return Ok(object) };
        let patch = STANDARD.decode(patch).map_err(|error| failed(&error))?;
        let patch: json_patch::Patch = serde_json::from_slice(&patch).map_err(|error| failed(&error))?;
        let mut patched = object;
        json_patch::patch(&mut patched, &patch).map_err(|error| failed(&error))?;
        Ok(patched)
    }
}

fn denial(webhook: &str, status: &Value) -> Failure {
    let message = status["message"].as_str().unwrap_or_default();
    let reason = match status["reason"].as_str() {
        Some("Invalid") => "Invalid",
        Some("Conflict") => "Conflict",
        _ => "Forbidden",
    };
    Failure {
        code: status["code"]
            .as_u64()
            .and_then(|code| u16::try_from(code).ok())
            .filter(|code| *code >= 400)
            .unwrap_or(403),
        reason,
        message: format!("admission webhook {webhook:?} denied the request: {message}"),
    }
}

fn webhook(configuration: &Value) -> Result<Webhook, BadWebhooks> {
    let name = configuration["name"].as_str().unwrap_or_default().to_owned();
    let compile = |condition: &Value| {
        Program::compile(condition["expression"].as_str().unwrap_or_default())
            .map_err(|error| BadWebhooks::Condition { webhook: name.clone(), message: error.to_string() })
    };
    let conditions = configuration["matchConditions"].as_array().into_iter().flatten();
    let conditions = conditions.map(compile).collect::<Result<_, _>>()?;
    let path = configuration.pointer("/clientConfig/service/path").and_then(Value::as_str);
    Ok(Webhook {
        path: path.unwrap_or("/").to_owned(),
        rules: configuration["rules"].as_array().into_iter().flatten().cloned().map(Rule).collect(),
        conditions,
        name,
    })
}

impl Webhook {
    fn is_for(&self, write: &Write<'_>) -> bool {
        self.rules.iter().any(|rule| rule.is_for(write))
    }

    /// A condition that cannot be evaluated refuses the write, because `failurePolicy` is Fail.
    fn conditions_hold(&self, write: &Write<'_>, object: &Value) -> Result<bool, Failure> {
        for condition in &self.conditions {
            let mut context = Context::default();
            let added = context
                .add_variable("object", object)
                .and_then(|()| context.add_variable("oldObject", write.old.map_or(&Value::Null, |old| &**old)))
                .map_err(|error| error.to_string());
            let result = added.and_then(|()| condition.execute(&context).map_err(|error| error.to_string()));
            match result {
                Ok(CelValue::Bool(true)) => {}
                Ok(CelValue::Bool(false)) => return Ok(false),
                Ok(_) => {
                    return Err(Failure::forbidden(format!(
                        "{}: a match condition is neither true nor false",
                        self.name
                    )));
                }
                Err(error) => return Err(Failure::forbidden(format!("{}: match condition: {error}", self.name))),
            }
        }
        Ok(true)
    }
}

impl Rule {
    pub(crate) fn is_for(&self, write: &Write<'_>) -> bool {
        let resource = match write.subresource {
            None => write.resource.plural.clone(),
            Some(Subresource::Status) => format!("{}/status", write.resource.plural),
            Some(Subresource::Scale) => format!("{}/scale", write.resource.plural),
        };
        names(&self.0["apiGroups"], &write.resource.group)
            && names(&self.0["apiVersions"], &write.resource.version)
            && names(&self.0["operations"], write.operation)
            && names(&self.0["resources"], &resource)
    }
}

/// Whether the list names this value or all.
fn names(list: &Value, value: &str) -> bool {
    list.as_array().is_some_and(|list| list.iter().any(|entry| entry == "*" || entry == value))
}

impl Write<'_> {
    /// The AdmissionReview that the API server sends. The old object has its text already.
    fn review(&self, object: &Value) -> String {
        let Resource { group, version, kind, plural, .. } = self.resource;
        let kind = json!({"group": group, "version": version, "kind": kind});
        let resource = json!({"group": group, "version": version, "resource": plural});
        let mut request = json!({
            "uid": self.uid, "kind": kind, "resource": resource, "requestKind": kind, "requestResource": resource,
            "name": self.name, "namespace": self.namespace, "operation": self.operation,
            "userInfo": {"username": self.user, "groups": groups(self.user)}, "dryRun": false,
        });
        if self.subresource == Some(Subresource::Status) {
            request["subResource"] = "status".into();
            request["requestSubResource"] = "status".into();
        }
        let head = request.to_string();
        let old = self.old.map_or("null", |old| std::str::from_utf8(old.text()).unwrap_or("null"));
        let request = format!("{},\"object\":{object},\"oldObject\":{old}}}", head.strip_suffix('}').unwrap_or(&head));
        format!("{{\"kind\":\"AdmissionReview\",\"apiVersion\":\"admission.k8s.io/v1\",\"request\":{request}}}")
    }
}

/// The groups that the API server adds to a user.
fn groups(user: &str) -> Vec<String> {
    let mut groups = vec!["system:authenticated".to_owned()];
    if let Some((namespace, _)) = user.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':')) {
        groups.push("system:serviceaccounts".to_owned());
        groups.push(format!("system:serviceaccounts:{namespace}"));
    }
    groups
}
