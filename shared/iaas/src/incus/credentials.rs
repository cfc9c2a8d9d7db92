//! TLS to an Incus server: the client certificate, and how the server is verified.

use std::sync::Arc;

use rustls::{
    ClientConfig, ConfigBuilder, DigitallySignedStruct, RootCertStore, SignatureScheme, WantsVerifier,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{self, CryptoProvider},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
};
use sha2::{Digest as _, Sha256};

use crate::{
    driver::SecretData,
    error::{ProviderError, Result},
};

// Keys of the Secret. The first two are those of Secrets of type `kubernetes.io/tls`.
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
const CA: &str = "ca.crt";
const FINGERPRINT: &str = "server-fingerprint";

/// What the Secret must contain, for messages.
const EXPECTED: &str = "a Secret for an endpoint https:// holds tls.crt and tls.key (the client certificate that Incus \
                      trusts), and either server-fingerprint (SHA-256 of the server's certificate in hex) or ca.crt \
                      (that signed it)";

/// A configuration for endpoints without TLS, which trusts no certificate. The HTTP client needs one even there, and would
/// otherwise use the default of the process.
pub(super) fn no_tls() -> Result<ClientConfig> {
    Ok(builder()?.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}

fn builder() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>> {
    ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| ProviderError::Configuration(format!("no TLS with this cryptography: {error}")))
}

/// The TLS configuration from the Secret.
pub(super) fn tls(credentials: Option<&SecretData>) -> Result<ClientConfig> {
    let data =
        credentials.ok_or_else(|| ProviderError::Credentials(format!("spec.credentials: is missing; {EXPECTED}")))?;
    let provider = Arc::new(crypto::ring::default_provider());
    let verifier = verifier(data, &provider)?;
    let certificates = certificates(CERTIFICATE, required(data, CERTIFICATE)?)?;
    let key = PrivateKeyDer::from_pem_slice(required(data, KEY)?)
        .map_err(|error| wrong(KEY, &format!("is no private key in PEM: {error}")))?;
    builder()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_auth_cert(certificates, key)
        .map_err(|error| wrong(KEY, &format!("does not fit to {CERTIFICATE}: {error}")))
}

fn verifier(data: &SecretData, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>> {
    match (data.get(FINGERPRINT), data.get(CA)) {
        (Some(fingerprint), None) => {
            Ok(Arc::new(PinnedCertificate { fingerprint: digest(fingerprint)?, provider: provider.clone() }))
        }
        (None, Some(ca)) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(CA, ca)? {
                roots.add(certificate).map_err(|error| wrong(CA, &format!("cannot be used: {error}")))?;
            }
            let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .build()
                .map_err(|error| wrong(CA, &format!("cannot be used: {error}")))?;
            Ok(verifier)
        }
        (None, None) => Err(wrong(FINGERPRINT, &format!("is missing, and so is {CA}; {EXPECTED}"))),
        (Some(_), Some(_)) => Err(wrong(FINGERPRINT, &format!("and {CA} exclude each other; {EXPECTED}"))),
    }
}

fn required<'a>(data: &'a SecretData, key: &str) -> Result<&'a [u8]> {
    data.get(key).map(Vec::as_slice).ok_or_else(|| wrong(key, &format!("is missing; {EXPECTED}")))
}

fn certificates(key: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    let all: std::result::Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) => Err(wrong(key, "has no certificate in PEM")),
        Err(error) => Err(wrong(key, &format!("is no PEM: {error}"))),
    }
}

/// Parses a SHA-256 fingerprint as `incus info` shows it, or with colons as openssl shows it.
fn digest(text: &[u8]) -> Result<[u8; 32]> {
    let text = String::from_utf8_lossy(text);
    let plain = text.trim().replace(':', "");
    let bytes = hex::decode(plain).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    bytes.ok_or_else(|| {
        wrong(FINGERPRINT, "must be 64 hexadecimal digits, as `incus info` shows certificate_fingerprint")
    })
}

fn wrong(key: &str, why: &str) -> ProviderError {
    ProviderError::Credentials(format!("spec.credentials: {key} in the Secret {why}"))
}

/// Accepts one certificate by its fingerprint, whichever CA signed it: by default Incus signs its own.
#[derive(Debug)]
struct PinnedCertificate {
    fingerprint: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedCertificate {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        let actual: [u8; 32] = Sha256::digest(shown).into();
        if actual == self.fingerprint {
            return Ok(ServerCertVerified::assertion());
        }
        Err(rustls::Error::General(format!(
            "the server's certificate has the fingerprint {}, and {FINGERPRINT} in the Secret is {}",
            hex::encode(actual),
            hex::encode(self.fingerprint)
        )))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        crypto::verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        crypto::verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(entries: &[(&str, &str)]) -> SecretData {
        entries.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec())).collect()
    }

    #[test]
    fn a_wrong_secret_is_refused_with_the_key_and_what_it_must_hold() {
        let own = rcgen::generate_simple_self_signed(vec!["client".into()]).unwrap();
        let other = rcgen::generate_simple_self_signed(vec!["other".into()]).unwrap();
        let (crt, key) = (own.cert.pem(), own.signing_key.serialize_pem());
        let pin = "ab".repeat(32);
        let good = [("tls.crt", crt.as_str()), ("tls.key", key.as_str()), ("server-fingerprint", pin.as_str())];
        tls(Some(&secret(&good))).unwrap();
        let colons = ["AB"; 32].join(":");
        tls(Some(&secret(&[good[0], good[1], ("server-fingerprint", &colons)]))).unwrap();
        tls(Some(&secret(&[good[0], good[1], ("ca.crt", &crt)]))).unwrap();

        let stranger = other.signing_key.serialize_pem();
        for (entries, named) in [
            (vec![], "server-fingerprint"),
            (vec![good[0], good[2]], "tls.key"),
            (vec![good[1], good[2]], "tls.crt"),
            (vec![good[0], good[1]], "server-fingerprint"),
            (vec![good[0], good[1], good[2], ("ca.crt", crt.as_str())], "ca.crt"),
            (vec![good[0], good[1], ("server-fingerprint", "abc")], "64 hexadecimal digits"),
            (vec![("tls.crt", "nothing"), good[1], good[2]], "tls.crt"),
            (vec![good[0], ("tls.key", "nothing"), good[2]], "tls.key"),
            (vec![good[0], ("tls.key", stranger.as_str()), good[2]], "does not fit"),
        ] {
            let error = tls(Some(&secret(&entries))).unwrap_err();
            assert!(matches!(error, ProviderError::Credentials(_)), "{error:?}");
            assert!(error.to_string().contains(named), "{error}");
        }
        assert!(tls(None).unwrap_err().to_string().contains("tls.crt and tls.key"));
    }
}
