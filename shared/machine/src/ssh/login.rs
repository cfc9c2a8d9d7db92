//! Opening a connection: TCP, handshake with the pinned host key, authentication.

use std::{borrow::Cow, future::Future, sync::Arc, time::Duration};

use russh::{
    Preferred,
    client::{self, Handle},
    keys::{HashAlg, PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate},
};
use tokio::{net::TcpStream, time};

use super::{config::PoolConfig, key::ClientKey, target::SshTarget};
use crate::error::{MachineError, Result, SshPhase};

/// How often an SSH server that is silent is asked for a sign of life. The connection counts as dead after three unanswered
/// requests: a long command on a machine that crashed then fails after 45 s instead of at its own limit.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// How many requests in a row may stay unanswered, so that a short network failure does not break a deployment.
const KEEPALIVE_MAX: usize = 2;

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
        // Only the plain key is accepted: a certificate is signed by an authority that Berth does not know, even if it is
        // for the same key pair.
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
    phase: SshPhase,
    address: &str,
    work: impl Future<Output = Result<T>> + Send,
) -> Result<T> {
    time::timeout(limit, work)
        .await
        .unwrap_or_else(|_| Err(MachineError::Timeout { address: address.to_owned(), phase, after: limit }))
}

/// Connects and authenticates.
pub(super) async fn login(target: &SshTarget, key: &ClientKey, limits: &PoolConfig) -> Result<Handle<PinnedKey>> {
    let address = target.endpoint();
    let expected = target.pinned()?;
    let stream = tcp(target, &address, limits.connect_timeout).await?;
    let mut handle =
        within(limits.connect_timeout, SshPhase::Handshake, &address, handshake(&address, expected, stream)).await?;
    within(limits.auth_timeout, SshPhase::Authentication, &address, authenticate(&mut handle, target, key, &address))
        .await?;
    Ok(handle)
}

async fn tcp(target: &SshTarget, address: &str, limit: Duration) -> Result<TcpStream> {
    let unreachable = |reason: String| MachineError::Unreachable { address: address.to_owned(), reason };
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
            HandlerError::Mismatch { actual } => MachineError::HostKeyMismatch { address, expected: pinned, actual },
            // An SSH server that closes the connection during the handshake belongs to a machine that is booting or shutting
            // down.
            HandlerError::Ssh(error @ (russh::Error::HUP | russh::Error::Disconnect | russh::Error::IO(_))) => {
                MachineError::Unreachable {
                    address,
                    reason: format!("the connection ended during the handshake: {error}"),
                }
            }
            HandlerError::Ssh(error) => MachineError::Ssh { address, reason: error.to_string() },
        },
    )
}

fn client_config(expected: &PublicKey) -> Arc<client::Config> {
    let mut preferred = Preferred::DEFAULT;
    // The pinned key's algorithm first, so that an SSH server with several host keys shows the pinned one.
    let wanted = expected.algorithm();
    let others = preferred.key.iter().filter(|kind| **kind != wanted).cloned();
    preferred.key = Cow::Owned(std::iter::once(wanted.clone()).chain(others).collect());
    Arc::new(client::Config {
        preferred,
        keepalive_interval: Some(KEEPALIVE),
        keepalive_max: KEEPALIVE_MAX,
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
    let key = PrivateKeyWithHashAlg::new(key.private(), None);
    let answer = handle
        .authenticate_publickey(target.user.as_str(), key)
        .await
        .map_err(|error| MachineError::Ssh { address: address.to_owned(), reason: error.to_string() })?;
    if answer.success() {
        return Ok(());
    }
    Err(MachineError::AuthRefused { address: address.to_owned(), user: target.user.clone() })
}
