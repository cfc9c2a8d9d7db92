//! Limits of a pool of connections.

use std::time::Duration;

/// Limits of a pool of connections.
#[derive(Clone, Debug)]
pub struct PoolConfig {
    /// Limit for each of: the TCP connection, the handshake, and opening a session.
    pub connect_timeout: Duration,
    /// Limit for the authentication.
    pub auth_timeout: Duration,
    /// An unused connection is closed after this time.
    pub idle: Duration,
    /// How many unused connections are kept, over all machines. Those that were unused the longest are closed first.
    pub max_idle: usize,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            // A machine that accepts no connection for this long counts as unreachable, and the task is retried.
            connect_timeout: Duration::from_secs(5),
            // Longer, because sshd may resolve names and run PAM modules before it answers.
            auth_timeout: Duration::from_secs(10),
            // The operations of one task, and often those of the next, follow each other more closely than this.
            idle: Duration::from_mins(1),
            // Each holds a socket open here and an sshd process on its machine.
            max_idle: 64,
        }
    }
}
