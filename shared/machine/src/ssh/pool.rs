//! Connections that are kept for the next command on the same machine.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use russh::{Channel, client::Handle, client::Msg};
use tokio::time::{self, Instant};

use super::{ClientKey, SshMachine, SshTarget, connect};
use crate::{Error, Phase, Result};

/// A connection that is logged in.
pub(super) type Connection = Handle<connect::PinnedKey>;

/// Limits of a pool.
#[derive(Clone, Debug)]
pub struct PoolConfig {
    /// Limit for the TCP connection, for the handshake, and for opening a session, each.
    pub connect_timeout: Duration,
    /// Limit for the authentication.
    pub auth_timeout: Duration,
    /// An unused connection is closed after this.
    pub idle: Duration,
    /// Never more unused connections than this, over all machines; the longest unused ones are closed first.
    pub max_idle: usize,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            auth_timeout: Duration::from_secs(10),
            idle: Duration::from_mins(1),
            max_idle: 64,
        }
    }
}

/// Opens connections to machines and keeps unused ones for a while. Clones share the connections.
#[derive(Clone)]
pub struct SshPool(Arc<Inner>);

struct Inner {
    key: ClientKey,
    config: PoolConfig,
    idle: Mutex<Idle>,
}

#[derive(Default)]
struct Idle {
    connections: HashMap<SshTarget, Vec<(Instant, Connection)>>,
    swept: bool,
}

impl std::fmt::Debug for SshPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SshPool").field("key", &self.0.key).field("config", &self.0.config).finish_non_exhaustive()
    }
}

impl SshPool {
    /// A pool that logs in with `key`.
    #[must_use]
    pub fn new(key: ClientKey, config: PoolConfig) -> Self {
        Self(Arc::new(Inner { key, config, idle: Mutex::default() }))
    }

    /// The machine at `target`, over this pool.
    #[must_use]
    pub fn machine(&self, target: SshTarget) -> SshMachine {
        SshMachine::new(self, target)
    }

    /// How many unused connections are open.
    #[must_use]
    pub fn idle_connections(&self) -> usize {
        self.0.lock().connections.values().map(Vec::len).sum()
    }

    /// Closes the unused connections to `target`, for a machine that is gone.
    pub fn forget(&self, target: &SshTarget) {
        self.0.lock().connections.remove(target);
    }

    /// A session for one command: over a kept connection if one still works, else over a new one.
    pub(super) async fn session(&self, target: &SshTarget) -> Result<(Connection, Channel<Msg>)> {
        if let Some(connection) = self.0.take(target) {
            // No command has been sent yet, so that trying anew is safe. Only a machine that hangs is not tried again.
            match self.open(&connection, target).await {
                Ok(channel) => return Ok((connection, channel)),
                Err(error @ Error::Timeout { .. }) => return Err(error),
                Err(error) => tracing::debug!(%error, "a kept connection is of no use any more"),
            }
        }
        let connection = connect::connect(target, &self.0.key, &self.0.config).await?;
        let channel = self.open(&connection, target).await?;
        Ok((connection, channel))
    }

    async fn open(&self, connection: &Connection, target: &SshTarget) -> Result<Channel<Msg>> {
        let (address, limit) = (target.endpoint(), self.0.config.connect_timeout);
        match time::timeout(limit, connection.channel_open_session()).await {
            Ok(Ok(channel)) => Ok(channel),
            Ok(Err(error)) => Err(Error::Ssh { address, reason: format!("no session was opened: {error}") }),
            Err(_) => Err(Error::Timeout { address, phase: Phase::Session, after: limit }),
        }
    }

    /// Keeps a connection for the next command.
    pub(super) fn give_back(&self, target: &SshTarget, connection: Connection) {
        let mut idle = self.0.lock();
        idle.connections.entry(target.clone()).or_default().push((Instant::now(), connection));
        idle.shrink_to(self.0.config.max_idle);
        if !std::mem::replace(&mut idle.swept, true) {
            tokio::spawn(sweep(Arc::downgrade(&self.0), self.0.config.idle));
        }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Idle> {
        // Nothing under the lock can leave it half-changed.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, target: &SshTarget) -> Option<Connection> {
        let mut idle = self.lock();
        let kept = idle.connections.get_mut(target)?;
        let found = std::iter::from_fn(|| kept.pop()).find(|(_, connection)| !connection.is_closed());
        if kept.is_empty() {
            idle.connections.remove(target);
        }
        found.map(|(_, connection)| connection)
    }
}

impl Idle {
    fn shrink_to(&mut self, most: usize) {
        while self.connections.values().map(Vec::len).sum::<usize>() > most {
            let since = |kept: &Vec<(Instant, Connection)>| kept.first().map(|(since, _)| *since);
            let oldest = self.connections.iter().min_by_key(|(_, kept)| since(kept)).map(|(target, _)| target.clone());
            let Some(kept) = oldest.as_ref().and_then(|target| self.connections.get_mut(target)) else { return };
            kept.remove(0);
            self.connections.retain(|_, kept| !kept.is_empty());
        }
    }

    fn expire(&mut self, limit: Duration) {
        self.connections.retain(|_, kept| {
            kept.retain(|(since, connection)| since.elapsed() < limit && !connection.is_closed());
            !kept.is_empty()
        });
    }
}

/// Closes what stays unused, and ends with the pool or with its last unused connection.
async fn sweep(pool: Weak<Inner>, limit: Duration) {
    loop {
        time::sleep(limit / 4).await;
        let Some(pool) = pool.upgrade() else { return };
        let mut idle = pool.lock();
        idle.expire(limit);
        if idle.connections.is_empty() {
            idle.swept = false;
            return;
        }
    }
}
