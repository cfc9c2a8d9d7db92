//! A real kube-apiserver that presents a client certificate to a webhook which demands one.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail a test by panicking")]

use berth_control_plane::ControlPlaneOptions;
use berth_core::api::Server;
use berth_tests::{Berth, Options, Part};
use kube::api::{Patch, PatchParams, PostParams};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair};
use serde_json::json;

/// A client that does not care whom it talks to.
fn client(identity: Option<reqwest::Identity>) -> reqwest::Client {
    let client = reqwest::Client::builder().no_proxy().tls_danger_accept_invalid_certs(true);
    match identity {
        Some(identity) => client.identity(identity),
        None => client,
    }
    .build()
    .unwrap()
}

/// A certificate that nobody but its owner has signed.
fn stranger() -> reqwest::Identity {
    let mut params = CertificateParams::default();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    reqwest::Identity::from_pem(format!("{}{}", certificate.pem(), key.serialize_pem()).as_bytes()).unwrap()
}

/// How many requests the webhook has answered.
async fn answered(berth: &Berth) -> u64 {
    let text = berth.metrics(&berth.instance(Part::Webhook, 1).unwrap()).await.unwrap();
    let counts = text.lines().filter(|line| line.starts_with("berth_webhook_request_duration_seconds_count"));
    counts.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn reviews_pass_with_the_apiservers_certificate_and_nobody_else_is_served() {
    let control_plane = ControlPlaneOptions { webhook_client_certificate: true, ..ControlPlaneOptions::default() };
    // It is ready only after the apiserver has got an answer from the webhook.
    let berth =
        Berth::start(Options { control_plane, parts: vec![Part::Webhook], ..Options::default() }).await.unwrap();
    let servers = berth.servers("default");
    let server: Server = berth_testing::server(json!({"metadata": {"uid": null, "namespace": "default"}}));
    servers.create(&PostParams::default(), &server).await.unwrap();
    let force = json!({"spec": {"force": {"state": "Unknown", "reason": "by hand"}}});
    let forced = servers.patch("web-0", &PatchParams::default(), &Patch::Merge(force)).await.unwrap();
    assert_eq!(forced.spec.force.unwrap().by.as_deref(), Some("admin"), "the webhook has stamped it");

    let before = answered(&berth).await;
    assert!(before > 0);
    for identity in [None, Some(stranger())] {
        let known = identity.is_some();
        let url = format!("https://{}/mutate", berth.webhook());
        let error = client(identity).post(url).body("{}").send().await.unwrap_err();
        assert!(!error.is_timeout(), "with a certificate: {known}: {error:?}");
    }
    assert_eq!(answered(&berth).await, before, "the strangers were refused before they could send a request");
    berth.stop().await.unwrap();
}
