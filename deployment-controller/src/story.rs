//! A roll-out that tests play.

use berth_core::{
    api::{CheckVerdict, Server, VMDeployment, VMDeploymentStatus},
    conditions::{self, PROGRESSING, STALLED},
};
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{SignedDuration, Timestamp},
};
use serde_json::{Value, json};

use crate::{
    after::Other,
    alarms::{AlarmLook, Seen},
    analysis::{CheckResult, Look},
    assessment::Assessment,
    look::{self, Due},
    observed::ObservedDeployment,
    replica_set::newest_app,
    rollout, stable, status,
    testing::{deployment, fail, failed, now, ready_set, server},
};

/// A VMDeployment that rolls v2 out over ten Servers that run v1, and what becomes of it.
pub(crate) struct Story {
    pub(crate) deployment: VMDeployment,
    pub(crate) servers: Vec<Server>,
    pub(crate) now: Timestamp,
    /// What has been looked at, for the next reconcile.
    pub(crate) looks: Vec<Look>,
    /// What was seen of the alarms, for the next reconcile.
    pub(crate) alarm_look: Option<AlarmLook>,
    /// What is known of the VMDeployments that it waits for.
    pub(crate) others: Vec<Other>,
    /// Servers on which the stable application does not start again.
    pub(crate) broken_restarts: Vec<&'static str>,
}

impl Story {
    pub(crate) fn new(rollout: Value) -> Self {
        let mut deployment = deployment("v2", |spec| {
            spec["replicas"] = 10.into();
            spec["updateStrategy"] = json!({"maxUnavailable": 3});
            spec["rollout"] = rollout;
        });
        let stable = newest_app(&testing_v1());
        deployment.status = Some(VMDeploymentStatus {
            stable_app: Some(stable),
            stable_revision: Some("v1".into()),
            ..Default::default()
        });
        let servers = (0..10).map(|n| server(&format!("web-{n}"), "v1", "Ready", 90 + n)).collect();
        Self {
            deployment,
            servers,
            now: now(),
            looks: Vec::new(),
            alarm_look: None,
            others: Vec::new(),
            broken_restarts: Vec::new(),
        }
    }

    pub(crate) fn request(&mut self, action: &str, id: &str) {
        let request = json!({"action": action, "id": id, "reason": "because", "by": "ann"});
        self.deployment.spec.rollout.request = serde_json::from_value(request).unwrap();
    }

    pub(crate) fn later(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
    }

    /// What the controller does until nothing changes; Servers become Ready at once with what is declared, but those of `broken`
    /// fail with v2. Returns how many have v2.
    pub(crate) fn settle(&mut self, broken: &[&str]) -> usize {
        for _ in 0..40 {
            self.settle_once(broken);
        }
        self.updated()
    }

    /// One reconcile, and what becomes of the Servers that it updates.
    pub(crate) fn settle_once(&mut self, broken: &[&str]) {
        let servers: Vec<&Server> = self.servers.iter().collect();
        let set = ready_set(&self.deployment);
        let updates = rollout::next_updates(&self.deployment, &set, &servers, None, self.now);
        let (names, app): (Vec<String>, _) =
            (updates.servers.iter().map(|server| server.name().to_owned()).collect(), updates.app);
        self.deployment.status = Some(self.status());
        for updated in &names {
            let revision = app.effective_revision();
            let is_broken = revision == "v2" && broken.contains(&updated.as_str());
            let known = self.servers.iter_mut().find(|server| server.name() == updated).unwrap();
            let does_not_start = app.baseline.is_some() && self.broken_restarts.contains(&updated.as_str());
            let metadata = known.metadata.clone();
            *known = if is_broken { failed(updated, &revision) } else { server(updated, &revision, "Ready", 9) };
            (known.spec.app, known.metadata) = (Some(app.clone()), metadata);
            if does_not_start {
                fail(known);
            }
            known.status.as_mut().unwrap().state_since = Some(Time(self.now));
        }
    }

    /// The checks that are due are looked at, and say this.
    pub(crate) fn look(&mut self, verdicts: &[(&str, CheckVerdict)]) {
        let progress = self.deployment.status.as_ref().unwrap().rollout.clone().unwrap();
        let servers: Vec<&Server> = self.servers.iter().collect();
        let due = look::due(&self.deployment, &servers, None, self.now);
        assert!(!due.is_empty(), "no look is due: {progress:?}");
        let result = |(name, verdict): &(&str, CheckVerdict)| CheckResult {
            name: (*name).to_owned(),
            verdict: *verdict,
            message: format!("{verdict:?} it was"),
        };
        let look = |due: &Due<'_>| {
            let is_asked = |(name, _): &&(&str, CheckVerdict)| due.watch.checks().iter().any(|asked| asked == name);
            let results = verdicts.iter().filter(is_asked).map(result).collect();
            Look { subject: due.subject, app: progress.digest.clone(), of: due.of.clone(), at: self.now, results }
        };
        self.looks = due.iter().map(look).collect();
        self.deployment.status = Some(self.status());
        self.looks.clear();
    }

    /// The alarms are due to be looked at, and this is seen.
    pub(crate) fn alarm(&mut self, firing: &[&str], unknown: Option<&str>) {
        let servers: Vec<&Server> = self.servers.iter().collect();
        let due = look::due_alarms(&self.deployment, &servers, None, self.now);
        let (_, of) = due.expect("a look at the alarms is due");
        let firing = firing.iter().map(|name| (*name).to_owned()).collect();
        let app = self.deployment.status.as_ref().unwrap().rollout.as_ref().unwrap().digest.clone();
        let seen = Seen { firing, unknown: unknown.map(Into::into) };
        self.alarm_look = Some(AlarmLook { app, of: of.clone(), at: self.now, seen });
        self.deployment.status = Some(self.status());
        self.alarm_look = None;
    }

    pub(crate) fn updated(&self) -> usize {
        let newest = newest_app(&self.deployment);
        self.servers.iter().filter(|server| server.spec.app.as_ref() == Some(&newest)).count()
    }

    pub(crate) fn status(&self) -> VMDeploymentStatus {
        let servers: Vec<&Server> = self.servers.iter().collect();
        let set = ready_set(&self.deployment);
        status::compute(&self.observed(&set, &servers)).0
    }

    pub(crate) fn observed<'a>(
        &'a self,
        set: &'a berth_core::api::VMReplicaSet,
        servers: &'a [&'a Server],
    ) -> ObservedDeployment<'a> {
        ObservedDeployment {
            deployment: &self.deployment,
            set: Some(set),
            servers,
            missing_content: None,
            looks: &self.looks,
            alarm_look: self.alarm_look.as_ref(),
            others: &self.others,
            awaited: &[],
            now: self.now,
        }
    }

    /// The revision that a new Server begins with.
    pub(crate) fn initial(&self) -> String {
        let servers: Vec<&Server> = self.servers.iter().collect();
        let set = ready_set(&self.deployment);
        let observed = self.observed(&set, &servers);
        stable::initial_app(&observed, &Assessment::of(&observed)).effective_revision()
    }

    /// What is waited for.
    pub(crate) fn waiting_for(&self) -> String {
        self.status().waiting_for.unwrap_or_default()
    }

    /// Reasons of Progressing and Stalled, and the stable revision.
    pub(crate) fn reasons(&self) -> (String, String, String) {
        let status = self.status();
        let reason = |kind| conditions::get(&status.conditions, kind).unwrap().reason.clone();
        (reason(PROGRESSING), reason(STALLED), status.stable_revision.unwrap_or_default())
    }
}

pub(crate) fn testing_v1() -> VMDeployment {
    deployment("v1", |_| {})
}

pub(crate) fn reasons(progressing: &str, stalled: &str, stable: &str) -> (String, String, String) {
    (progressing.to_owned(), stalled.to_owned(), stable.to_owned())
}
