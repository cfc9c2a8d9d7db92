//! The control plane's own certificate authority.

use std::{fs, net::Ipv4Addr, path::Path};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};

use crate::error::{IoContext, Result};

/// A certificate with its private key, both as PEM.
#[derive(Debug, Clone)]
pub(crate) struct CertificateAndKey {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// The authority that signs the apiserver's certificate and the client certificates of users.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        params.distinguished_name.push(DnType::CommonName, "berth-control-plane");
        Ok(Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate()?)? })
    }

    /// The authority's certificate as PEM.
    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A serving certificate for loopback and for the names of an apiserver inside a cluster.
    pub(crate) fn serving(&self) -> Result<CertificateAndKey> {
        let names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"];
        let mut params = CertificateParams::new(names.map(String::from).to_vec())?;
        params.subject_alt_names.push(SanType::IpAddress(Ipv4Addr::LOCALHOST.into()));
        params.distinguished_name.push(DnType::CommonName, "kube-apiserver");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(params)
    }

    /// A client certificate that names a user (common name) and the user's group (organization).
    pub(crate) fn client(&self, user: &str, group: &str) -> Result<CertificateAndKey> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, user);
        params.distinguished_name.push(DnType::OrganizationName, group);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params)
    }

    fn sign(&self, mut params: CertificateParams) -> Result<CertificateAndKey> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(CertificateAndKey { certificate, key: key.serialize_pem() })
    }
}

/// Writes the key pair that signs ServiceAccount tokens to `sa.key` and `sa.pub` in `dir`.
pub(crate) fn write_token_keys(dir: &Path) -> Result<()> {
    let key = KeyPair::generate()?;
    for (name, pem) in [("sa.key", key.serialize_pem()), ("sa.pub", key.public_key_pem())] {
        write(&dir.join(name), &pem)?;
    }
    Ok(())
}

/// Writes a file into the guarded folder, which only this user can enter.
pub(crate) fn write(path: &Path, content: &str) -> Result<()> {
    fs::write(path, content).doing(|| format!("write {}", path.display()))
}
