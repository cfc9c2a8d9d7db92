//! The runtime API over TCP, with mutual TLS, at a real HAProxy.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

mod support;

use std::fs;

use berth_haproxy::{Address, ClientTls, Haproxy, Problem, ServerChange, Socket};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use support::{Lab, TIME_LIMIT, free_port, id};

const WEB: &str = "\nbackend web\n    balance roundrobin\n    server a 127.0.0.1:9 disabled\n";

/// An authority, and what it signs.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        // OpenSSL takes a certificate whose subject and issuer are the same for one that signed itself.
        params.distinguished_name.push(DnType::CommonName, "authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// A certificate and its key.
    fn sign(&self, name: &str, purpose: ExtendedKeyUsagePurpose) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages = vec![purpose];
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    fn client(&self, trusted: &Self, server_name: Option<&str>) -> ClientTls {
        let (certificate, key) = self.sign("berth", ExtendedKeyUsagePurpose::ClientAuth);
        ClientTls::from_pem(certificate.as_bytes(), key.as_bytes(), trusted.pem.as_bytes(), server_name).unwrap()
    }
}

fn at(port: u16, tls: Option<ClientTls>) -> Haproxy {
    Haproxy::new(Address::Tcp { host: "127.0.0.1".to_owned(), port, tls }, Socket::Worker, TIME_LIMIT)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_of_loopback_works_without_tls() {
    let port = free_port();
    let lab = Lab::start(&format!("\nglobal\n    stats socket ipv4@127.0.0.1:{port} level admin\n{WEB}")).await;
    let haproxy = at(port, None);
    haproxy.change(ServerChange::Enable(id("a"))).await.unwrap();
    assert_eq!(haproxy.state(None).await.unwrap().servers, lab.worker().state(None).await.unwrap().servers);
}

/// A folder with a certificate of HAProxy, and the authority that signed it.
fn with_certificate(authority: &Authority) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = authority.sign("lb.example", ExtendedKeyUsagePurpose::ServerAuth);
    fs::write(folder.path().join("server.pem"), certificate + &key).unwrap();
    fs::write(folder.path().join("ca.pem"), &authority.pem).unwrap();
    folder
}

const TLS: &str = "ssl crt {folder}/server.pem ca-file {folder}/ca.pem verify required";

#[tokio::test(flavor = "multi_thread")]
async fn mutual_tls_lets_in_only_who_has_a_certificate_and_trusts_haproxys() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (port, master_port) = (free_port(), free_port());
    let listen = |name: &str, port: u16, socket: &str| {
        format!(
            "\nlisten {name}\n    mode tcp\n    bind 127.0.0.1:{port} {TLS}\n    server api unix@{{folder}}/{socket}\n"
        )
    };
    let config = listen("worker-api", port, "worker.sock") + &listen("master-api", master_port, "master.sock") + WEB;
    let lab = Lab::start_in(with_certificate(&ours), &config).await;

    let right = at(port, Some(ours.client(&ours, Some("lb.example"))));
    right.change(ServerChange::Enable(id("a"))).await.unwrap();
    assert_eq!(right.info().await.unwrap().id, lab.worker().info().await.unwrap().id);
    let address = Address::Tcp {
        host: "127.0.0.1".to_owned(),
        port: master_port,
        tls: Some(ours.client(&ours, Some("lb.example"))),
    };
    let master = Haproxy::new(address, Socket::Master, TIME_LIMIT);
    lab.reload().await;
    assert_eq!(master.info().await.unwrap().id, lab.worker().info().await.unwrap().id);
    assert!(master.in_flight(Some("web")).await.unwrap().complete);

    let stranger = at(port, Some(theirs.client(&ours, Some("lb.example")))).info().await.unwrap_err();
    assert!(matches!(stranger.problem, Problem::Broken(_) | Problem::CutOff { .. }), "{stranger}");
    assert!(!stranger.is_uncertain(), "{stranger}");
    let distrust = at(port, Some(ours.client(&theirs, Some("lb.example")))).info().await.unwrap_err();
    assert!(matches!(distrust.problem, Problem::Unreachable(_)), "{distrust}");
    assert!(distrust.to_string().contains("invalid peer certificate"), "{distrust}");
    let other_name = at(port, Some(ours.client(&ours, None))).info().await.unwrap_err();
    assert!(other_name.to_string().contains("not valid for"), "{other_name}");
    let plain = at(port, None).info().await.unwrap_err();
    assert!(matches!(plain.problem, Problem::Broken(_) | Problem::CutOff { .. } | Problem::Garbled { .. }), "{plain}");
}

/// HAProxy takes `ssl` on a `stats socket` without a word, and then speaks plain text to everybody.
#[tokio::test(flavor = "multi_thread")]
async fn a_stats_socket_that_ignores_its_tls_options_is_told() {
    let ours = Authority::new();
    let port = free_port();
    let config = format!("\nglobal\n    stats socket ipv4@127.0.0.1:{port} {TLS} level admin\n{WEB}");
    let lab = Lab::start_in(with_certificate(&ours), &config).await;
    let error = at(port, Some(ours.client(&ours, Some("lb.example")))).info().await.unwrap_err();
    assert!(error.to_string().contains("HAProxy ignores `ssl` on a `stats socket`"), "{error}");
    // If this fails, HAProxy has learnt it.
    assert_eq!(at(port, None).info().await.unwrap().id, lab.worker().info().await.unwrap().id);
}
