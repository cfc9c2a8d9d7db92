//! A control plane as its users see it.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail a test by panicking")]

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use berth_control_plane::{Component, ControlPlane, ControlPlaneError, ControlPlaneOptions, WebhookEndpoint};
use k8s_openapi::{
    api::{
        core::v1::{ConfigMap, Namespace, ServiceAccount},
        rbac::v1::{RoleBinding, RoleRef, Subject},
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::{
    Api, Client, Config, ResourceExt,
    api::{ApiResource, DeleteParams, DynamicObject, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    core::GroupVersionKind,
};
use serde_json::json;

/// How long a condition may take to hold; a failing test ends after this.
const TIMEOUT: Duration = Duration::from_mins(1);

/// Waits until `condition` returns a value.
async fn eventually<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let wait = async {
        loop {
            if let Some(value) = condition().await {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(TIMEOUT, wait).await.unwrap_or_else(|_| panic!("{what}: not within {TIMEOUT:?}"))
}

fn config_map(name: &str) -> ConfigMap {
    let metadata = ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() };
    ConfigMap { metadata, data: Some(BTreeMap::from([("a".into(), "b".into())])), ..ConfigMap::default() }
}

async fn client_of(kubeconfig: &Path) -> Client {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    config.default_retry = false;
    Client::try_from(config).unwrap()
}

fn code(error: &kube::Error) -> u16 {
    match error {
        kube::Error::Api(status) => status.code,
        other => panic!("not a response of the apiserver: {other}"),
    }
}

async fn bind_edit(client: &Client, subject: Subject) {
    let binding = RoleBinding {
        metadata: ObjectMeta { name: Some("edit".into()), ..ObjectMeta::default() },
        role_ref: RoleRef {
            api_group: "rbac.authorization.k8s.io".to_owned().into(),
            kind: "ClusterRole".into(),
            name: "edit".into(),
        },
        subjects: Some(vec![subject]),
    };
    let api: Api<RoleBinding> = Api::namespaced(client.clone(), "default");
    api.create(&PostParams::default(), &binding).await.unwrap();
}

#[tokio::test]
async fn rbac_applies_to_service_accounts_and_users() {
    let control_plane =
        ControlPlane::start(ControlPlaneOptions { audit: true, ..ControlPlaneOptions::default() }).await.unwrap();
    let admin = control_plane.admin_client();
    let maps: Api<ConfigMap> = Api::default_namespaced(admin.clone());
    maps.create(&PostParams::default(), &config_map("one")).await.unwrap();
    assert_eq!(maps.get("one").await.unwrap().data.unwrap()["a"], "b");

    let missing = control_plane.service_account_kubeconfig("default", "app").await.unwrap_err();
    assert!(missing.to_string().contains("ServiceAccount default/app"), "{missing}");
    let accounts: Api<ServiceAccount> = Api::default_namespaced(admin.clone());
    let account = ServiceAccount {
        metadata: ObjectMeta { name: Some("app".into()), ..ObjectMeta::default() },
        ..Default::default()
    };
    accounts.create(&PostParams::default(), &account).await.unwrap();
    let file = control_plane.service_account_kubeconfig("default", "app").await.unwrap();
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let app = client_of(&file).await;
    let apps: Api<ConfigMap> = Api::default_namespaced(app);
    let refused = apps.get("one").await.unwrap_err();
    assert_eq!(code(&refused), 403);
    assert!(refused.to_string().contains("system:serviceaccount:default:app"), "{refused}");
    let subject = Subject {
        kind: "ServiceAccount".into(),
        name: "app".into(),
        namespace: Some("default".into()),
        ..Default::default()
    };
    bind_edit(&admin, subject).await;
    eventually("the role binding works", async || apps.get("one").await.ok()).await;

    let people: Api<ConfigMap> =
        Api::default_namespaced(control_plane.user_client("jane@example.org", &["viewers"]).await.unwrap());
    let refused = people.get("one").await.unwrap_err();
    assert_eq!(code(&refused), 403);
    assert!(refused.to_string().contains("jane@example.org"), "{refused}");
    let file = control_plane.user_kubeconfig("root@example.org", &["system:masters"]).unwrap();
    let root: Api<ConfigMap> = Api::default_namespaced(client_of(&file).await);
    root.create(&PostParams::default(), &config_map("two")).await.unwrap();

    let log = fs::read_to_string(control_plane.audit_log().unwrap()).unwrap();
    let events: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let creations: Vec<_> = events
        .iter()
        .filter(|event| {
            event["verb"] == "create"
                && event["objectRef"]["resource"] == "configmaps"
                && event["objectRef"]["namespace"] == "default"
        })
        .map(|event| {
            let user = event["impersonatedUser"]["username"].as_str().or(event["user"]["username"].as_str()).unwrap();
            (event["objectRef"]["name"].as_str().unwrap(), user)
        })
        .collect();
    assert_eq!(creations, [("one", "admin"), ("two", "root@example.org")]);
    assert!(events.iter().all(|event| event["verb"] != "get"), "reads are not logged");
    control_plane.stop().await.unwrap();
}

fn write_crd(dir: &Path, schema: &serde_json::Value) {
    let crd = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "boats.test.berth.dev"},
        "spec": {
            "group": "test.berth.dev", "scope": "Namespaced",
            "names": {"plural": "boats", "singular": "boat", "kind": "Boat"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
        },
    });
    fs::create_dir_all(dir.join("crds")).unwrap();
    fs::write(dir.join("crds/boats.yaml"), crd.to_string()).unwrap();
}

const BASE: &str = "
apiVersion: test.berth.dev/v1
kind: Boat
metadata: {name: first, namespace: harbour}
spec: {length: 7}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: webhook, namespace: harbour}
---
apiVersion: v1
kind: Service
metadata: {name: webhook, namespace: harbour}
spec: {ports: [{port: 443}]}
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingWebhookConfiguration
metadata: {name: boats}
webhooks:
- name: boats.test.berth.dev
  admissionReviewVersions: [v1]
  sideEffects: None
  timeoutSeconds: 1
  rules: [{apiGroups: [test.berth.dev], apiVersions: [v1], resources: [boats], operations: [CREATE]}]
  clientConfig: {service: {name: webhook, namespace: harbour, path: /mutate}}
---
apiVersion: v1
kind: Namespace
metadata: {name: harbour}
";

#[tokio::test]
async fn manifests_are_installed_and_dependents_and_namespaces_are_collected() {
    let control_plane = ControlPlane::start(ControlPlaneOptions::default()).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"length": {"type": "integer"}}}}});
    write_crd(dir.path(), &schema);
    fs::create_dir_all(dir.path().join("base")).unwrap();
    fs::write(dir.path().join("base/all.yaml"), BASE).unwrap();
    let report = control_plane.install(dir.path(), None).await.unwrap();
    let expected = [
        "CustomResourceDefinition boats.test.berth.dev",
        "Namespace harbour",
        "Boat harbour/first",
        "Service harbour/webhook",
    ];
    assert_eq!(report.applied, expected);
    assert_eq!(report.skipped, ["Deployment harbour/webhook", "MutatingWebhookConfiguration boats"]);
    assert_eq!(report.warnings, []);
    let second = control_plane.install(dir.path(), None).await.unwrap();
    assert_eq!(second.applied, expected, "a second installation causes no conflict");

    let client = control_plane.admin_client();
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("test.berth.dev", "v1", "Boat"));
    let boats: Api<DynamicObject> = Api::namespaced_with(client.clone(), "harbour", &kind);
    let owner = boats.get("first").await.unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "harbour");
    let mut dependent = config_map("sail");
    dependent.metadata.owner_references = Some(vec![OwnerReference {
        api_version: "test.berth.dev/v1".into(),
        kind: "Boat".into(),
        name: owner.name_any(),
        uid: owner.uid().unwrap(),
        ..OwnerReference::default()
    }]);
    maps.create(&PostParams::default(), &dependent).await.unwrap();
    boats.delete("first", &DeleteParams::default()).await.unwrap();
    eventually("the dependent of a custom resource is collected", async || {
        maps.get_opt("sail").await.unwrap().is_none().then_some(())
    })
    .await;

    // With an endpoint, the webhook configuration is installed and the apiserver calls the webhook, which does not exist.
    let ca_pem = fs::read_to_string(control_plane.dir().join("ca.crt")).unwrap();
    let endpoint = WebhookEndpoint { url_base: "https://127.0.0.1:1".into(), ca_pem };
    let report = control_plane.install(dir.path(), Some(&endpoint)).await.unwrap();
    assert_eq!(report.applied.last().unwrap(), "MutatingWebhookConfiguration boats");
    let boat = DynamicObject::new("second", &kind).data(json!({"spec": {"length": 8}}));
    let error = eventually("the apiserver calls the webhook", async || {
        let error = boats.create(&PostParams { dry_run: true, ..PostParams::default() }, &boat).await.err()?;
        Some(error.to_string())
    });
    let error = error.await;
    assert!(error.contains("https://127.0.0.1:1/mutate"), "{error}");

    maps.create(&PostParams::default(), &config_map("anchor")).await.unwrap();
    let namespaces: Api<Namespace> = Api::all(client);
    namespaces.delete("harbour", &DeleteParams::default()).await.unwrap();
    eventually("the namespace is gone", async || namespaces.get_opt("harbour").await.unwrap().is_none().then_some(()))
        .await;
    assert!(maps.get_opt("anchor").await.unwrap().is_none());
}

#[tokio::test]
async fn warnings_and_refusals_of_the_apiserver_are_reported() {
    let control_plane = ControlPlane::start(ControlPlaneOptions::default()).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    // The apiserver accepts an unknown format with a warning.
    write_crd(dir.path(), &json!({"type": "object", "properties": {"x": {"type": "string", "format": "nonsense"}}}));
    let report = control_plane.install(dir.path(), None).await.unwrap();
    assert_eq!(report.warnings.len(), 1, "{:?}", report.warnings);
    assert_eq!(report.warnings[0].object, "CustomResourceDefinition boats.test.berth.dev");
    assert!(report.warnings[0].text.contains("nonsense"), "{:?}", report.warnings);

    write_crd(dir.path(), &json!({"type": "object", "properties": {"x": {}}}));
    let error = control_plane.install(dir.path(), None).await.unwrap_err().to_string();
    assert!(error.contains("boats.yaml") && error.contains("properties[x].type"), "{error}");
}

#[tokio::test]
async fn two_control_planes_share_nothing() {
    let start = || ControlPlane::start(ControlPlaneOptions::default());
    let (one, two) = tokio::try_join!(start(), start()).unwrap();
    assert_ne!(one.url(), two.url());
    let maps = |of: &ControlPlane| -> Api<ConfigMap> { Api::default_namespaced(of.admin_client()) };
    maps(&one).create(&PostParams::default(), &config_map("mine")).await.unwrap();
    assert!(maps(&two).get_opt("mine").await.unwrap().is_none());
    let dir = one.dir().to_owned();
    one.stop().await.unwrap();
    assert!(!dir.exists());
    maps(&two).create(&PostParams::default(), &config_map("yours")).await.unwrap();
}

#[tokio::test]
async fn killed_components_restart_without_losing_data() {
    let control_plane = ControlPlane::start(ControlPlaneOptions::default()).await.unwrap();
    let maps: Api<ConfigMap> = Api::default_namespaced(control_plane.admin_client());
    maps.create(&PostParams::default(), &config_map("kept")).await.unwrap();
    control_plane.kill(Component::Apiserver).unwrap();
    assert!(!control_plane.process(Component::Apiserver).is_running());
    assert!(maps.get("kept").await.is_err());
    control_plane.kill(Component::Etcd).unwrap();
    control_plane.restart(Component::Etcd).await.unwrap();
    control_plane.restart(Component::Apiserver).await.unwrap();
    control_plane.restart(Component::ControllerManager).await.unwrap();
    assert_eq!(maps.get("kept").await.unwrap().data.unwrap()["a"], "b");
    let dir = control_plane.dir().to_owned();
    drop(control_plane);
    assert!(!dir.exists(), "dropping stops it");
}

#[tokio::test]
async fn the_error_has_the_log_of_a_component_that_dies_at_the_start() {
    let options =
        ControlPlaneOptions { apiserver_flags: vec!["--no-such-flag".into()], ..ControlPlaneOptions::default() };
    let error = ControlPlane::start(options).await.unwrap_err();
    assert!(matches!(&error, ControlPlaneError::Died { name, .. } if name == "kube-apiserver"), "{error}");
    assert!(error.to_string().contains("unknown flag: --no-such-flag"), "{error}");
}
