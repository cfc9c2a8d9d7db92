//! What an application needs from ConfigMaps and Secrets: variables, files, and credentials for its artifact.

use std::collections::{BTreeMap, BTreeSet};

use berth_core::api::{App, ArtifactSecret, ConfigMapKeyRef, SecretKeyRef};
use berth_machine::app::{AppFile, Authorization, SecretEnv};
use berth_runtime::ApiError;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, Client};

/// What an application gets from ConfigMaps and Secrets. Kept in memory for one attempt only, and never printed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AppValues {
    /// Variables from ConfigMaps.
    pub(crate) env: BTreeMap<String, String>,
    /// Variables from Secrets.
    pub(crate) secrets: SecretEnv,
    /// Files.
    pub(crate) files: Vec<AppFile>,
    /// Credentials for the artifact.
    pub(crate) authorization: Option<Authorization>,
}

/// What kind of object something is read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum SourceKind {
    ConfigMap,
    Secret,
}

impl SourceKind {
    fn name(self) -> &'static str {
        match self {
            Self::ConfigMap => "ConfigMap",
            Self::Secret => "Secret",
        }
    }
}

/// A key of an object, as the application refers to it.
#[derive(Clone, Copy, Debug)]
struct SourceKey<'a> {
    kind: SourceKind,
    name: &'a str,
    key: &'a str,
    optional: bool,
}

impl<'a> SourceKey<'a> {
    fn of_config_map(of: &'a ConfigMapKeyRef) -> Self {
        Self { kind: SourceKind::ConfigMap, name: &of.name, key: &of.key, optional: of.optional }
    }

    fn of_secret(of: &'a SecretKeyRef) -> Self {
        Self { kind: SourceKind::Secret, name: &of.name, key: &of.key, optional: of.optional }
    }
}

/// What reading an object led to.
#[derive(Clone, Debug)]
enum FoundSource {
    Data(BTreeMap<String, Vec<u8>>),
    Missing,
    Forbidden,
}

type FoundSources<'a> = BTreeMap<(SourceKind, &'a str), FoundSource>;

/// Reads the ConfigMaps and Secrets in this namespace that the application names, each by its name. The inner error says what is
/// missing, and what to do: then nothing may be deployed.
pub(crate) async fn resolve(
    client: &Client,
    namespace: &str,
    app: &App,
) -> Result<Result<AppValues, String>, ApiError> {
    let keys = variables(app).chain(files(app)).map(|(_, key)| (key.kind, key.name));
    let credentials = app.artifact.secret_ref.iter().map(|secret| (SourceKind::Secret, secret.name.as_str()));
    let objects: BTreeSet<(SourceKind, &str)> = keys.chain(credentials).collect();
    let mut found = FoundSources::new();
    for (kind, name) in objects {
        found.insert((kind, name), read(client, namespace, kind, name).await?);
    }
    Ok(values(namespace, app, &found))
}

async fn read(client: &Client, namespace: &str, kind: SourceKind, name: &str) -> Result<FoundSource, ApiError> {
    let data = match kind {
        SourceKind::Secret => Api::<Secret>::namespaced(client.clone(), namespace)
            .get(name)
            .await
            .map(|secret| secret.data.into_iter().flatten().map(|(key, value)| (key, value.0)).collect()),
        SourceKind::ConfigMap => Api::<ConfigMap>::namespaced(client.clone(), namespace).get(name).await.map(|map| {
            let texts = map.data.into_iter().flatten().map(|(key, text)| (key, text.into_bytes()));
            texts.chain(map.binary_data.into_iter().flatten().map(|(key, bytes)| (key, bytes.0))).collect()
        }),
    };
    match data {
        Ok(data) => Ok(FoundSource::Data(data)),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(FoundSource::Missing),
        Err(kube::Error::Api(status)) if status.code == 403 => Ok(FoundSource::Forbidden),
        Err(error) => Err(ApiError::doing(format!("read {} {namespace}/{name}", kind.name()))(error)),
    }
}

fn variables(app: &App) -> impl Iterator<Item = (&str, SourceKey<'_>)> {
    let secrets = app.secret_variables().map(|(variable, of)| (variable, SourceKey::of_secret(of)));
    secrets.chain(app.config_map_variables().map(|(variable, of)| (variable, SourceKey::of_config_map(of))))
}

fn files(app: &App) -> impl Iterator<Item = (&str, SourceKey<'_>)> {
    app.files.iter().filter_map(|file| {
        let map = file.config_map_key_ref.as_ref().map(SourceKey::of_config_map);
        let secret = file.secret_key_ref.as_ref().map(SourceKey::of_secret);
        Some((file.path.as_str(), map.or(secret)?))
    })
}

fn values<'a>(namespace: &str, app: &'a App, found: &'a FoundSources<'a>) -> Result<AppValues, String> {
    let needs = |what: String, key: SourceKey<'_>| {
        let SourceKey { kind, name, key, .. } = key;
        let place = format!("{what} needs key {key} of {} {namespace}/{name}", kind.name());
        move |problem: String| format!("{place}: {problem}")
    };
    let mut values = AppValues::default();
    for (variable, key) in variables(app) {
        let text = value(key, found).and_then(|value| value.map(text).transpose());
        let text = text.map_err(needs(format!("variable {variable} (spec.app.env)"), key))?;
        let variables = match key.kind {
            SourceKind::ConfigMap => &mut values.env,
            SourceKind::Secret => &mut values.secrets.0,
        };
        variables.extend(text.map(|text| (variable.to_owned(), text.to_owned())));
    }
    for (path, key) in files(app) {
        let content = value(key, found).map_err(needs(format!("file {path} (spec.app.files)"), key))?;
        let secret = key.kind == SourceKind::Secret;
        values.files.extend(content.map(|content| AppFile {
            path: path.to_owned(),
            content: content.to_vec(),
            secret,
        }));
    }
    if let Some(secret) = &app.artifact.secret_ref {
        let needs = |problem| {
            format!("the artifact needs Secret {namespace}/{} (spec.app.artifact.secretRef): {problem}", secret.name)
        };
        values.authorization = Some(authorization(secret, found).map_err(needs)?);
    }
    Ok(values)
}

/// The value; none if it may be left out. No error contains anything of the content.
fn value<'a>(key: SourceKey<'a>, found: &'a FoundSources<'a>) -> Result<Option<&'a [u8]>, String> {
    match data(key.kind, key.name, found) {
        Ok(Some(data)) => match data.get(key.key) {
            Some(value) => Ok(Some(value)),
            None if key.optional => Ok(None),
            None => Err(format!("the {} has no such key. Add it, and the deployment goes on", key.kind.name())),
        },
        Ok(None) if key.optional => Ok(None),
        Ok(None) => Err(missing(key.kind)),
        Err(problem) => Err(problem),
    }
}

/// The content of an object; none if there is no such object.
fn data<'a>(
    kind: SourceKind,
    name: &'a str,
    found: &'a FoundSources<'a>,
) -> Result<Option<&'a BTreeMap<String, Vec<u8>>>, String> {
    match found.get(&(kind, name)) {
        Some(FoundSource::Data(data)) => Ok(Some(data)),
        Some(FoundSource::Missing) | None => Ok(None),
        Some(FoundSource::Forbidden) => {
            Err("deployment-controller may not read it. Bind a Role with the verb `get` on it, in \
                                             this namespace, to the ServiceAccount berth-system/deployment-controller \
                                             (docs/deployments.md)"
                .to_owned())
        }
    }
}

fn missing(kind: SourceKind) -> String {
    format!("there is no such {}. Create it, and the deployment goes on", kind.name())
}

fn text(value: &[u8]) -> Result<&str, String> {
    match std::str::from_utf8(value) {
        Ok(text) if !text.contains('\0') => Ok(text),
        _ => Err("its value is not text, and so cannot be in an environment. Use another encoding, such as base64, or a file \
                  (spec.app.files)"
            .to_owned()),
    }
}

fn authorization<'a>(secret: &'a ArtifactSecret, found: &'a FoundSources<'a>) -> Result<Authorization, String> {
    let data = data(SourceKind::Secret, &secret.name, found)?.ok_or_else(|| missing(SourceKind::Secret))?;
    let get = |key: &str| match data.get(key).map(|value| std::str::from_utf8(value)) {
        // Files that a Secret is made of often end with a newline.
        Some(Ok(text)) => Ok(Some(text.trim_end())),
        Some(Err(_)) => Err(format!("its {key} is not text")),
        None => Ok(None),
    };
    match (get("token")?, get("username")?, get("password")?) {
        (Some(token), ..) => Authorization::bearer(token).map_err(|error| error.to_string()),
        (None, Some(user), Some(password)) => Ok(Authorization::basic(user, password)),
        _ => {
            Err("it has neither a key token, nor the keys username and password. Add them, and the deployment goes on"
                .to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::deployment;

    fn app(optional: bool) -> App {
        let key = |key: &str| json!({"name": "db", "key": key, "optional": optional});
        let app = json!({
            "env": [
                {"name": "DB", "valueFrom": {"secretKeyRef": key("password")}},
                {"name": "LEVEL", "valueFrom": {"configMapKeyRef": {"name": "db", "key": "level", "optional": true}}},
                {"name": "PLAIN", "value": "1"},
            ],
            "files": [{"path": "conf/a", "configMapKeyRef": key("a")}, {"path": "key", "secretKeyRef": key("password")}],
        });
        deployment("v1", |spec| json_patch::merge(&mut spec["app"], &app)).spec.app
    }

    fn data(key: &str, value: &[u8]) -> FoundSource {
        FoundSource::Data(BTreeMap::from([(key.to_owned(), value.to_vec())]))
    }

    fn outcome(app: &App, secret: &FoundSource, map: &FoundSource) -> Result<AppValues, String> {
        let found = [((SourceKind::Secret, "db"), secret.clone()), ((SourceKind::ConfigMap, "db"), map.clone())];
        values("shop", app, &found.into())
    }

    #[test]
    fn what_is_missing_is_named_and_what_is_optional_is_left_out() {
        let (secret, map) = (data("password", b"pa'ss\n"), data("a", b"\xff\0"));
        let all = outcome(&app(false), &secret, &map).unwrap();
        let env = SecretEnv(BTreeMap::from([("DB".to_owned(), "pa'ss\n".to_owned())]));
        assert_eq!((&all.secrets, all.env.len()), (&env, 0), "and nothing that is not secret");
        let level = outcome(&app(true), &secret, &data("level", b"debug")).unwrap();
        assert_eq!((&level.secrets, level.env), (&env, [("LEVEL".to_owned(), "debug".to_owned())].into()));
        let file =
            |path: &str, content: &[u8], secret| AppFile { path: path.into(), content: content.to_vec(), secret };
        assert_eq!(all.files, [file("conf/a", b"\xff\0", false), file("key", b"pa'ss\n", true)]);
        let variable = "variable DB (spec.app.env) needs key password of Secret shop/db: ";
        let at = "file conf/a (spec.app.files) needs key a of ConfigMap shop/db: ";
        for (secret, map, optional, problem) in [
            (FoundSource::Missing, &map, false, Some((variable, "there is no such Secret"))),
            (FoundSource::Missing, &map, true, None),
            (data("other", b"x"), &map, false, Some((variable, "the Secret has no such key"))),
            (data("other", b"x"), &map, true, None),
            (FoundSource::Forbidden, &map, true, Some((variable, "deployment-controller may not read it"))),
            (data("password", b"s3cr\xff"), &map, true, Some((variable, "its value is not text"))),
            (data("password", b"s3cr\0t"), &map, false, Some((variable, "its value is not text"))),
            (secret.clone(), &FoundSource::Missing, false, Some((at, "there is no such ConfigMap. Create it"))),
            (secret.clone(), &data("b", b""), false, Some((at, "the ConfigMap has no such key. Add it"))),
            (secret.clone(), &FoundSource::Missing, true, None),
        ] {
            match (outcome(&app(optional), &secret, map), problem) {
                (Ok(values), None) => assert!(values.files.len() < 2),
                (Err(message), Some((start, problem))) => {
                    assert!(
                        message.starts_with(&format!("{start}{problem}")) && !message.contains("s3cr"),
                        "{message}"
                    );
                }
                (outcome, problem) => panic!("{outcome:?} instead of {problem:?}"),
            }
        }
    }

    #[test]
    fn credentials_of_the_artifact_are_a_token_or_a_user_with_a_password() {
        let app = deployment("v1", |spec| spec["app"]["artifact"]["secretRef"] = json!({"name": "art"})).spec.app;
        let outcome = |data: &[(&str, &[u8])]| {
            let data = data.iter().map(|(key, value)| ((*key).to_owned(), value.to_vec())).collect();
            let found = [((SourceKind::Secret, "art"), FoundSource::Data(data))];
            values("shop", &app, &found.into()).map(|values| values.authorization.unwrap())
        };
        assert_eq!(outcome(&[("token", b"abc\n")]), Ok(Authorization::bearer("abc").unwrap()));
        let basic = [("username", &b"ann"[..]), ("password", b"pw\n")];
        assert_eq!(outcome(&basic), Ok(Authorization::basic("ann", "pw")));
        let at = "the artifact needs Secret shop/art (spec.app.artifact.secretRef): ";
        for (data, problem) in [
            (&[("username", &b"ann"[..])][..], "it has neither a key token, nor the keys username and password"),
            (&[("token", b"se cret")], "token: it must be visible ASCII"),
            (&[("token", b"secret\xff")], "its token is not text"),
        ] {
            let message = outcome(data).unwrap_err();
            assert!(message.starts_with(&format!("{at}{problem}")) && !message.contains("cret\u{fffd}"), "{message}");
        }
        let message = values("shop", &app, &FoundSources::new()).unwrap_err();
        assert_eq!(message, format!("{at}there is no such Secret. Create it, and the deployment goes on"));
    }
}
