//! Makes changes of one class together.

use std::{collections::BTreeMap, sync::Arc};

use berth_core::api::{Server, TrafficPhase};
use futures::future::join_all;
use kube::Api;

use super::{
    driver::{Change, DriverError, Entry, EntryKey, Shown},
    floor,
    view::{ProcessView, View, changes, entries_of},
    worker::{Submission, Worker},
};
use crate::{balancer::BalancerError, kept::Kept, member::Member, plan};

/// What became of the changes of one Server, by its UID. Without an entry, nothing was refused.
type Failures = BTreeMap<String, DriverError>;

impl Worker {
    /// Makes the changes, and answers each when all processes show it, or why not.
    pub(super) async fn settle(&mut self, batch: Vec<Submission>) {
        self.mark().await;
        let servers = self.servers();
        self.read(&servers).await;
        let newest = self.newest(&batch);
        let mut results: BTreeMap<String, Result<(), BalancerError>> = BTreeMap::new();
        let kept = self.kept(&newest, &servers);
        let todo: Vec<Member> =
            newest.values().filter(|member| !kept.contains_key(&member.server.uid)).cloned().collect();
        for (uid, kept) in kept {
            results.insert(uid, Err(BalancerError::Kept(kept)));
        }
        for member in &todo {
            self.decided.insert(member.server.uid.clone(), member.version);
        }
        let failures = self.apply(&todo).await;
        let outdated = self.take_back_outdated(&todo).await;
        self.driver.settled().await;
        self.read(&self.servers()).await;
        let view = self.view.lock().clone();
        for member in &todo {
            let uid = &member.server.uid;
            let result = match &outdated {
                Ok(outdated) if outdated.contains(uid) => Err(BalancerError::Superseded),
                Ok(_) => self.verdict(&view, member, failures.get(uid)),
                Err(why) => Err(self.unavailable(why.clone())),
            };
            results.insert(uid.clone(), result);
        }
        for Submission { member, since, result } in batch {
            let is_newest = newest.get(&member.server.uid).is_some_and(|newest| newest.version == member.version);
            let answer = results.get(&member.server.uid).filter(|_| is_newest).cloned();
            if matches!(answer, Some(Ok(()))) {
                self.shared.metrics.took(self.class.name(), since.elapsed());
            }
            // A caller that no longer waits reconciles its Server again anyway.
            let _ = result.send(answer.unwrap_or(Err(BalancerError::Superseded)));
        }
    }

    /// By UID, what was decided on the newest version of each Server; nothing that is older than what was carried out.
    fn newest(&self, batch: &[Submission]) -> BTreeMap<String, Member> {
        let mut newest: BTreeMap<String, Member> = BTreeMap::new();
        for Submission { member, .. } in batch {
            let uid = &member.server.uid;
            let known = newest.get(uid).map(|known| known.version).or_else(|| self.decided.get(uid).copied());
            if known.is_none_or(|known| known <= member.version) {
                newest.insert(uid.clone(), member.clone());
            }
        }
        newest
    }

    fn kept(&self, newest: &BTreeMap<String, Member>, servers: &[Arc<Server>]) -> BTreeMap<String, Kept> {
        let batch: Vec<Member> = newest.values().cloned().collect();
        if batch.iter().all(|member| member.held_for.is_none()) {
            return BTreeMap::new();
        }
        let view = self.view.lock().clone();
        let (subsets, now) = (&self.shared.subsets, self.shared.ctx.clock.now());
        let members = floor::members(self.class.name(), servers, &view, subsets, now);
        let threshold = floor::threshold(&self.class.spec, self.shared.default_threshold);
        floor::kept(self.class.name(), threshold, &members, &batch, &view)
    }

    /// Changes all processes that answer.
    async fn apply(&self, members: &[Member]) -> Failures {
        if !self.shared.leader.leads() {
            return Failures::new();
        }
        let view = self.view.lock().clone();
        let view = &view;
        let is_reached = |process: &ProcessView| process.failed.is_none() || self.driver.is_asked();
        let answering: Vec<_> = view.processes.iter().filter(|(_, process)| is_reached(process)).collect();
        let changed = join_all(answering.into_iter().map(|(name, process)| async move {
            let owned = |member: &Member| {
                let uid = member.server.uid.clone();
                let wanted = self.existing(view, &process.shown, member);
                changes(&process.shown, &member.server, &wanted).into_iter().map(move |change| (uid.clone(), change))
            };
            let (owners, changes): (Vec<String>, Vec<Change>) = members.iter().flat_map(owned).unzip();
            if changes.is_empty() {
                return Failures::new();
            }
            let results = self.driver.apply(name, &process.shown, &changes).await;
            for result in &results {
                self.shared.metrics.changed(self.class.name(), result);
            }
            let failed = owners.into_iter().zip(results);
            failed.filter_map(|(uid, result)| Some((uid, result.err()?))).collect()
        }));
        changed.await.into_iter().flatten().collect()
    }

    /// The wanted entries whose backend the process has: the others are reported, and nothing is tried.
    fn existing(&self, view: &View, shown: &Shown, member: &Member) -> BTreeMap<EntryKey, Entry> {
        let mut wanted = view.wanted(self.class.name(), &member.server, member.desired.as_ref());
        wanted.retain(|key, _| shown.backends.contains(&key.backend));
        wanted
    }

    /// Reads the Servers that were given traffic once more. If that is not wanted any more, another copy may have taken it away
    /// a moment ago: it is taken away again. Returns their UIDs.
    async fn take_back_outdated(&self, members: &[Member]) -> Result<Vec<String>, String> {
        let serving: Vec<&Member> =
            members.iter().filter(|member| member.phase() == Some(TrafficPhase::Serving)).collect();
        let read = join_all(serving.iter().map(|member| self.stored(member))).await;
        let mut outdated = Vec::new();
        let mut unknown = None;
        for (member, read) in serving.iter().zip(read) {
            let is_wanted = read.map(|server| server.is_some_and(|server| self.is_still_wanted(&server, member)));
            match is_wanted {
                Ok(true) => {}
                Ok(false) => outdated.push((*member).clone()),
                Err(error) => unknown = Some(error),
            }
        }
        let drained = outdated.iter().map(|member| {
            let mut member = member.clone();
            if let Some(desired) = &mut member.desired {
                desired.phase = TrafficPhase::Draining;
            }
            member
        });
        let drained: Vec<Member> = drained.collect();
        if !drained.is_empty() {
            self.read(&self.servers()).await;
            self.apply(&drained).await;
        }
        let uids = outdated.into_iter().map(|member| member.server.uid).collect();
        unknown.map_or(Ok(uids), Err)
    }

    async fn stored(&self, member: &Member) -> Result<Option<Server>, String> {
        let api = Api::<Server>::namespaced(self.shared.ctx.client.clone(), &member.server.namespace);
        let found = api.get_opt(&member.server.name).await.map_err(|error| error.to_string())?;
        Ok(found.filter(|server| server.uid() == member.server.uid))
    }

    fn is_still_wanted(&self, server: &Server, member: &Member) -> bool {
        let desired = plan::desired(server, self.shared.ctx.clock.now(), self.shared.subsets.of(server));
        let is_serving = |wanted: &BTreeMap<EntryKey, Entry>| {
            !wanted.is_empty() && wanted.values().all(|entry| entry.phase == TrafficPhase::Serving)
        };
        let entries = |desired| entries_of(self.class.name(), &member.server, desired);
        let now = entries(desired.as_ref());
        is_serving(&now) && now.keys().eq(entries(member.desired.as_ref()).keys())
    }

    fn verdict(&self, view: &View, member: &Member, failure: Option<&DriverError>) -> Result<(), BalancerError> {
        let class = self.class.name();
        let wanted = view.wanted(class, &member.server, member.desired.as_ref());
        if view.shows(&member.server, &wanted) {
            return Ok(());
        }
        if let Some(blocked) = view.blocked(class, &wanted) {
            return Err(blocked);
        }
        match failure {
            Some(DriverError::Refused(reason)) => {
                let action = format!("change the traffic of BalancerClass {class}");
                Err(BalancerError::Refused { action, reason: reason.clone() })
            }
            Some(error) => Err(self.unavailable(error.to_string())),
            None if !self.shared.leader.leads() => {
                Err(self.unavailable("another copy of lb-controller is in charge".to_owned()))
            }
            None => Err(self.unavailable("it does not show what was set; trying again".to_owned())),
        }
    }

    fn unavailable(&self, reason: String) -> BalancerError {
        BalancerError::Unavailable {
            action: format!("change the traffic of BalancerClass {}", self.class.name()),
            reason,
        }
    }
}
