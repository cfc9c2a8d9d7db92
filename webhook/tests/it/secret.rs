//! The certificate in a Secret, on a real apiserver and with the rights that are shipped.

use berth_control_plane::{ControlPlane, Options, WebhookEndpoint};
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

const PATIENCE: Duration = Duration::from_secs(30);

struct Setting {
    secrets: Api<Secret>,
    configurations: Api<MutatingWebhookConfiguration>,
}

impl Setting {
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

    /// Waits until the Secret holds another bundle with nothing due, and the apiserver trusts it.
    async fn settled(&self, other_than: Option<&Bundle>) -> Bundle {
        let settled = async {
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
        tokio::time::timeout(PATIENCE, settled).await.expect("Secret and configuration are in step")
    }
}

/// Three copies of the webhook begin at once; then people meddle with the Secret and the configuration.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_that_race_share_one_authority_and_repair_what_is_meddled_with() {
    let control_plane = ControlPlane::start(Options::default()).await.unwrap();
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    let endpoint = WebhookEndpoint { url_base: "https://127.0.0.1:1".into(), ca_pem: String::new() };
    control_plane.install(&deploy, Some(&endpoint)).await.unwrap();
    let kubeconfig = control_plane.service_account_kubeconfig("berth-system", "webhook").await.unwrap();
    let admin = control_plane.admin_client();
    let setting = Setting { secrets: Api::namespaced(admin.clone(), "berth-system"), configurations: Api::all(admin) };
    let process = Process::default();
    let client = berth_runtime::build_client(Some(&kubeconfig), Duration::from_secs(10)).await.unwrap();
    let copies = try_join_all((0..3).map(|_| source(&client).serve(&process))).await.unwrap();

    let first = setting.settled(None).await;
    assert!(setting.trusted().await.iter().all(|ca| *ca == first.ca_crt));
    assert_eq!(copies.len(), 3);

    // Somebody deletes the Secret: a new authority is made, trusted, and served with by every copy.
    let served: Vec<_> = copies.iter().map(axum_server::tls_rustls::RustlsConfig::get_inner).collect();
    setting.secrets.delete("webhook-tls", &DeleteParams::default()).await.unwrap();
    let second = setting.settled(Some(&first)).await;
    assert_ne!(second.ca_crt, first.ca_crt);
    let reloaded = async {
        while copies.iter().zip(&served).any(|(copy, old)| std::sync::Arc::ptr_eq(&copy.get_inner(), old)) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, reloaded).await.expect("every copy serves with the new certificate");

    // Somebody puts rubbish into it.
    let rubbish = json!({"data": {"tls.crt": ByteString(b"rubbish".to_vec())}});
    setting.secrets.patch("webhook-tls", &PatchParams::default(), &Patch::Merge(&rubbish)).await.unwrap();
    let third = setting.settled(Some(&second)).await;
    assert_eq!(third.ca_crt, second.ca_crt, "a certificate that cannot be used is no reason to give the authority up");

    // Somebody overwrites the configuration.
    let patch = json!([{"op": "remove", "path": "/webhooks/0/clientConfig/caBundle"}]);
    let patch: json_patch::Patch = serde_json::from_value(patch).unwrap();
    setting.configurations.patch("berth", &PatchParams::default(), &Patch::<()>::Json(patch)).await.unwrap();
    assert_eq!(setting.settled(None).await, third);

    // At rest nothing is written.
    let versions = async || {
        let secret = setting.secrets.get("webhook-tls").await.unwrap().metadata.resource_version;
        (secret, setting.configurations.get("berth").await.unwrap().metadata.resource_version)
    };
    let before = versions().await;
    source(&client).serve(&process).await.unwrap();
    assert_eq!(versions().await, before, "another copy takes what is there");
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
    }
}
