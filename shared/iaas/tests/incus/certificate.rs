//! Client certificates.

use std::fs;

use berth_iaas::SecretData;
use rcgen::CertifiedKey;
use sha2::{Digest as _, Sha256};

use crate::lab::Incus;

/// A client certificate, which the server does not trust yet.
pub(crate) struct ClientCertificate(CertifiedKey<rcgen::KeyPair>);

impl ClientCertificate {
    pub(crate) fn new() -> Self {
        Self(rcgen::generate_simple_self_signed(vec!["berth".into()]).unwrap())
    }

    pub(crate) fn trusted(incus: &Incus, name: &str, more: &[&str]) -> Self {
        let client = Self::new();
        let path = format!("/run/{name}.crt");
        fs::write(incus.path(&path), client.0.cert.pem()).unwrap();
        incus.incus(&[&["config", "trust", "add-certificate", &path, "--name", name][..], more].concat());
        client
    }

    /// The Secret, with the fingerprint of the server's certificate.
    pub(crate) fn with_fingerprint(&self, server: &[u8]) -> SecretData {
        self.secret("server-fingerprint", hex::encode(Sha256::digest(server)))
    }

    /// The Secret, with the CA of the server's certificate.
    pub(crate) fn with_ca(&self, ca: &str) -> SecretData {
        self.secret("ca.crt", ca.to_owned())
    }

    pub(crate) fn secret(&self, key: &str, value: String) -> SecretData {
        [("tls.crt", self.0.cert.pem()), ("tls.key", self.0.signing_key.serialize_pem()), (key, value)]
            .map(|(key, value)| (key.to_owned(), value.into_bytes()))
            .into()
    }
}
