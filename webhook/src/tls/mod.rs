//! The certificate that the webhook serves with: from files, or from a Secret with an authority of its own. A new
//! certificate applies to new connections; open connections keep the one that they started with. And which clients it serves.

mod authority;
mod clients;
mod config;
mod files;
mod registration;
mod secret;

pub use authority::{Bundle, BundleError, Renewal};
pub use clients::{ClientAuthority, ClientVerifier};
pub use config::{CertificateError, reloadable_config};
pub use files::CertificateFiles;
pub use secret::SecretSource;
