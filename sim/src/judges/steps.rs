//! A roll-out goes only as far as its steps let it: no more Servers get new code than the present step asks for, and a step ends when what
//! it waits for has happened in the world: enough machines had the code, its time is over by the world's clock, or a person has promoted it.
//!
//! Not judged are weights and analyses: there are no load balancers with weights in the world, and no Prometheus.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use berth_core::{
    api::{RolloutAction, RolloutProgress, RolloutStep, VMDeployment},
    budget::{Budget, at_least_one},
    digest,
};
use serde::Deserialize as _;

use super::{
    new_code::{NewCode, by_deployment_controller, is_active},
    scene::{Scene, Work},
    view::{Place, text, time},
};

/// How long what was allowed still counts: a copy that hung, or whose watch stood still, goes on with what it knew.
const GRACE: Duration = Duration::from_mins(10);
/// So old a Server is known to every copy.
const KNOWN: Duration = Duration::from_mins(6);
/// So long a decision may be under way until it is written: some requests, of which each may take ten seconds.
const UNDER_WAY: Duration = Duration::from_secs(30);
/// Times in objects are in whole seconds.
const ROUNDING: Duration = Duration::from_secs(1);

/// What roll-outs were allowed, and what has happened in them.
#[derive(Default)]
pub(super) struct Steps {
    /// How far apart the clocks of two copies may be.
    pub(super) skew: Duration,
    /// How many Servers may have an application, by the place of the VMDeployment and the application's digest.
    allowed: BTreeMap<(Place, String), Vec<Allowed>>,
    /// When the present step of each VMDeployment began, and which attempt at which application it is a step of.
    begun: BTreeMap<Place, ((String, i32, i32), Duration)>,
    /// Which revisions were brought onto the machine of each Server, by its UID.
    deployed: BTreeMap<String, BTreeSet<String>>,
}

struct Allowed {
    most: usize,
    until: Option<Duration>,
}

impl Steps {
    /// Says so if this change goes further than the steps let it.
    pub(super) fn exceeded(&mut self, scene: &Scene<'_>) -> Option<String> {
        match scene.plural {
            "vmdeployments" => {
                let wrong = self.ended_early(scene);
                self.note(scene);
                wrong
            }
            "servers" => self.too_many(scene),
            _ => None,
        }
    }

    /// A script has changed a machine.
    pub(super) fn note_work(&mut self, work: &Work<'_>) {
        let revisions = work.after.apps.values().filter_map(|app| app.revision.clone());
        self.deployed.entry(work.uid.to_owned()).or_default().extend(revisions);
    }

    /// Notes how many Servers may have which application now.
    fn note(&mut self, scene: &Scene<'_>) {
        let Some(deployment) = scene.after.and_then(|object| VMDeployment::deserialize(object).ok()) else { return };
        let now = scene.clock.elapsed();
        let mut current = BTreeMap::new();
        if deployment.spec.rollout.steps.is_empty() {
            current.insert(digest::short(&deployment.spec.app.as_declared()), usize::MAX);
        }
        if let Some(progress) = deployment.status.as_ref().and_then(|status| status.rollout.as_ref()) {
            current.insert(progress.digest.clone(), most(&deployment, progress));
            let step = (progress.digest.clone(), progress.retries, progress.steps_done);
            if self.begun.get(scene.place).is_none_or(|(known, _)| *known != step) {
                let said = scene.after.and_then(|object| time(object, "/status/rollout/stepSince")).unwrap_or(now);
                let begun = said.clamp(now.saturating_sub(UNDER_WAY), now);
                self.begun.insert(scene.place.clone(), (step, begun));
            }
        }
        let of_place = self.allowed.iter_mut().filter(|((place, _), _)| place == scene.place);
        for ((_, digest), known) in of_place {
            let is_same = |entry: &Allowed| current.get(digest) == Some(&entry.most);
            let ended = known.iter_mut().filter(|entry| entry.until.is_none() && !is_same(entry));
            ended.for_each(|entry| entry.until = Some(now));
            known.retain(|entry| entry.until.is_none_or(|until| until + GRACE > now));
        }
        for (digest, most) in current {
            let known = self.allowed.entry((scene.place.clone(), digest)).or_default();
            if known.iter().all(|entry| entry.until.is_some()) {
                known.push(Allowed { most, until: None });
            }
        }
    }

    /// Whether more Servers get new code with this change than the step lets have it.
    fn too_many(&self, scene: &Scene<'_>) -> Option<String> {
        let NewCode { place, set, deployment, app, is_restart } = NewCode::of(scene)?;
        let after = scene.after?;
        if is_restart || deployment.spec.rollout.steps.is_empty() {
            return None;
        }
        let own = scene.view.servers_of(&place, set);
        let others = own.filter(|(other, server)| *other != scene.place && is_active(server));
        let updated = 1 + others.filter(|(_, server)| server["spec"]["app"] == after["spec"]["app"]).count();
        let digests = [digest::short(&app), digest::short(&app.as_declared())];
        let allowed = digests.into_iter().filter_map(|digest| self.allowed.get(&(place.clone(), digest))).flatten();
        let most = allowed.map(|entry| entry.most).max().unwrap_or_default();
        (updated > most).then(|| {
            format!(
                "{} gets revision {}: {updated} Servers of {place} have it then, and its steps let {most} have it",
                scene.place,
                app.effective_revision()
            )
        })
    }

    /// A step that is done although what it waits for has not happened.
    fn ended_early(&self, scene: &Scene<'_>) -> Option<String> {
        let before = VMDeployment::deserialize(scene.before?).ok()?;
        let deployment = VMDeployment::deserialize(scene.after?).ok()?;
        let progress = |deployment: &VMDeployment| deployment.status.as_ref()?.rollout.clone();
        let (known, progress) = (progress(&before)?, progress(&deployment)?);
        let stable = deployment.status.as_ref()?.stable_app.as_ref();
        let is_same = (&known.digest, known.retries) == (&progress.digest, progress.retries);
        let is_gradual = stable.is_some_and(|stable| !progress.is_about(stable)) && progress.undone.is_none();
        if !by_deployment_controller(scene) || !is_same || !is_gradual || progress.restart != known.restart {
            return None;
        }
        let request = deployment.spec.rollout.request.as_ref();
        let is_new = known.observed_request != progress.observed_request;
        let action = request.filter(|request| is_new && progress.observed_request.as_ref() == Some(&request.id));
        let mut promoted = match action.map(|request| request.action) {
            Some(RolloutAction::PromoteFull) => return None,
            Some(RolloutAction::Promote) => 1,
            _ => 0,
        };
        let index = |done: i32| usize::try_from(done).unwrap_or_default();
        let steps = deployment.spec.rollout.steps.iter().enumerate().take(index(progress.steps_done));
        let unfinished = steps.skip(index(known.steps_done)).find(|(number, step)| {
            let since = (*number == index(known.steps_done)).then(|| self.since(scene, &known)).flatten();
            let is_promoted = promoted > 0;
            promoted -= usize::from(is_promoted);
            !is_promoted && !self.is_done(scene, &deployment, step, since)
        });
        let (number, _) = unfinished?;
        Some(format!("step {} of {} is said to be done, and is not", number + 1, scene.place))
    }

    /// How long the present step has had its turn.
    fn since(&self, scene: &Scene<'_>, known: &RolloutProgress) -> Option<Duration> {
        let (step, at) = self.begun.get(scene.place)?;
        let is_same = *step == (known.digest.clone(), known.retries, known.steps_done);
        is_same.then(|| scene.clock.elapsed().saturating_sub(*at) + self.skew + ROUNDING)
    }

    /// Whether what the step waits for has happened. `since`: how long it has had its turn, as any copy may see it.
    fn is_done(
        &self,
        scene: &Scene<'_>,
        deployment: &VMDeployment,
        step: &RolloutStep,
        since: Option<Duration>,
    ) -> bool {
        let takes = |seconds: i32| since >= Some(Duration::from_secs(seconds.unsigned_abs().into()));
        if let Some(declared) = &step.servers {
            let budget = Budget::of_deployment(deployment);
            let wanted = at_least_one(Some(declared), 0, budget.replicas);
            let (had_it, known) = self.counts(scene, deployment);
            return had_it >= wanted.saturating_sub(budget.max_unavailable).max(1).min(wanted).min(known);
        }
        match (&step.pause, &step.bake) {
            (Some(pause), _) => pause.seconds.is_some_and(takes),
            (_, Some(bake)) => takes(bake.seconds),
            _ => step.approve.is_none(),
        }
    }

    /// How many Servers have the revision, on whose machines it was brought; and how many Servers there are that every copy knows.
    fn counts(&self, scene: &Scene<'_>, deployment: &VMDeployment) -> (usize, usize) {
        let Some(set) = scene.view.get("vmreplicasets", scene.place) else { return (0, 0) };
        let revision = deployment.status.as_ref().and_then(|status| status.revision.clone()).unwrap_or_default();
        let own: Vec<_> = scene.view.servers_of(scene.place, set).filter(|(_, server)| is_active(server)).collect();
        let had_it = |uid: &str| self.deployed.get(uid).is_some_and(|known| known.contains(&revision));
        let had_it = own.iter().filter(|(_, server)| had_it(text(server, "/metadata/uid"))).count();
        let is_known = |born: Duration| born + KNOWN < scene.clock.elapsed();
        let born = own.iter().filter_map(|(_, server)| time(server, "/metadata/creationTimestamp"));
        (had_it, born.filter(|born| is_known(*born)).count().max(usize::from(!own.is_empty())))
    }
}

/// How many Servers may have the application that is rolled out.
fn most(deployment: &VMDeployment, progress: &RolloutProgress) -> usize {
    let rollout = &deployment.spec.rollout;
    let stable = deployment.status.as_ref().and_then(|status| status.stable_app.as_ref());
    let done = usize::try_from(progress.steps_done).unwrap_or_default();
    if progress.aborted.is_some() {
        return 0;
    }
    if rollout.steps.len() <= done || progress.undone.is_some() || stable.is_none_or(|app| progress.is_about(app)) {
        return usize::MAX;
    }
    let replicas = Budget::of_deployment(deployment).replicas;
    let begun = rollout.steps.iter().take(done + 1).filter_map(|step| step.servers.as_ref());
    begun.map(|declared| at_least_one(Some(declared), 0, replicas)).max().unwrap_or_default()
}
