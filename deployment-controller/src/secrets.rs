//! The values of environment variables that come from Secrets.

use std::{collections::BTreeMap, time::Duration};

use berth_core::api::{App, SecretKeyRef};
use berth_machine::app::SecretEnv;
use berth_runtime::{ApiError, WAIT_SECONDS};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};

/// How often a missing Secret is looked for: nothing watches Secrets, because that needs the right to list them.
pub(crate) const WAIT: Duration = Duration::from_secs(WAIT_SECONDS.unsigned_abs() as u64);

/// What reading a Secret led to.
#[derive(Clone, Debug)]
enum FoundSecret {
    Data(BTreeMap<String, Vec<u8>>),
    Missing,
    Forbidden,
}

/// Reads the Secrets in this namespace that the application names, each by its name. The inner error says what is missing, and what to do:
/// then nothing may be deployed.
///
/// Nothing is kept in memory: each deployment gets what the Secret holds then.
pub(crate) async fn resolve(
    client: &Client,
    namespace: &str,
    app: &App,
) -> Result<Result<SecretEnv, String>, ApiError> {
    let mut found: BTreeMap<&str, FoundSecret> = BTreeMap::new();
    for (_, reference) in app.secret_variables() {
        if !found.contains_key(reference.name.as_str()) {
            found.insert(&reference.name, read(client, namespace, &reference.name).await?);
        }
    }
    Ok(values(namespace, app, &found))
}

async fn read(client: &Client, namespace: &str, name: &str) -> Result<FoundSecret, ApiError> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    match api.get(name).await {
        Ok(secret) => {
            Ok(FoundSecret::Data(secret.data.into_iter().flatten().map(|(key, value)| (key, value.0)).collect()))
        }
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(FoundSecret::Missing),
        Err(kube::Error::Api(status)) if status.code == 403 => Ok(FoundSecret::Forbidden),
        Err(error) => Err(ApiError::doing(format!("read Secret {namespace}/{name}"))(error)),
    }
}

fn values(namespace: &str, app: &App, found: &BTreeMap<&str, FoundSecret>) -> Result<SecretEnv, String> {
    let mut values = BTreeMap::new();
    for (variable, reference) in app.secret_variables() {
        let of = found.get(reference.name.as_str()).unwrap_or(&FoundSecret::Missing);
        let value = value(reference, of).map_err(|problem| {
            let SecretKeyRef { name, key, .. } = reference;
            format!("variable {variable} (spec.app.env) needs key {key} of Secret {namespace}/{name}: {problem}")
        })?;
        values.extend(value.map(|value| (variable.to_owned(), value)));
    }
    Ok(SecretEnv(values))
}

/// The value; none if it may be left out. The error never contains anything of the Secret's content.
fn value(reference: &SecretKeyRef, found: &FoundSecret) -> Result<Option<String>, &'static str> {
    let value = match found {
        FoundSecret::Forbidden => {
            return Err(
                "deployment-controller may not read it. Bind a Role with the verb `get` on it, in this namespace, to the \
                        ServiceAccount berth-system/deployment-controller (docs/deployments.md)",
            );
        }
        FoundSecret::Missing if reference.optional => return Ok(None),
        FoundSecret::Missing => return Err("there is no such Secret. Create it, and the deployment goes on"),
        FoundSecret::Data(data) => match data.get(&reference.key) {
            Some(value) => value,
            None if reference.optional => return Ok(None),
            None => return Err("the Secret has no such key. Add it, and the deployment goes on"),
        },
    };
    match std::str::from_utf8(value) {
        Ok(text) if !text.contains('\0') => Ok(Some(text.to_owned())),
        _ => Err("its value is not text, and so cannot be in an environment. Use another encoding, such as base64"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::deployment;

    fn app(optional: bool) -> App {
        let reference = json!({"name": "db", "key": "password", "optional": optional});
        let env = json!([{"name": "DB", "valueFrom": {"secretKeyRef": reference}}, {"name": "PLAIN", "value": "1"}]);
        deployment("v1", |spec| spec["app"]["env"] = env).spec.app
    }

    fn outcome(optional: bool, found: FoundSecret) -> Result<BTreeMap<String, String>, String> {
        values("shop", &app(optional), &BTreeMap::from([("db", found)])).map(|values| values.0)
    }

    #[test]
    fn what_is_missing_is_named_and_what_is_optional_is_left_out() {
        let data = |key: &str, value: &[u8]| FoundSecret::Data(BTreeMap::from([(key.to_owned(), value.to_vec())]));
        let expected = BTreeMap::from([("DB".to_owned(), "pa'ss\n".to_owned())]);
        assert_eq!(outcome(false, data("password", b"pa'ss\n")), Ok(expected), "and nothing that is not secret");
        for (found, optional, problem) in [
            (FoundSecret::Missing, false, Some("there is no such Secret")),
            (FoundSecret::Missing, true, None),
            (data("other", b"x"), false, Some("the Secret has no such key")),
            (data("other", b"x"), true, None),
            (FoundSecret::Forbidden, true, Some("deployment-controller may not read it")),
            (data("password", b"s3cr\xff"), true, Some("its value is not text")),
            (data("password", b"s3cr\0t"), false, Some("its value is not text")),
        ] {
            let outcome = outcome(optional, found.clone());
            match problem {
                None => assert_eq!(outcome, Ok(BTreeMap::new())),
                Some(problem) => {
                    let message = outcome.unwrap_err();
                    let start = format!("variable DB (spec.app.env) needs key password of Secret shop/db: {problem}");
                    assert!(message.starts_with(&start) && !message.contains("s3cr"), "{message}");
                }
            }
        }
    }
}
