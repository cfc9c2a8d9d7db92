//! One Service's changes, written together.
//!
//! Whoever has a change puts it on the list and queues for the pen. Who gets the pen waits a moment for others, writes everything
//! that is on the list, and answers all who asked. While that is under way the list fills up again, so a slice has at most one
//! write of this process in flight, and a thousand Servers that change at once cost few writes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use berth_core::api::Server;
use futures::future::try_join_all;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use tokio::sync::oneshot;

use super::{
    edit::{self, Round, Show, Want},
    store::{Store, Written},
    view::{ServiceKey, View},
};
use crate::{Now, balancer::BalancerError, plan};

/// Rounds after which changes are given up until the next reconcile: a tree of slices needs one a level, a conflict costs one more.
const ROUNDS: usize = 40;
/// Servers read at once.
const READS: usize = 16;

type Answer = oneshot::Sender<Result<(), Arc<BalancerError>>>;

/// The changes of one Service.
pub(crate) struct Queue {
    key: ServiceKey,
    store: Store,
    view: Arc<View>,
    now: Now,
    window: Duration,
    list: Mutex<Vec<(Want, Answer)>>,
    pen: tokio::sync::Mutex<()>,
}

impl Queue {
    pub(crate) fn new(key: ServiceKey, store: Store, view: Arc<View>, now: Now, window: Duration) -> Self {
        Self { key, store, view, now, window, list: Mutex::default(), pen: tokio::sync::Mutex::default() }
    }

    /// Returns when the Service shows what is wanted.
    pub(crate) async fn submit(&self, want: Want) -> Result<(), BalancerError> {
        let (answer, mut answered) = oneshot::channel();
        self.list.lock().unwrap_or_else(PoisonError::into_inner).push((want, answer));
        let _pen = self.pen.lock().await;
        if let Ok(result) = answered.try_recv() {
            return result.map_err(|error| shared(&error));
        }
        tokio::time::sleep(self.window).await;
        let list = std::mem::take(&mut *self.list.lock().unwrap_or_else(PoisonError::into_inner));
        self.write_all(list).await;
        match answered.try_recv() {
            Ok(result) => result.map_err(|error| shared(&error)),
            Err(_) => Err(BalancerError::Unavailable {
                what: format!("EndpointSlices of Service {}/{}", self.key.0, self.key.1),
                why: "whoever was writing them was interrupted".to_owned(),
            }),
        }
    }

    async fn write_all(&self, list: Vec<(Want, Answer)>) {
        let mut newest: BTreeMap<String, Want> = BTreeMap::new();
        for (want, _) in &list {
            let known = newest.entry(want.who.uid.clone()).or_insert_with(|| want.clone());
            if known.who.version <= want.who.version {
                let fence = known.fence || want.fence;
                *known = Want { fence, ..want.clone() };
            }
        }
        let results = self.results(&newest).await;
        for (want, answer) in list {
            let outdone = newest.get(&want.who.uid).is_some_and(|newest| newest.show != want.show);
            let result = match results.get(&want.who.uid) {
                Some(Err(error)) => Err(Arc::clone(error)),
                _ if outdone => Err(Arc::new(BalancerError::Superseded)),
                _ => Ok(()),
            };
            // Who no longer waits for the answer looks again later anyway.
            let _ = answer.send(result);
        }
    }

    /// What became of each Server's want. What is refused for all together is tried one by one, so that a Server with an
    /// impossible address stands in nobody else's way.
    async fn results(&self, wants: &BTreeMap<String, Want>) -> BTreeMap<String, Result<(), Arc<BalancerError>>> {
        let together = self.settle(wants.values().cloned().collect()).await;
        let mut results = BTreeMap::new();
        for (uid, want) in wants {
            let alone = match &together {
                Err(error) if matches!(**error, BalancerError::Refused { .. }) && wants.len() > 1 => {
                    &self.settle(vec![want.clone()]).await
                }
                outcome => outcome,
            };
            let result = match alone {
                Ok(superseded) if superseded.contains(uid) => Err(Arc::new(BalancerError::Superseded)),
                Ok(_) => Ok(()),
                Err(error) => Err(Arc::clone(error)),
            };
            results.insert(uid.clone(), result);
        }
        results
    }

    /// Writes until nothing is left to write. Returns the Servers whose want turned out to be out of date.
    async fn settle(&self, mut wants: Vec<Want>) -> Result<BTreeSet<String>, Arc<BalancerError>> {
        let mut superseded = BTreeSet::new();
        let mut adopted: Vec<Arc<EndpointSlice>> = Vec::new();
        for _ in 0..ROUNDS {
            let mut view = self.view.of(&self.key);
            view.append(&mut adopted);
            let round = edit::round(&self.key.0, &view, &wants);
            let mut stale = round.superseded.clone();
            stale.append(&mut self.refuted(&round, &wants).await?);
            if !stale.is_empty() {
                wants.retain(|want| !stale.contains(&want.who.uid));
                superseded.append(&mut stale);
                continue;
            }
            if round.writes.is_empty() {
                return Ok(superseded);
            }
            adopted = self.carry_out(round).await?;
        }
        Err(Arc::new(BalancerError::Unavailable {
            what: format!("EndpointSlices of Service {}/{}", self.key.0, self.key.1),
            why: "others keep changing them; will be tried again".to_owned(),
        }))
    }

    /// The writes of a round, as far as nobody else has changed a slice. Returns slices that have a name of ours but not our
    /// labels: somebody took those off, and they are put back.
    async fn carry_out(&self, round: Round) -> Result<Vec<Arc<EndpointSlice>>, Arc<BalancerError>> {
        let mut adopted = Vec::new();
        for write in round.writes {
            match self.store.write(&self.key.0, write, &self.view).await? {
                Written::Done => {}
                Written::Changed => {
                    self.view.replace(&self.key, self.store.list(&self.key).await?);
                    break;
                }
                Written::Exists(name) => {
                    let listed = self.store.list(&self.key).await?;
                    let known = listed.iter().any(|slice| slice.metadata.name.as_ref() == Some(&name));
                    self.view.replace(&self.key, listed);
                    if !known {
                        adopted.extend(self.store.get(&self.key.0, &name).await?.map(Arc::new));
                    }
                    break;
                }
            }
        }
        Ok(adopted)
    }

    /// An endpoint that does not exist keeps no version, so a want to add one may be older than a removal: the Server
    /// itself is asked, after the slices were looked at. If it was removed before that, the answer says so; if it is
    /// removed after that, the slice changes, and the write does not succeed.
    async fn refuted(&self, round: &Round, wants: &[Want]) -> Result<BTreeSet<String>, Arc<BalancerError>> {
        let adding: Vec<&Want> = wants.iter().filter(|want| round.added.contains(&want.who.uid)).collect();
        let mut refuted = BTreeSet::new();
        for some in adding.chunks(READS) {
            let servers = some.iter().map(|want| self.store.server(&want.who.namespace, &want.who.name));
            for (want, server) in some.iter().zip(try_join_all(servers).await?) {
                if !server.is_some_and(|server| self.confirms(&server, want)) {
                    refuted.insert(want.who.uid.clone());
                }
            }
        }
        Ok(refuted)
    }

    fn confirms(&self, server: &Server, want: &Want) -> bool {
        let target = plan::plan(server, (self.now)()).target;
        server.metadata.uid.as_ref() == Some(&want.who.uid)
            && target.is_some_and(|target| {
                want.show.as_ref().is_some_and(|Show { backend, address, phase }| {
                    target.services.contains(backend) && target.address == *address && target.phase == *phase
                })
            })
    }
}

/// The same error for everybody who waited for the same write.
fn shared(error: &Arc<BalancerError>) -> BalancerError {
    match &**error {
        BalancerError::Superseded => BalancerError::Superseded,
        BalancerError::Refused { what, why } => BalancerError::Refused { what: what.clone(), why: why.clone() },
        BalancerError::Unavailable { what, why } => BalancerError::Unavailable { what: what.clone(), why: why.clone() },
    }
}
