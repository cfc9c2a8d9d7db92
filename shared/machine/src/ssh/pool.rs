//! Connections that are kept for the next command on the same machine.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use russh::{
    Channel,
    client::{Handle, Msg},
};
use tokio::time::{self, Instant};

use super::{
    config::PoolConfig,
    key::ClientKey,
    login::{self, PinnedKey},
    target::SshTarget,
};
use crate::error::{MachineError, Result, SshPhase};

/// An authenticated connection.
pub(super) type SshConnection = Handle<PinnedKey>;

/// Opens connections to machines and keeps unused ones for a while. Clones share the connections.
#[derive(Clone)]
pub struct SshPool(Arc<PoolInner>);

struct PoolInner {
    key: ClientKey,
    config: PoolConfig,
    idle: Mutex<IdleConnections>,
}

#[derive(Default)]
struct IdleConnections {
    /// The unused connections of each target with the time since when they are unused, oldest first.
    by_target: HashMap<SshTarget, Vec<(Instant, SshConnection)>>,
    /// Whether a task runs that closes connections which stay unused.
    has_cleaner: bool,
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
        Self(Arc::new(PoolInner { key, config, idle: Mutex::default() }))
    }

    /// How many unused connections are open.
    #[must_use]
    pub fn idle_connections(&self) -> usize {
        self.0.idle.lock().count()
    }

    /// Closes the unused connections to `target`, for a machine that hangs or is gone.
    pub fn forget(&self, target: &SshTarget) {
        self.0.idle.lock().by_target.remove(target);
    }

    /// A session for one command: over a kept connection if one still works, else over a new one.
    pub(super) async fn session(&self, target: &SshTarget) -> Result<(SshConnection, Channel<Msg>)> {
        if let Some(connection) = self.0.take(target) {
            // No command was sent yet, so a second attempt over a new connection is safe. After a timeout there is none:
            // the machine hangs, and the caller should not wait twice.
            match self.open(&connection, target).await {
                Ok(channel) => return Ok((connection, channel)),
                Err(error @ MachineError::Timeout { .. }) => return Err(error),
                Err(error) => tracing::debug!(%error, "a kept connection no longer works"),
            }
        }
        let connection = login::login(target, &self.0.key, &self.0.config).await?;
        let channel = self.open(&connection, target).await?;
        Ok((connection, channel))
    }

    async fn open(&self, connection: &SshConnection, target: &SshTarget) -> Result<Channel<Msg>> {
        let (address, limit) = (target.endpoint(), self.0.config.connect_timeout);
        match time::timeout(limit, connection.channel_open_session()).await {
            Ok(Ok(channel)) => Ok(channel),
            Ok(Err(error)) => Err(MachineError::Ssh { address, reason: format!("no session was opened: {error}") }),
            Err(_) => Err(MachineError::Timeout { address, phase: SshPhase::Session, after: limit }),
        }
    }

    /// Keeps a connection for the next command.
    pub(super) fn give_back(&self, target: &SshTarget, connection: SshConnection) {
        let mut idle = self.0.idle.lock();
        idle.by_target.entry(target.clone()).or_default().push((Instant::now(), connection));
        idle.shrink_to(self.0.config.max_idle);
        if !std::mem::replace(&mut idle.has_cleaner, true) {
            tokio::spawn(close_unused(Arc::downgrade(&self.0), self.0.config.idle));
        }
    }
}

impl PoolInner {
    fn take(&self, target: &SshTarget) -> Option<SshConnection> {
        let mut idle = self.idle.lock();
        let kept = idle.by_target.get_mut(target)?;
        let found = std::iter::from_fn(|| kept.pop()).find(|(_, connection)| !connection.is_closed());
        if kept.is_empty() {
            idle.by_target.remove(target);
        }
        found.map(|(_, connection)| connection)
    }
}

impl IdleConnections {
    fn count(&self) -> usize {
        self.by_target.values().map(Vec::len).sum()
    }

    /// Closes the connections that were unused the longest until at most `most` are left.
    fn shrink_to(&mut self, most: usize) {
        while self.count() > most {
            let since = |kept: &Vec<(Instant, SshConnection)>| kept.first().map(|(since, _)| *since);
            let oldest = self.by_target.iter().min_by_key(|(_, kept)| since(kept)).map(|(target, _)| target.clone());
            let Some(kept) = oldest.as_ref().and_then(|target| self.by_target.get_mut(target)) else { return };
            kept.remove(0);
            self.by_target.retain(|_, kept| !kept.is_empty());
        }
    }

    /// Closes the connections that were unused for longer than `limit`.
    fn expire(&mut self, limit: Duration) {
        self.by_target.retain(|_, kept| {
            kept.retain(|(since, connection)| since.elapsed() < limit && !connection.is_closed());
            !kept.is_empty()
        });
    }
}

/// Closes connections that stay unused. Ends when the pool is dropped or has no unused connection left.
async fn close_unused(pool: Weak<PoolInner>, limit: Duration) {
    loop {
        // So a connection outlives its limit by at most a quarter.
        time::sleep(limit / 4).await;
        let Some(pool) = pool.upgrade() else { return };
        let mut idle = pool.idle.lock();
        idle.expire(limit);
        if idle.by_target.is_empty() {
            idle.has_cleaner = false;
            return;
        }
    }
}
