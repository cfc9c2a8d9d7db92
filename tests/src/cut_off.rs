//! A copy of a program that is cut off from the machines: it runs in a network namespace of its own.
//!
//! A socket belongs to the namespace in which it was opened. So this process opens sockets inside, and forwards what comes there
//! to the same address outside. Nothing is left behind: the namespace ends with the program and the sockets.

use std::{
    collections::BTreeMap,
    fs::File,
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};
use berth_control_plane::Launch;
use nix::sched::{CloneFlags, setns};
use parking_lot::Mutex;
use tokio::{io::copy_bidirectional, task::JoinSet};

use crate::{part::Instance, wait::eventually};

/// Time until the program is in its namespace.
const ENTER_TIMEOUT: Duration = Duration::from_secs(20);

/// A copy of a program in a network of its own. It is reached, and reaches the API server; everything else has to be opened.
#[derive(Debug)]
pub struct CutOff {
    instance: Instance,
    namespace: Arc<File>,
    /// The ways that are open, by address: each is closed when its tasks are dropped.
    ways: Mutex<BTreeMap<SocketAddr, JoinSet<()>>>,
}

impl CutOff {
    /// The same program in a new network namespace, in which only loopback works.
    pub(crate) fn launch(launch: Launch) -> Launch {
        let script = "ip link set lo up && exec \"$@\"";
        launch.started_by("/usr/bin/unshare", ["--net", "--", "/bin/sh", "-c", script, "cut-off"])
    }

    /// Waits until the program is in its namespace, and opens the ways to the API server and to the program's own pages.
    pub(crate) async fn enter(instance: Instance, api_server: SocketAddr) -> Result<Self> {
        let path = Path::new("/proc").join(instance.process.pid().to_string()).join("ns/net");
        let ours = std::fs::read_link("/proc/self/ns/net").context("read the network namespace of this process")?;
        let namespace = eventually("a network namespace of its own", ENTER_TIMEOUT, async || {
            let theirs = std::fs::read_link(&path).map_err(|error| error.to_string())?;
            if theirs == ours {
                return Err(format!("still in {}; {}", ours.display(), instance.process.log_tail()));
            }
            File::open(&path).map_err(|error| error.to_string())
        });
        let (http, namespace) = (instance.http, Arc::new(namespace.await?));
        let cut_off = Self { instance, namespace, ways: Mutex::default() };
        cut_off.open(api_server)?;
        cut_off.open_inwards(http)?;
        Ok(cut_off)
    }

    /// The process.
    #[must_use]
    pub fn instance(&self) -> &Instance {
        &self.instance
    }

    /// Opens a way: from now on the program reaches this address.
    ///
    /// # Errors
    /// When something listens there inside already.
    pub fn open(&self, address: SocketAddr) -> Result<()> {
        let listener = inside(&self.namespace, || TcpListener::bind(address))?
            .with_context(|| format!("listen on {address} in the namespace"))?;
        self.forward(address, listener, move || TcpStream::connect(address))
    }

    /// Closes a way: from now on the program is refused there.
    pub fn close(&self, address: SocketAddr) {
        self.ways.lock().remove(&address);
    }

    /// Opens the way from this process to an address of the program.
    fn open_inwards(&self, address: SocketAddr) -> Result<()> {
        let listener = TcpListener::bind(address).with_context(|| format!("listen on {address}"))?;
        let namespace = Arc::clone(&self.namespace);
        self.forward(address, listener, move || {
            inside(&namespace, || TcpStream::connect(address)).map_err(std::io::Error::other)?
        })
    }

    fn forward(
        &self,
        address: SocketAddr,
        listener: TcpListener,
        connect: impl Fn() -> std::io::Result<TcpStream> + Clone + Send + 'static,
    ) -> Result<()> {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let mut way = JoinSet::new();
        way.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut from, _)) = listener.accept().await {
                let connect = connect.clone();
                connections.spawn(async move {
                    // A connection that cannot be made on the other side is closed, as by a machine that refuses it.
                    let Ok(Ok(to)) = tokio::task::spawn_blocking(connect).await else { return };
                    if to.set_nonblocking(true).is_ok()
                        && let Ok(mut to) = tokio::net::TcpStream::from_std(to)
                    {
                        let _ = copy_bidirectional(&mut from, &mut to).await;
                    }
                });
                while connections.try_join_next().is_some() {}
            }
        });
        self.ways.lock().insert(address, way);
        Ok(())
    }
}

/// Runs this on a thread in the namespace.
fn inside<T: Send>(namespace: &File, work: impl FnOnce() -> T + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            setns(namespace, CloneFlags::CLONE_NEWNET).context("enter the network namespace")?;
            Ok(work())
        });
        thread.join().map_err(|_| anyhow!("a thread in the network namespace panicked"))?
    })
}
