//! What connects a copy of a program with the rest of the world, and what may happen to that: the copy ends, hangs, or loses its
//! way to the API server.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::body::Bytes;
use berth_core::api::Server;
use berth_machine::{Connector, Machine, MachineConnection, NotConnectable, Output};
use futures::future::{BoxFuture, FutureExt as _};
use monitor_controller::probe::{ProbeClient, ProbeResult, ProbeTarget};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// The state of a copy's connections. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Link {
    state: Arc<Mutex<State>>,
    /// Wakes those who wait, in the order in which they came.
    changed: Arc<Notify>,
    /// Whether the copy has lost its way to all machines.
    is_blind: Arc<AtomicBool>,
}

#[derive(Clone, Copy, Default)]
struct State {
    has_ended: bool,
    hangs: bool,
    is_parted: bool,
}

impl Link {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Nothing passes any more.
    pub(crate) fn end(&self) {
        self.change(|state| state.has_ended = true);
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.state.lock().has_ended
    }

    /// Nothing passes while it hangs. What the copy sends in the meantime leaves it when it goes on.
    pub(crate) fn set_hanging(&self, hangs: bool) {
        self.change(|state| state.hangs = hangs);
    }

    /// Nothing passes between the copy and the API server while they are parted.
    pub(crate) fn set_parted(&self, is_parted: bool) {
        self.change(|state| state.is_parted = is_parted);
    }

    pub(crate) fn is_parted(&self) -> bool {
        self.state.lock().is_parted
    }

    /// Everything passes again.
    pub(crate) fn recover(&self) {
        self.set_blind(false);
        self.change(|state| *state = State { has_ended: state.has_ended, ..State::default() });
    }

    pub(crate) fn is_blind(&self) -> Arc<AtomicBool> {
        self.is_blind.clone()
    }

    pub(crate) fn set_blind(&self, is_blind: bool) {
        self.is_blind.store(is_blind, Ordering::Relaxed);
    }

    /// Whether what the copy sends now is held until it goes on.
    pub(crate) fn hangs(&self) -> bool {
        self.state.lock().hangs
    }

    /// Waits while the copy hangs. Never returns once it has ended.
    pub(crate) async fn pass(&self) {
        self.wait(|state| !state.hangs).await;
    }

    /// Waits until something passes between the copy and the API server. Never returns once the copy has ended.
    pub(crate) async fn pass_to_api(&self) {
        self.wait(|state| !state.hangs && !state.is_parted).await;
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock());
        self.changed.notify_waiters();
    }

    async fn wait(&self, is_open: impl Fn(&State) -> bool) {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            let state = *self.state.lock();
            if !state.has_ended && is_open(&state) {
                return;
            }
            changed.await;
        }
    }
}

/// Reaches machines as long as the copy lives and does not hang.
pub(crate) struct LinkedConnector {
    pub(crate) inner: Arc<dyn Connector>,
    pub(crate) link: Link,
}

impl Connector for LinkedConnector {
    fn connect(&self, server: &Server) -> Result<MachineConnection, NotConnectable> {
        let connection = self.inner.connect(server)?;
        let machine = LinkedMachine { inner: connection.machine, link: self.link.clone() };
        Ok(MachineConnection { machine: Arc::new(machine), root: connection.root })
    }

    fn sees_application(&self, server: &Server) -> bool {
        self.inner.sees_application(server)
    }

    fn forget(&self, server: &Server) {
        self.inner.forget(server);
    }
}

struct LinkedMachine {
    inner: Arc<dyn Machine>,
    link: Link,
}

impl Machine for LinkedMachine {
    fn exec<'a>(
        &'a self,
        script: &'a str,
        parameters: Option<Bytes>,
        timeout: Duration,
    ) -> BoxFuture<'a, berth_machine::Result<Output>> {
        async move {
            self.link.pass().await;
            let result = self.inner.exec(script, parameters, timeout).await;
            self.link.pass().await;
            result
        }
        .boxed()
    }
}

/// Probes as long as the copy lives and does not hang.
pub(crate) struct LinkedProbes<P> {
    pub(crate) inner: P,
    pub(crate) link: Link,
}

impl<P: ProbeClient> ProbeClient for LinkedProbes<P> {
    fn probe<'a>(&'a self, target: &'a ProbeTarget) -> BoxFuture<'a, ProbeResult> {
        async move {
            self.link.pass().await;
            let result = self.inner.probe(target).await;
            self.link.pass().await;
            result
        }
        .boxed()
    }
}
