//! Follows the Servers and the roll-out, and shows them.

use std::{
    pin::Pin,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use berth_core::api::{Server, VMDeployment, VMDeploymentStatus};
use berth_tests::Berth;
use futures::{Stream, TryStreamExt as _};
use kube::{
    Api,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event},
    },
};

use crate::progress::{Board, Servers};

/// How often a terminal is redrawn without events, so that the seconds advance.
const REDRAW: Duration = Duration::from_millis(250);

type Events = Pin<Box<dyn Stream<Item = watcher::Result<Event<Server>>> + Send>>;

/// What is known of the Servers and the VMDeployment `web`, and where it is shown.
pub(crate) struct Screen {
    begin: Instant,
    deployments: Api<VMDeployment>,
    events: Events,
    servers: Servers,
    board: Board,
}

impl Screen {
    /// Follows this Berth. `begin`: the time that stages are counted from.
    pub(crate) fn new(berth: &Berth, begin: Instant) -> Self {
        Self {
            begin,
            deployments: Api::default_namespaced(berth.client()),
            events: Box::pin(
                kube::runtime::watcher(berth.servers("default"), watcher::Config::default()).default_backoff(),
            ),
            servers: Servers::default(),
            board: Board::new(),
        }
    }

    /// Shows what happens until this holds for the Servers and the status of the VMDeployment. Returns that status.
    pub(crate) async fn until(
        &mut self,
        what: &str,
        limit: Duration,
        holds: impl Fn(&Servers, &VMDeploymentStatus) -> bool,
    ) -> Result<VMDeploymentStatus> {
        let mut redraw = tokio::time::interval(REDRAW);
        let deadline = Instant::now() + limit;
        loop {
            tokio::select! {
                event = self.events.try_next() => {
                    self.servers.observe(event?.context("the watch of Servers ended")?);
                    continue;
                }
                _ = redraw.tick() => {}
            }
            let status = self.deployments.get("web").await?.status.unwrap_or_default();
            self.board.set_rollout(status.waiting_for.clone());
            self.board.show(&self.servers);
            if holds(&self.servers, &status) {
                self.board.leave();
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("{what}: not within {} s; {:?}", limit.as_secs(), status.waiting_for);
            }
        }
    }

    /// Says what has been reached, and when.
    pub(crate) fn stage(&self, text: &str) {
        println!("[{:5.1} s] {text}", self.begin.elapsed().as_secs_f32());
    }

    /// The Servers, ordered by name.
    pub(crate) fn list(&self) -> Vec<Server> {
        self.servers.iter().cloned().collect()
    }

    /// How many Servers the VMDeployment declares.
    pub(crate) async fn replicas(&self) -> Result<usize> {
        Ok(usize::try_from(self.deployments.get("web").await?.spec.replicas)?)
    }

    /// Shows changes, one line each, for ever.
    pub(crate) async fn show_changes(mut self) -> Result<()> {
        self.board.only_changes(&self.servers);
        loop {
            self.servers.observe(self.events.try_next().await?.context("the watch of Servers ended")?);
            self.board.show(&self.servers);
        }
    }
}
