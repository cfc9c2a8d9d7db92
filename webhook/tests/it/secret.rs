//! The certificate in a Secret, on a real apiserver and with the RBAC rules of `deploy/`.

use berth_control_plane::{ControlPlane, ControlPlaneOptions, WebhookEndpoint};
use berth_runtime::Process;
use futures::future::try_join_all;
use k8s_openapi::{
    ByteString,
    api::{admissionregistration::v1::MutatingWebhookConfiguration, core::v1::Secret},
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::json;
use std::{path::Path, time::Duration};
use webhook::tls::{Bundle, Renewal, SecretSource};

/// How long a condition may take to hold; a failing test ends after this.
const TIMEOUT: Duration = Duration::from_secs(30);

struct TestCluster {
    secrets: Api<Secret>,
    configurations: Api<MutatingWebhookConfiguration>,
}

impl TestCluster {
    async fn bundle(&self) -> Option<Bundle> {
        let data = self.secrets.get_opt("webhook-tls").await.unwrap()?.data?;
        Bundle::from_data(&data.into_iter().map(|(key, ByteString(value))| (key, value)).collect()).ok()
    }

    async fn trusted(&self) -> Vec<String> {
        let webhooks = self.configurations.get("berth").await.unwrap().webhooks.unwrap();
        webhooks
            .into_iter()
            .map(|w| String::from_utf8(w.client_config.ca_bundle.unwrap_or(ByteString(vec![])).0).unwrap())
            .collect()
    }

    /// Waits until the Secret holds another bundle that needs no renewal, and the apiserver trusts it.
    async fn consistent_bundle(&self, other_than: Option<&Bundle>) -> Bundle {
        let consistent = async {
            loop {
                if let Some(bundle) = self.bundle().await
                    && Some(&bundle) != other_than
                    && matches!(bundle.renewal(&[], Timestamp::now()), Renewal::At(_))
                    && self.trusted().await.iter().all(|ca| *ca == bundle.ca_crt)
                {
                    return bundle;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(TIMEOUT, consistent).await.expect("Secret and configuration are consistent")
    }
}

/// Three replicas of the webhook start at once; then somebody changes the Secret and the configuration.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn racing_replicas_share_one_authority_and_repair_secret_and_configuration() {
    let control_plane = ControlPlane::start(ControlPlaneOptions::default()).await.unwrap();
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    let endpoint = WebhookEndpoint { url_base: "https://127.0.0.1:1".into(), ca_pem: String::new() };
    control_plane.install(&deploy, Some(&endpoint)).await.unwrap();
    let kubeconfig = control_plane.service_account_kubeconfig("berth-system", "webhook").await.unwrap();
    let admin = control_plane.admin_client();
    let cluster =
        TestCluster { secrets: Api::namespaced(admin.clone(), "berth-system"), configurations: Api::all(admin) };
    let process = Process::default();
    let client = berth_runtime::build_client(Some(&kubeconfig), Duration::from_secs(10)).await.unwrap();
    let replicas = try_join_all((0..3).map(|_| source(&client).serve(&process))).await.unwrap();

    let first = cluster.consistent_bundle(None).await;
    assert!(cluster.trusted().await.iter().all(|ca| *ca == first.ca_crt));
    assert_eq!(replicas.len(), 3);

    // When the Secret is deleted, the apiserver gets a new authority and every replica serves with its certificate.
    let served: Vec<_> = replicas.iter().map(axum_server::tls_rustls::RustlsConfig::get_inner).collect();
    cluster.secrets.delete("webhook-tls", &DeleteParams::default()).await.unwrap();
    let second = cluster.consistent_bundle(Some(&first)).await;
    assert_ne!(second.ca_crt, first.ca_crt);
    let reloaded = async {
        while replicas.iter().zip(&served).any(|(replica, old)| std::sync::Arc::ptr_eq(&replica.get_inner(), old)) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(TIMEOUT, reloaded).await.expect("every replica serves with the new certificate");

    // An unusable certificate is replaced.
    let not_pem = json!({"data": {"tls.crt": ByteString(b"not PEM".to_vec())}});
    cluster.secrets.patch("webhook-tls", &PatchParams::default(), &Patch::Merge(&not_pem)).await.unwrap();
    let third = cluster.consistent_bundle(Some(&second)).await;
    assert_eq!(third.ca_crt, second.ca_crt, "the authority stays when only the certificate is unusable");

    // The authority's certificate is written back into the configuration.
    let patch = json!([{"op": "remove", "path": "/webhooks/0/clientConfig/caBundle"}]);
    let patch: json_patch::Patch = serde_json::from_value(patch).unwrap();
    cluster.configurations.patch("berth", &PatchParams::default(), &Patch::<()>::Json(patch)).await.unwrap();
    assert_eq!(cluster.consistent_bundle(None).await, third);

    // Nothing is written when nothing has changed.
    let versions = async || {
        let secret = cluster.secrets.get("webhook-tls").await.unwrap().metadata.resource_version;
        (secret, cluster.configurations.get("berth").await.unwrap().metadata.resource_version)
    };
    let before = versions().await;
    source(&client).serve(&process).await.unwrap();
    assert_eq!(versions().await, before, "another replica uses the bundle as it is");
    let soon = Timestamp::now();
    assert!(matches!(third.renewal(&[], soon), Renewal::At(due) if due > soon));

    process.shutdown.cancel();
    control_plane.stop().await.unwrap();
}

fn source(client: &Client) -> SecretSource {
    SecretSource {
        client: client.clone(),
        namespace: "berth-system".into(),
        secret: "webhook-tls".into(),
        service: "webhook".into(),
        configuration: "berth".into(),
        clients: None,
    }
}
