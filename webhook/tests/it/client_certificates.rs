//! With an authority for clients, only those with a certificate of it are served.

use crate::tls::{TlsServer, bundle, client, send_once};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use std::{sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;
use webhook::tls::{Bundle, ClientAuthority};

const TIMEOUT: Duration = Duration::from_secs(30);

/// An authority that signs the certificates of clients.
struct Authority {
    params: CertificateParams,
    key: KeyPair,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { params, key, pem }
    }

    /// A client that trusts the webhook and has a certificate of this authority, for this purpose.
    fn client(
        &self,
        bundle: &Bundle,
        purpose: ExtendedKeyUsagePurpose,
        version: &'static rustls::SupportedProtocolVersion,
    ) -> Arc<ClientConfig> {
        let issuer = Issuer::from_params(&self.params, &self.key);
        let mut params = CertificateParams::default();
        params.extended_key_usages = vec![purpose];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(bundle.ca_crt.as_bytes()).unwrap()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![certificate.der().clone()], key)
            .unwrap();
        Arc::new(config)
    }
}

const VERSIONS: [&rustls::SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_clients_with_a_certificate_of_the_authority_are_served() {
    let (bundle, right, wrong) = (bundle(), Authority::new(), Authority::new());
    let server = TlsServer::start_for(&bundle, Some(&right.pem)).await;
    for version in VERSIONS {
        let known = right.client(&bundle, ExtendedKeyUsagePurpose::ClientAuth, version);
        // Twice, because a session could be resumed.
        for _ in 0..2 {
            send_once(server.address, known.clone()).await.unwrap();
        }
        for (what, stranger) in [
            ("no certificate", client(&bundle, "http/1.1", &[version])),
            ("another authority", wrong.client(&bundle, ExtendedKeyUsagePurpose::ClientAuth, version)),
            ("a certificate for a server", right.client(&bundle, ExtendedKeyUsagePurpose::ServerAuth, version)),
        ] {
            assert!(send_once(server.address, stranger).await.is_err(), "{what}, {version:?}");
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_authority_holds_from_the_next_handshake_on() {
    let (bundle, old, new) = (bundle(), Authority::new(), Authority::new());
    let server = TlsServer::start_for(&bundle, Some(&old.pem)).await;
    for version in VERSIONS {
        let before = old.client(&bundle, ExtendedKeyUsagePurpose::ClientAuth, version);
        let after = new.client(&bundle, ExtendedKeyUsagePurpose::ClientAuth, version);
        send_once(server.address, before.clone()).await.unwrap();
        // A broken file changes nothing; then both count, as during a rotation; then only the new one.
        server.replace_file("clients.crt", "-----BEGIN CERTIFICATE-----\nbroken");
        server.replace_file("clients.crt", &format!("{}{}", old.pem, new.pem));
        served(&server, &after).await;
        send_once(server.address, before.clone()).await.unwrap();
        server.replace_file("clients.crt", &new.pem);
        let refused = async {
            while send_once(server.address, before.clone()).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(TIMEOUT, refused).await.expect("the old authority counts no more, nor do its sessions");
        send_once(server.address, after).await.unwrap();
        server.replace_file("clients.crt", &old.pem);
        served(&server, &before).await;
    }
    server.stop().await;
}

/// Waits until the client is served.
async fn served(server: &TlsServer, client: &Arc<ClientConfig>) {
    let wait = async {
        while send_once(server.address, client.clone()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(TIMEOUT, wait).await.expect("the client is served");
}

#[tokio::test]
async fn an_unusable_authority_at_the_start_is_an_error_that_names_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("clients.crt");
    let start = async || {
        let loaded = ClientAuthority::new(file.clone()).load(Duration::from_secs(1), CancellationToken::new()).await;
        format!("{:#}", loaded.err().unwrap())
    };
    assert!(start().await.contains("--client-ca: cannot read"), "{}", start().await);
    for unusable in ["", "-----BEGIN CERTIFICATE-----\nbroken"] {
        std::fs::write(&file, unusable).unwrap();
        let error = start().await;
        assert!(error.contains("--client-ca") && error.contains("clients.crt is unusable"), "{error}");
    }
}
