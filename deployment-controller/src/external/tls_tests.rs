//! A deploy system behind TLS whose certificate a house's own authority has signed.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use berth_core::api::{DeployClass, Outcome};
use berth_testing::manifest;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::{
    system::DeploySystem,
    testing::{World, says},
};
use crate::class_access::SecretData;

/// A house's own authority.
fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap()
}

/// Listens with a certificate of this authority, in front of the server at this address. Returns where.
async fn tls_in_front_of(plain: SocketAddr, ca: &CertifiedIssuer<'static, KeyPair>) -> SocketAddr {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["127.0.0.1".into()]).unwrap().signed_by(&key, ca).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder().with_no_client_auth();
    let config = config.with_single_cert(vec![certificate.der().clone()], key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // A client that does not trust the certificate leaves.
                let Ok(mut tls) = acceptor.accept(stream).await else { return };
                let mut plain = TcpStream::connect(plain).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut tls, &mut plain).await;
            });
        }
    });
    address
}

#[tokio::test]
async fn the_token_goes_only_to_a_deploy_system_that_the_authority_of_the_class_has_signed() {
    let mut world = World::new().await.impatient();
    world.fake.state().authorization = Some("Bearer s3cr3t".to_owned());
    let ca = authority();
    let plain = world.fake.url().trim_start_matches("http://").split_once('/').unwrap().0.parse().unwrap();
    let url = format!("https://{}/berth", tls_in_front_of(plain, &ca).await);
    let class: DeployClass = serde_json::from_value(manifest("DeployClass", "ci", json!({"url": url}))).unwrap();
    let system_with = |authority: Option<String>| {
        let mut secret: SecretData = [("token".to_owned(), b"s3cr3t".to_vec())].into();
        secret.extend(authority.map(|pem| ("ca.crt".to_owned(), pem.into_bytes())));
        let mut system = DeploySystem::new(&class, &secret, Duration::from_secs(10)).unwrap();
        system.poll = Duration::from_millis(5);
        system
    };

    for stranger in [None, Some(authority().pem())] {
        world.system = system_with(stranger);
        says(&world.attempt(1).await, Outcome::Retry, &["it does not answer: ", "invalid peer certificate"]);
        assert_eq!(world.fake.state().calls, Vec::<String>::new(), "nothing was sent");
    }
    world.system = system_with(Some(ca.pem()));
    says(&world.attempt(1).await, Outcome::Succeeded, &["deployed by job u-1-7-1 of DeployClass ci"]);
    world.ends();
}
