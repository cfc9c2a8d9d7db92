//! One connection: TCP, handshake with the pinned key, authentication.

use std::{borrow::Cow, future::Future, sync::Arc, time::Duration};

use russh::{
    Preferred,
    client::{self, Handle},
    keys::{HashAlg, PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate},
};
use tokio::{net::TcpStream, time};

use super::{ClientKey, SshTarget, pool::PoolConfig};
use crate::{Error, Phase, Result};

/// How long the kernel and the peer may be silent on an idle or working connection before it counts as dead.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// Accepts the pinned host key and nothing else.
pub(super) struct PinnedKey {
    expected: PublicKey,
}

#[derive(Debug)]
pub(super) enum HandlerError {
    Mismatch { actual: String },
    Ssh(russh::Error),
}

impl From<russh::Error> for HandlerError {
    fn from(error: russh::Error) -> Self {
        Self::Ssh(error)
    }
}

impl client::Handler for PinnedKey {
    type Error = HandlerError;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        let key = shown.public_key();
        // A certificate proves another thing than the pinned key, even over the same key pair.
        if shown.certificate().is_none() && key.key_data() == self.expected.key_data() {
            return Ok(true);
        }
        Err(HandlerError::Mismatch { actual: fingerprint(&key) })
    }
}

fn fingerprint(key: &PublicKey) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}

async fn within<T>(
    limit: Duration,
    phase: Phase,
    address: &str,
    work: impl Future<Output = Result<T>> + Send,
) -> Result<T> {
    time::timeout(limit, work)
        .await
        .unwrap_or_else(|_| Err(Error::Timeout { address: address.to_owned(), phase, after: limit }))
}

/// Connects and logs in, or says what kept it from that.
pub(super) async fn connect(target: &SshTarget, key: &ClientKey, limits: &PoolConfig) -> Result<Handle<PinnedKey>> {
    let address = target.endpoint();
    let expected = target.pinned()?;
    let stream = tcp(target, &address, limits.connect_timeout).await?;
    let mut handle =
        within(limits.connect_timeout, Phase::Handshake, &address, handshake(&address, expected, stream)).await?;
    within(limits.auth_timeout, Phase::Authentication, &address, authenticate(&mut handle, target, key, &address))
        .await?;
    Ok(handle)
}

async fn tcp(target: &SshTarget, address: &str, limit: Duration) -> Result<TcpStream> {
    let unreachable = |reason: String| Error::Unreachable { address: address.to_owned(), reason };
    let stream = time::timeout(limit, TcpStream::connect((target.address.as_str(), target.port)))
        .await
        .map_err(|_| unreachable(format!("no answer within {limit:?}")))?
        .map_err(|error| unreachable(error.to_string()))?;
    stream.set_nodelay(true).map_err(|error| unreachable(error.to_string()))?;
    Ok(stream)
}

async fn handshake(address: &str, expected: PublicKey, stream: TcpStream) -> Result<Handle<PinnedKey>> {
    let address = address.to_owned();
    let pinned = fingerprint(&expected);
    client::connect_stream(client_config(&expected), stream, PinnedKey { expected }).await.map_err(
        |error| match error {
            HandlerError::Mismatch { actual } => Error::HostKeyMismatch { address, expected: pinned, actual },
            // A server that goes away before the session stands is a machine that is going down or coming up.
            HandlerError::Ssh(error @ (russh::Error::HUP | russh::Error::Disconnect | russh::Error::IO(_))) => {
                Error::Unreachable { address, reason: format!("the handshake broke off: {error}") }
            }
            HandlerError::Ssh(error) => Error::Ssh { address, reason: error.to_string() },
        },
    )
}

fn client_config(expected: &PublicKey) -> Arc<client::Config> {
    let mut preferred = Preferred::DEFAULT;
    // The pinned key's kind first: a server with several keys then shows the one that was pinned.
    let wanted = expected.algorithm();
    let others = preferred.key.iter().filter(|kind| **kind != wanted).cloned();
    preferred.key = Cow::Owned(std::iter::once(wanted.clone()).chain(others).collect());
    Arc::new(client::Config {
        preferred,
        keepalive_interval: Some(KEEPALIVE),
        keepalive_max: 2,
        nodelay: true,
        ..client::Config::default()
    })
}

async fn authenticate(
    handle: &mut Handle<PinnedKey>,
    target: &SshTarget,
    key: &ClientKey,
    address: &str,
) -> Result<()> {
    let key = PrivateKeyWithHashAlg::new(Arc::clone(&key.0), None);
    let answer = handle
        .authenticate_publickey(target.user.as_str(), key)
        .await
        .map_err(|error| Error::Ssh { address: address.to_owned(), reason: error.to_string() })?;
    if answer.success() {
        return Ok(());
    }
    Err(Error::AuthRefused { address: address.to_owned(), user: target.user.clone() })
}
