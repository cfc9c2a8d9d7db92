//! A machine behind SSH.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt as _};

use super::{exec, pool::SshPool, target::SshTarget};
use crate::{
    error::{MachineError, Result, SshPhase},
    machine::{Machine, Output},
};

/// A machine behind SSH. Cheap to create and to clone: the connections belong to its pool.
#[derive(Clone, Debug)]
pub struct SshMachine {
    pool: SshPool,
    target: Arc<SshTarget>,
}

impl SshMachine {
    /// The machine at `target`, over the connections of `pool`. Does not connect yet.
    #[must_use]
    pub fn new(pool: &SshPool, target: SshTarget) -> Self {
        Self { pool: pool.clone(), target: Arc::new(target) }
    }

    async fn exec_once(&self, script: &str, stdin: Option<Bytes>) -> Result<Output> {
        let (connection, channel) = self.pool.session(&self.target).await?;
        let output = exec::run(channel, &self.target.endpoint(), script, stdin).await?;
        // After an error the connection is dropped instead, which closes it.
        self.pool.give_back(&self.target, connection);
        Ok(output)
    }
}

impl Machine for SshMachine {
    fn exec<'a>(&'a self, script: &'a str, stdin: Option<Bytes>, timeout: Duration) -> BoxFuture<'a, Result<Output>> {
        async move {
            // A timeout drops the connection. SSH servers let a command run on then: operations end themselves.
            tokio::time::timeout(timeout, self.exec_once(script, stdin)).await.unwrap_or_else(|_| {
                let address = self.target.endpoint();
                Err(MachineError::Timeout { address, phase: SshPhase::Command, after: timeout })
            })
        }
        .boxed()
    }
}

impl SshPool {
    /// The machine at `target`, over the connections of this pool.
    #[must_use]
    pub fn machine(&self, target: SshTarget) -> SshMachine {
        SshMachine::new(self, target)
    }
}
