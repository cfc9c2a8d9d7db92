//! An EDS server that can be killed with all its connections.

use std::{net::SocketAddr, thread::JoinHandle};

use axum::Router;
use tokio::{net::TcpListener, sync::oneshot};

/// A server on a thread and a runtime of its own: what runs there ends with it at once, as in a process that is killed.
pub(crate) struct EdsServer {
    address: SocketAddr,
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl EdsServer {
    /// Serves these routes, at the address that an earlier server had if one is given.
    pub(crate) fn start(router: Router, address: Option<SocketAddr>) -> Self {
        // No outgoing connection uses this address, so nothing takes the port while a server is away.
        let wanted = address.unwrap_or_else(|| ([127, 0, 1, 100], 0).into());
        let (kill, killed) = oneshot::channel::<()>();
        let (bound, address) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::bind(wanted).await.unwrap();
                bound.send(listener.local_addr().unwrap()).unwrap();
                tokio::select! {
                    biased;
                    _ = killed => (),
                    ended = axum::serve(listener, router) => ended.unwrap(),
                }
            });
        });
        Self { address: address.recv().unwrap(), running: Some((kill, thread)) }
    }

    /// Where it is.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it in the middle of whatever it does.
    pub(crate) fn kill(&mut self) {
        if let Some((kill, thread)) = self.running.take() {
            let _ = kill.send(());
            thread.join().unwrap();
        }
    }
}

impl Drop for EdsServer {
    fn drop(&mut self) {
        self.kill();
    }
}
