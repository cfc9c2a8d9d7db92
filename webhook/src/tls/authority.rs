//! The webhook's own certificate authority and the certificates that it issues, kept together in one Secret.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::{
    RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier as _},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use super::config::server_config;

/// Lifetime of the authority: ten years, so that its replacement is rare.
const AUTHORITY_LIFETIME: SignedDuration = SignedDuration::from_hours(10 * 365 * 24);
/// Lifetime of a certificate: 90 days as usual on the web, so that a stolen key is soon worthless.
const CERTIFICATE_LIFETIME: SignedDuration = SignedDuration::from_hours(90 * 24);
/// How long before its creation a certificate is valid: clocks of other machines may be this far behind.
const CLOCK_SKEW: SignedDuration = SignedDuration::from_mins(5);
/// Time before a new authority issues certificates, so that every apiserver has loaded the new bundle by then.
const PROPAGATION: SignedDuration = SignedDuration::from_hours(1);

/// The content of the Secret; every field is PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// The certificates that the apiserver trusts: the authority's, then the previous authority's.
    pub ca_crt: String,
    /// The private key of the authority.
    pub ca_key: String,
    /// The certificate that the webhook serves with.
    pub tls_crt: String,
    /// The private key of that certificate.
    pub tls_key: String,
}

/// Why a bundle cannot be created or read.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The Secret lacks a key.
    #[error("{0} is missing or empty")]
    Missing(&'static str),
    /// A value of the Secret is not text.
    #[error("{0} is not PEM: {1}")]
    NotText(&'static str, std::string::FromUtf8Error),
    /// A certificate cannot be issued.
    #[error("cannot issue a certificate: {0}")]
    Issue(#[from] rcgen::Error),
    /// The time cannot be expressed in a certificate.
    #[error("the time is out of range: {0}")]
    Time(#[from] k8s_openapi::jiff::Error),
}

/// The part of a bundle that is due to be renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// Nothing is due before this time.
    At(Timestamp),
    /// The serving certificate.
    Certificate,
    /// The authority. The serving certificate stays, because the apiserver does not trust the new authority yet.
    Authority,
    /// Authority and serving certificate, because the authority is unusable.
    Everything,
}

impl Bundle {
    /// Creates an authority and its first certificate, issued for these DNS names.
    pub fn generate(names: &[String], now: Timestamp) -> Result<Self, BundleError> {
        let (ca_crt, ca_key) = authority(now)?;
        let (tls_crt, tls_key) = issue(&ca_crt, &ca_key, names, now)?;
        Ok(Self { ca_crt, ca_key, tls_crt, tls_key })
    }

    /// Reads a bundle from the data of a Secret.
    pub fn from_data(data: &BTreeMap<String, Vec<u8>>) -> Result<Self, BundleError> {
        let text = |key: &'static str| {
            let bytes = data.get(key).filter(|bytes| !bytes.is_empty()).ok_or(BundleError::Missing(key))?;
            String::from_utf8(bytes.clone()).map_err(|error| BundleError::NotText(key, error))
        };
        Ok(Self {
            ca_crt: text("ca.crt")?,
            ca_key: text("ca.key")?,
            tls_crt: text("tls.crt")?,
            tls_key: text("tls.key")?,
        })
    }

    /// The bundle as the data of a Secret.
    #[must_use]
    pub fn to_data(&self) -> BTreeMap<String, Vec<u8>> {
        [("ca.crt", &self.ca_crt), ("ca.key", &self.ca_key), ("tls.crt", &self.tls_crt), ("tls.key", &self.tls_key)]
            .map(|(key, value)| (key.to_owned(), value.clone().into_bytes()))
            .into()
    }

    /// What is due to be renewed. Certificates are renewed after two thirds of their lifetimes.
    #[must_use]
    pub fn renewal(&self, names: &[String], now: Timestamp) -> Renewal {
        let Some(ca) = self.authority().filter(|ca| ca.ends > now) else { return Renewal::Everything };
        let Some(tls) = Validity::of(&self.tls_crt).filter(|_| self.is_trusted(names, now)) else {
            return Renewal::Certificate;
        };
        if ca.due() <= now {
            return Renewal::Authority;
        }
        let due = tls.due().max(ca.begins.saturating_add(PROPAGATION).unwrap_or(now));
        if due <= now { Renewal::Certificate } else { Renewal::At(due.min(ca.due())) }
    }

    /// The validity of the authority; `None` if its certificate does not parse or its key belongs to another certificate.
    fn authority(&self) -> Option<Validity> {
        let key = KeyPair::from_pem(&self.ca_key).ok()?;
        Validity::of(&self.ca_crt).filter(|ca| ca.public_key == key.public_key_raw())
    }

    /// Whether certificate and key fit together, and a client that trusts the authority accepts them for every name.
    fn is_trusted(&self, names: &[String], now: Timestamp) -> bool {
        let verified = || {
            server_config(self.tls_crt.as_bytes(), self.tls_key.as_bytes(), None).ok()?;
            let mut roots = RootCertStore::empty();
            for root in CertificateDer::pem_slice_iter(self.ca_crt.as_bytes()) {
                roots.add(root.ok()?).ok()?;
            }
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider).build().ok()?;
            let leaf = CertificateDer::from_pem_slice(self.tls_crt.as_bytes()).ok()?;
            let at = UnixTime::since_unix_epoch(Duration::from_secs(now.as_second().unsigned_abs()));
            for name in names {
                let name = ServerName::try_from(name.as_str()).ok()?;
                verifier.verify_server_cert(&leaf, &[], &name, &[], at).ok()?;
            }
            Some(())
        };
        verified().is_some()
    }

    /// Renews the part of the bundle that is due.
    pub fn renewed(&self, renewal: Renewal, names: &[String], now: Timestamp) -> Result<Self, BundleError> {
        match renewal {
            Renewal::At(_) => Ok(self.clone()),
            Renewal::Everything => Self::generate(names, now),
            Renewal::Certificate => {
                let (tls_crt, tls_key) = issue(first_certificate(&self.ca_crt), &self.ca_key, names, now)?;
                Ok(Self { tls_crt, tls_key, ..self.clone() })
            }
            Renewal::Authority => {
                let (new, ca_key) = authority(now)?;
                Ok(Self { ca_crt: format!("{new}{}", first_certificate(&self.ca_crt)), ca_key, ..self.clone() })
            }
        }
    }
}

/// The first of several certificates, with the line end after it.
fn first_certificate(pem: &str) -> &str {
    const END: &str = "-----END CERTIFICATE-----";
    let end = pem.find(END).map_or(pem.len(), |at| at + END.len());
    let rest = &pem[end..];
    &pem[..end + rest.len().min(rest.find(|c: char| !c.is_whitespace()).unwrap_or(rest.len()))]
}

/// The lifetime and public key of a certificate.
struct Validity {
    begins: Timestamp,
    ends: Timestamp,
    public_key: Vec<u8>,
}

impl Validity {
    /// Parses the first certificate of a PEM.
    fn of(pem: &str) -> Option<Self> {
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
        let (_, certificate) = X509Certificate::from_der(&der).ok()?;
        let validity = certificate.validity();
        Some(Self {
            begins: Timestamp::from_second(validity.not_before.timestamp()).ok()?,
            ends: Timestamp::from_second(validity.not_after.timestamp()).ok()?,
            public_key: certificate.public_key().subject_public_key.data.to_vec(),
        })
    }

    /// When to renew it: after two thirds of its lifetime.
    fn due(&self) -> Timestamp {
        let life = self.ends.duration_since(self.begins);
        self.begins.saturating_add(life * 2 / 3).unwrap_or(self.ends)
    }
}

fn authority(now: Timestamp) -> Result<(String, String), BundleError> {
    let mut params = lifetime(now, AUTHORITY_LIFETIME)?;
    // The time makes the name unique: a client that trusts two authorities tells them apart by name.
    params.distinguished_name.push(DnType::CommonName, format!("berth webhook {}", now.as_second()));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate()?;
    Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
}

fn issue(ca_crt: &str, ca_key: &str, names: &[String], now: Timestamp) -> Result<(String, String), BundleError> {
    let issuer = Issuer::from_ca_cert_pem(ca_crt, KeyPair::from_pem(ca_key)?)?;
    let mut params = lifetime(now, CERTIFICATE_LIFETIME)?;
    params.subject_alt_names = CertificateParams::new(names.to_vec())?.subject_alt_names;
    params.distinguished_name.push(DnType::CommonName, "berth webhook");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    Ok((params.signed_by(&key, &issuer)?.pem(), key.serialize_pem()))
}

/// Parameters of a certificate that set nothing but its lifetime.
fn lifetime(now: Timestamp, life: SignedDuration) -> Result<CertificateParams, BundleError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let since = |at: Timestamp| Duration::from_secs(at.as_second().unsigned_abs());
    params.not_before = epoch + since(now.checked_sub(CLOCK_SKEW)?);
    params.not_after = epoch + since(now.checked_add(life)?);
    Ok(params)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Vec<String> {
        vec!["webhook.berth-system.svc".to_owned()]
    }

    fn start() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    fn days(days: i64) -> Timestamp {
        start() + SignedDuration::from_hours(24 * days)
    }

    #[test]
    fn a_new_bundle_is_trusted_and_needs_no_renewal_for_two_thirds_of_its_lifetime() {
        let bundle = Bundle::generate(&names(), start()).unwrap();
        assert!(bundle.is_trusted(&names(), start()));
        assert!(!bundle.is_trusted(&names(), days(91)), "it has expired");
        let Renewal::At(due) = bundle.renewal(&names(), start()) else { panic!("nothing is due") };
        assert!(days(59) < due && due <= days(60), "{due}");
        assert_eq!(bundle.renewal(&names(), days(60)), Renewal::Certificate);
        assert_eq!(Bundle::from_data(&bundle.to_data()).unwrap(), bundle);
    }

    #[test]
    fn a_renewed_certificate_keeps_its_authority() {
        let old = Bundle::generate(&names(), start()).unwrap();
        let new = old.renewed(Renewal::Certificate, &names(), days(60)).unwrap();
        assert_eq!(new.ca_crt, old.ca_crt);
        assert_ne!(new.tls_crt, old.tls_crt);
        assert!(new.is_trusted(&names(), days(149)));
    }

    #[test]
    fn the_certificate_stays_trusted_while_authorities_are_renewed() {
        let mut bundle = Bundle::generate(&names(), start()).unwrap();
        let mut authorities = 1;
        // Apiservers load a new bundle with a delay, so they still trust the one before it.
        let mut trusted = bundle.ca_crt.clone();
        let mut now = start();
        while now < days(365 * 25) {
            match bundle.renewal(&names(), now) {
                Renewal::At(due) => {
                    assert!(due > now, "{due} {now}");
                    now = due;
                }
                renewal => {
                    assert_ne!(renewal, Renewal::Everything, "{now}");
                    authorities += u32::from(renewal == Renewal::Authority);
                    bundle = bundle.renewed(renewal, &names(), now).unwrap();
                    assert!(Bundle { ca_crt: trusted, ..bundle.clone() }.is_trusted(&names(), now), "{now}");
                    trusted = bundle.ca_crt.clone();
                }
            }
            assert!(bundle.is_trusted(&names(), now), "{now}");
            assert!(bundle.ca_crt.matches("BEGIN").count() <= 2, "at most two authorities are trusted");
        }
        assert!(authorities >= 3, "{authorities}");
    }

    #[test]
    fn unusable_parts_are_renewed() {
        let bundle = Bundle::generate(&names(), start()).unwrap();
        let other = Bundle::generate(&names(), start()).unwrap();
        let wrong_key = Bundle { tls_key: other.tls_key.clone(), ..bundle.clone() };
        let from_other_authority =
            Bundle { tls_key: other.tls_key.clone(), tls_crt: other.tls_crt.clone(), ..bundle.clone() };
        let not_pem = Bundle { tls_crt: "x".into(), ..bundle.clone() };
        for broken in [wrong_key, from_other_authority, not_pem] {
            assert_eq!(broken.renewal(&names(), start()), Renewal::Certificate);
        }
        let no_authority = Bundle { ca_crt: "x".into(), ..bundle.clone() };
        let wrong_authority = Bundle { ca_key: other.ca_key.clone(), ..bundle.clone() };
        for broken in [no_authority, wrong_authority] {
            assert_eq!(broken.renewal(&names(), start()), Renewal::Everything);
        }
        assert_eq!(bundle.renewal(&names(), days(365 * 11)), Renewal::Everything, "the authority has expired");
        let other_names = ["another.svc".to_owned()];
        assert_eq!(bundle.renewal(&other_names, start()), Renewal::Certificate, "issued for another name");
        assert!(matches!(Bundle::from_data(&BTreeMap::new()), Err(BundleError::Missing("ca.crt"))));
    }
}
