//! A real SSH server that a test starts on loopback, whichever program it is.

use std::{
    net::{TcpListener, TcpStream},
    process::Child,
    time::{Duration, Instant},
};

use berth_machine::ssh::{ClientKey, PoolConfig, SshMachine, SshPool, SshTarget};

/// Time limit for the server to listen.
const LIMIT: Duration = Duration::from_secs(20);

/// A running server. It ends when this is dropped.
pub(crate) struct SshServer {
    process: Child,
    pub(crate) target: SshTarget,
    pub(crate) pool: SshPool,
    folder: tempfile::TempDir,
}

impl SshServer {
    /// Waits until `process` listens at `target`. `client` is the key that it accepts, and `folder` holds its files.
    pub(crate) fn listening(process: Child, target: SshTarget, client: ClientKey, folder: tempfile::TempDir) -> Self {
        let server = Self { process, target, pool: SshPool::new(client, PoolConfig::default()), folder };
        let deadline = Instant::now() + LIMIT;
        while TcpStream::connect(("127.0.0.1", server.target.port)).is_err() {
            assert!(Instant::now() < deadline, "the SSH server does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        server
    }

    /// The machine that this server gives access to.
    pub(crate) fn machine(&self) -> SshMachine {
        self.pool.machine(self.target.clone())
    }

    /// A folder for Berth on that machine.
    pub(crate) fn root(&self) -> String {
        self.folder.path().join("berth").to_str().unwrap().to_owned()
    }
}

impl Drop for SshServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A port of loopback that nothing listens on.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
