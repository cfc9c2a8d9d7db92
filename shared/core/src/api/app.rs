//! The application that is deployed on a Server.

use std::{borrow::Cow, collections::BTreeMap};

use kube::{
    KubeSchema,
    core::{Message, Rule},
};
use serde::{Deserialize, Serialize};

use super::{
    app_executor::AppExecutor,
    app_file::AppFile,
    artifact::{Artifact, ArtifactFormat},
    hooks::Hooks,
    key_ref::{ConfigMapKeyRef, SecretKeyRef},
};
use crate::digest;

/// An application: its code and how it runs.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = only_by_ssh("!has(self.hooks)", "app.hooks: Berth runs hooks by SSH. Let the deploy system run what belongs to a deployment"),
    validation = only_by_ssh("!has(self.env) || self.env.all(variable, !has(variable.valueFrom))",
        "valueFrom in app.env: a deploy system gets nothing of ConfigMaps and Secrets. Let it have its own, or declare the value"),
    validation = only_by_ssh("!has(self.files) || self.files.size() == 0",
        "app.files: a deploy system gets nothing of ConfigMaps and Secrets. Let it have its own"),
    validation = only_by_ssh("!has(self.artifact.secretRef)",
        "app.artifact.secretRef: a deploy system gets nothing of Secrets. Let it have its own credentials for the artifact"))]
pub struct App {
    /// Name of the application's service on the machine.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Name of this version of the application. Defaults to a digest of what is declared about how it runs, such as the artifact's
    /// digest, the command and the environment. A change of those, or of what its ConfigMaps and Secrets contain, is deployed even
    /// under the same revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-zA-Z0-9]([-a-zA-Z0-9_.]*[a-zA-Z0-9])?$"))]
    pub revision: Option<String>,
    /// The archive or program with the code.
    pub artifact: Artifact,
    /// Shell command that runs the application in the foreground, from the folder of the unpacked archive, or of the program.
    #[schemars(length(min = 1, max = 4096))]
    pub command: String,
    /// User on the machine who runs the application and its hooks; without it, the user that Berth logs in as. The user must exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32), regex(pattern = r"^[a-z_][a-z0-9_-]*$"))]
    pub user: Option<String>,
    /// Commands around the start and the end of the application.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hooks: Option<Hooks>,
    /// Seconds that the application has to end after a TERM signal. After that it is killed.
    #[serde(default = "stop_seconds")]
    #[schemars(range(min = 1, max = 300))]
    pub stop_seconds: i32,
    /// Environment variables of the command. Names that begin with `BERTH_` are reserved.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    #[x_kube(validation = Rule::new("self.all(variable, !variable.name.startsWith('BERTH_'))")
            .message("app.env: names that begin with BERTH_ are reserved: Berth sets such variables itself"),
        merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub env: Vec<EnvVar>,
    /// Files in the folder of the application whose content comes from ConfigMaps and Secrets, at most 1 MiB together.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["path".into()]))]
    pub files: Vec<AppFile>,
    /// Digest of what the application's ConfigMaps and Secrets contain. deployment-controller writes it into Servers, so that another
    /// content is deployed like another application; what a VMDeployment declares is ignored. Nobody without Berth's own key can
    /// find out a content by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), regex(pattern = r"^[a-z0-9]+$"))]
    pub content_digest: Option<String>,
    /// The restart that the application is started for, as `BERTH_RESTART` in its environment. deployment-controller writes the `id` of
    /// the last request `Restart` into Servers; what a VMDeployment declares is ignored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub restart: Option<String>,
    /// The roll-out that has started this version anew, to compare another one with it (`rollout.steps`, `baseline`): `BERTH_RESTART` in
    /// the environment, in place of `restart`. deployment-controller writes it into Servers; what a VMDeployment declares is ignored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub baseline: Option<String>,
    /// Who brings the application onto machines; without it Berth itself, by SSH. Another one deploys nothing by itself: it gets the
    /// next deployment.
    #[serde(default, skip_serializing_if = "AppExecutor::is_ssh")]
    pub executor: AppExecutor,
    /// How many releases are kept on the machine, including the current one: first the latest with which the Server was
    /// Ready. Others are deleted after a deployment, but never the last one with which it was Ready.
    #[serde(default = "keep_releases")]
    #[schemars(range(min = 1, max = 50))]
    pub keep_releases: i32,
}

impl App {
    /// The declared revision, or a digest of what is declared where no revision is: whatever the content is.
    #[must_use]
    pub fn effective_revision(&self) -> String {
        let declared =
            || digest::short(&AppEssence { content_digest: None, restart: None, baseline: None, ..self.essence() });
        self.revision.clone().unwrap_or_else(declared)
    }

    /// The application as people declare it, without what its ConfigMaps and Secrets contain and without a restart.
    #[must_use]
    pub fn as_declared(&self) -> Self {
        Self { content_digest: None, restart: None, baseline: None, ..self.clone() }
    }

    /// The application without the mark of a baseline.
    #[must_use]
    pub fn unmarked(&self) -> Cow<'_, Self> {
        match self.baseline {
            None => Cow::Borrowed(self),
            Some(_) => Cow::Owned(Self { baseline: None, ..self.clone() }),
        }
    }

    /// Whether a Server that has this application has the wanted one. That it was started anew as a baseline meanwhile is no difference:
    /// for that alone nothing is started again.
    #[must_use]
    pub fn is_as_wanted(&self, wanted: &Self) -> bool {
        self == wanted || self.baseline.is_some() && *self.unmarked() == *wanted
    }

    /// What the application was started for last, if it was started anew: `BERTH_RESTART` in its environment.
    #[must_use]
    pub fn started_for(&self) -> Option<&str> {
        self.baseline.as_deref().or(self.restart.as_deref())
    }

    /// Whether both are declared as the same application, whatever their ConfigMaps and Secrets contain, and whenever they were restarted.
    #[must_use]
    pub fn is_declared_as(&self, other: &Self) -> bool {
        self.is_same_code(&Self { content_digest: self.content_digest.clone(), ..other.clone() })
    }

    /// Whether both are the same application with the same content, whenever they were restarted.
    #[must_use]
    pub fn is_same_code(&self, other: &Self) -> bool {
        *self == Self { restart: self.restart.clone(), baseline: self.baseline.clone(), ..other.clone() }
    }

    /// Digest of what makes the application differ while it runs, with this port.
    #[must_use]
    pub fn digest(&self, port: u16) -> String {
        digest::short(&(self.essence(), port))
    }

    /// Seconds that the application has to end.
    #[must_use]
    pub fn stop_limit(&self) -> u32 {
        u32::try_from(self.stop_seconds).unwrap_or(1)
    }

    /// The variables whose values come from Secrets, by their names.
    pub fn secret_variables(&self) -> impl Iterator<Item = (&str, &SecretKeyRef)> {
        self.sources().filter_map(|(name, source)| Some((name, source.secret_key_ref.as_ref()?)))
    }

    /// The variables whose values come from ConfigMaps, by their names.
    pub fn config_map_variables(&self) -> impl Iterator<Item = (&str, &ConfigMapKeyRef)> {
        self.sources().filter_map(|(name, source)| Some((name, source.config_map_key_ref.as_ref()?)))
    }

    fn sources(&self) -> impl Iterator<Item = (&str, &EnvVarSource)> {
        self.env.iter().filter_map(|variable| Some((variable.name.as_str(), variable.value_from.as_ref()?)))
    }

    /// Whether its environment or its files come from ConfigMaps or Secrets.
    #[must_use]
    pub fn has_content(&self) -> bool {
        self.sources().next().is_some() || !self.files.is_empty()
    }

    /// Whether it needs ConfigMaps or Secrets.
    #[must_use]
    pub fn has_references(&self) -> bool {
        self.has_content() || self.artifact.secret_ref.is_some()
    }

    /// Name of the DeployClass whose deploy system deploys it; none when Berth does so itself.
    #[must_use]
    pub fn deploy_class(&self) -> Option<&str> {
        self.executor.class_name.as_deref().filter(|_| !self.executor.is_ssh())
    }

    /// The other variables, with their values.
    pub fn plain_variables(&self) -> impl Iterator<Item = (&str, &str)> {
        let plain = self.env.iter().filter(|variable| variable.value_from.is_none());
        plain.map(|variable| (variable.name.as_str(), variable.value.as_str()))
    }

    fn essence(&self) -> AppEssence<'_> {
        AppEssence {
            name: &self.name,
            sha256: &self.artifact.sha256,
            format: self.artifact.format,
            command: &self.command,
            user: self.user.as_deref(),
            hooks: self.hooks.as_ref(),
            stop_seconds: (self.stop_seconds != stop_seconds()).then_some(self.stop_seconds),
            env: self.plain_variables().collect(),
            env_from: self.secret_variables().collect(),
            env_from_maps: self.config_map_variables().collect(),
            files: self.files.iter().map(|file| (file.path.as_str(), file)).collect(),
            content_digest: self.content_digest.as_deref(),
            restart: self.restart.as_deref(),
            baseline: self.baseline.as_deref(),
        }
    }
}

/// What makes an application differ while it runs: not where its archive comes from, nor how many releases are kept,
/// nor who deploys it: what runs is the same, and another executor alone is no reason to restart it.
///
/// A field that a later version adds must be left out of the JSON while it has its default: else an upgrade would deploy every
/// application again.
#[derive(Serialize)]
struct AppEssence<'a> {
    name: &'a str,
    sha256: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<ArtifactFormat>,
    command: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hooks: Option<&'a Hooks>,
    /// The machine has to know it, although a change restarts nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_seconds: Option<i32>,
    env: BTreeMap<&'a str, &'a str>,
    /// Which keys of which Secrets, never their content: whoever sees the digest could try out passwords.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    env_from: BTreeMap<&'a str, &'a SecretKeyRef>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    env_from_maps: BTreeMap<&'a str, &'a ConfigMapKeyRef>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    files: BTreeMap<&'a str, &'a AppFile>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_digest: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    restart: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    baseline: Option<&'a str>,
}

/// A rule for what only Berth itself can do, and no deploy system.
fn only_by_ssh(rule: &str, message: &str) -> Rule {
    Rule::new(format!("!has(self.executor) || self.executor.type != 'External' || {rule}"))
        .message(Message::Message(format!("app.executor: with type External there is no {message}")))
}

fn stop_seconds() -> i32 {
    10
}

fn keep_releases() -> i32 {
    3
}

/// An environment variable: either a value, or where it comes from.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.valueFrom) || !has(self.value) || self.value == ''")
    .message("env: a variable has either value or valueFrom, not both"))]
pub struct EnvVar {
    /// Name of the variable.
    #[schemars(length(min = 1, max = 256), regex(pattern = r"^[a-zA-Z_][a-zA-Z0-9_]*$"))]
    pub name: String,
    /// Value of the variable. Everybody who may view the object sees it: what is secret belongs into `valueFrom`.
    #[serde(default)]
    #[schemars(length(max = 4096))]
    pub value: String,
    /// Where the value comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<EnvVarSource>,
}

/// Where the value of an environment variable comes from. Exactly one field is set.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.configMapKeyRef) != has(self.secretKeyRef)")
    .message("env: valueFrom is exactly one of configMapKeyRef and secretKeyRef"))]
pub struct EnvVarSource {
    /// A key of a ConfigMap in the namespace of the Server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_key_ref: Option<ConfigMapKeyRef>,
    /// A key of a Secret in the namespace of the Server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<SecretKeyRef>,
}
