//! The webhook's certificate in tests: a new authority, and a serving certificate for 127.0.0.1 that it signed.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};

/// The files of a serving certificate, and the certificate of the authority that signed it.
#[derive(Clone, Debug)]
pub(crate) struct ServingCertificate {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) ca_pem: String,
}

impl ServingCertificate {
    /// Creates a certificate for 127.0.0.1 and writes it to `webhook.crt` and `webhook.key` in `folder`.
    pub(crate) fn create(folder: &Path) -> Result<Self> {
        let ca_key = KeyPair::generate()?;
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.distinguished_name.push(DnType::CommonName, "berth-webhook-ca");
        let ca_pem = ca.self_signed(&ca_key)?.pem();
        let issuer = Issuer::new(ca, ca_key);

        let key = KeyPair::generate()?;
        let mut leaf = CertificateParams::default();
        leaf.distinguished_name.push(DnType::CommonName, "webhook");
        leaf.subject_alt_names = vec![SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST))];
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = leaf.signed_by(&key, &issuer)?;

        let serving = Self { certificate: folder.join("webhook.crt"), key: folder.join("webhook.key"), ca_pem };
        write_private(&serving.certificate, &certificate.pem())?;
        write_private(&serving.key, &key.serialize_pem())?;
        Ok(serving)
    }
}

/// Writes a file that only its owner may read.
pub(crate) fn write_private(path: &Path, content: &str) -> Result<()> {
    use std::io::Write;
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let written = options.open(path).and_then(|mut file| file.write_all(content.as_bytes()));
    written.with_context(|| format!("write {}", path.display()))
}
