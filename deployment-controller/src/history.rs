//! The history of a VMDeployment's application: which ControllerRevisions there have to be. Pure.
//!
//! As with Kubernetes' own kinds, the number tells when a version was last wanted: one that comes back gets a new number instead
//! of a second entry.

use berth_core::{
    api::{App, VMDeployment, VMDeploymentStatus},
    digest, object,
};
use k8s_openapi::{api::apps::v1::ControllerRevision, apimachinery::pkg::runtime::RawExtension};
use kube::{Resource as _, api::ObjectMeta};
use serde_json::Value;

/// Label of a ControllerRevision: name of the VMDeployment whose history it belongs to.
pub(crate) const DEPLOYMENT: &str = "berth.dev/deployment";
/// Label of a ControllerRevision: the application's revision.
const REVISION: &str = "berth.dev/revision";
/// Annotation of a ControllerRevision: this version was the stable one.
const STABLE: &str = "berth.dev/stable";

/// One version of the application.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Revision {
    /// Name of its ControllerRevision.
    pub(crate) name: String,
    /// The higher, the later it was wanted.
    pub(crate) number: i64,
    /// The application as it is stored.
    data: Value,
    /// The application; none if this version of Berth cannot read it.
    pub(crate) app: Option<App>,
    /// Whether it was the stable one at some time.
    pub(crate) was_stable: bool,
}

impl Revision {
    /// The version that this object holds; none if it does not belong to the VMDeployment.
    pub(crate) fn of(deployment: &VMDeployment, object: ControllerRevision) -> Option<Self> {
        if !object::is_controlled_by::<VMDeployment>(&object.metadata, &deployment.metadata) {
            return None;
        }
        let data = object.data.map(|data| data.0).unwrap_or_default();
        let annotations = object.metadata.annotations.unwrap_or_default();
        Some(Self {
            name: object.metadata.name?,
            number: object.revision,
            app: serde_json::from_value(data.clone()).ok(),
            data,
            was_stable: annotations.contains_key(STABLE),
        })
    }

    /// A version that is not in the history yet. The UID is part of the name, so that a VMDeployment which was created again does not meet
    /// the history of the one before.
    fn new(deployment: &VMDeployment, app: &App, number: i64) -> Self {
        let name = format!("{}-{}", deployment.name(), digest::short(&(deployment.uid(), app)));
        let data = serde_json::to_value(app).unwrap_or_default();
        Self { name, number, data, app: Some(app.clone()), was_stable: false }
    }

    /// The object that holds it.
    pub(crate) fn object(&self, deployment: &VMDeployment) -> ControllerRevision {
        let mut labels = vec![(DEPLOYMENT.to_owned(), deployment.name().to_owned())];
        labels.extend(self.app.as_ref().map(|app| (REVISION.to_owned(), app.effective_revision())));
        let annotation = self.was_stable.then(|| (STABLE.to_owned(), "true".to_owned()));
        ControllerRevision {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                namespace: deployment.metadata.namespace.clone(),
                labels: Some(labels.into_iter().collect()),
                annotations: annotation.map(|annotation| [annotation].into()),
                owner_references: deployment.controller_owner_ref(&()).map(|owner| vec![owner]),
                ..ObjectMeta::default()
            },
            data: Some(RawExtension(self.data.clone())),
            revision: self.number,
        }
    }

    /// How messages name it: `3 (v2)`.
    pub(crate) fn label(&self) -> String {
        match &self.app {
            Some(app) => format!("{} ({})", self.number, app.effective_revision()),
            None => format!("{} (of another version of Berth)", self.number),
        }
    }
}

/// What the history has to hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    /// The application that is being rolled out, or was rolled out last.
    pub(crate) newest: &'a App,
    /// The stable one.
    pub(crate) stable: Option<&'a App>,
    /// Others that stay: what is declared, and what Servers have.
    pub(crate) in_use: &'a [&'a App],
    /// How many more are kept.
    pub(crate) limit: usize,
}

/// What has to be written so that the history is right.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Changes {
    /// Versions that are new, or have changed.
    pub(crate) apply: Vec<Revision>,
    /// Names of those that are no longer kept.
    pub(crate) delete: Vec<String>,
    /// The number of the newest application.
    pub(crate) newest: i64,
}

/// Whether the history has to be looked at before this status is written: another application is wanted or stable, or something else is
/// declared.
pub(crate) fn may_have_changed(before: Option<&VMDeploymentStatus>, after: &VMDeploymentStatus) -> bool {
    let number = after.rollout.as_ref().and_then(|progress| progress.revision_number);
    let is_same = |before: &VMDeploymentStatus| {
        (&before.stable_app, before.observed_generation) == (&after.stable_app, after.observed_generation)
    };
    number.is_none() || !before.is_some_and(is_same)
}

/// Brings the history of the VMDeployment up to date.
pub(crate) fn changes(deployment: &VMDeployment, known: &[Revision], wanted: Wanted<'_>) -> Changes {
    let Wanted { newest, stable, in_use, limit } = wanted;
    let mut revisions = known.to_vec();
    if let Some(stable) = stable.filter(|stable| revisions.is_empty() && *stable != newest) {
        // Of a VMDeployment that is older than its history, this much is known.
        revisions.push(Revision::new(deployment, stable, 1));
    }
    let highest = revisions.iter().map(|revision| revision.number).max().unwrap_or(0);
    let position = revisions.iter().position(|revision| revision.app.as_ref() == Some(newest));
    let position = position.unwrap_or_else(|| {
        revisions.push(Revision::new(deployment, newest, 0));
        revisions.len() - 1
    });
    let number = match revisions[position].number {
        number if number == highest && number > 0 => number,
        _ => highest + 1,
    };
    revisions[position].number = number;
    for revision in &mut revisions {
        revision.was_stable |= stable.is_some() && revision.app.as_ref() == stable;
    }
    let stays = |revision: &&Revision| {
        let app = revision.app.as_ref();
        app == Some(newest) || app.is_some() && (app == stable || app.is_some_and(|app| in_use.contains(&app)))
    };
    let mut others: Vec<&Revision> = revisions.iter().filter(|revision| !stays(revision)).collect();
    others.sort_by_key(|revision| revision.number);
    let surplus = others.len().saturating_sub(limit);
    let delete = others[..surplus].iter().map(|revision| revision.name.clone()).collect::<Vec<_>>();
    let is_new = |revision: &&Revision| !known.contains(revision) && !delete.contains(&revision.name);
    Changes { apply: revisions.iter().filter(is_new).cloned().collect(), delete, newest: number }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{replica_set::newest_app, testing};

    fn app(revision: &str) -> App {
        newest_app(&testing::deployment(revision, |_| {}))
    }

    /// A history that is kept as long as the test wants, and what was said about it.
    struct Story {
        deployment: VMDeployment,
        known: Vec<Revision>,
        limit: usize,
    }

    impl Story {
        fn new(limit: usize) -> Self {
            Self { deployment: testing::deployment("v1", |_| {}), known: Vec::new(), limit }
        }

        /// Wants this application, and carries out what that takes. Returns its number, and how much was written.
        fn want(&mut self, newest: &str, stable: Option<&str>, in_use: &[&str]) -> (i64, usize) {
            let (newest, stable) = (app(newest), stable.map(app));
            let in_use: Vec<App> = in_use.iter().map(|revision| app(revision)).collect();
            let in_use: Vec<&App> = in_use.iter().collect();
            let wanted = Wanted { newest: &newest, stable: stable.as_ref(), in_use: &in_use, limit: self.limit };
            let changes = changes(&self.deployment, &self.known, wanted);
            for revision in &changes.apply {
                self.known.retain(|known| known.name != revision.name);
                // As the API server gives it back.
                self.known.extend(Revision::of(&self.deployment, revision.object(&self.deployment)));
            }
            self.known.retain(|known| !changes.delete.contains(&known.name));
            (changes.newest, changes.apply.len() + changes.delete.len())
        }

        /// The versions in their order; those that were stable with a star.
        fn shown(&self) -> String {
            let mut known = self.known.clone();
            known.sort_by_key(|revision| revision.number);
            let star = |revision: &Revision| if revision.was_stable { "*" } else { "" };
            known.iter().map(|known| format!("{}{}", known.label(), star(known))).collect::<Vec<_>>().join(" ")
        }
    }

    #[test]
    fn each_version_has_one_entry_whose_number_grows_when_it_comes_back() {
        let mut story = Story::new(10);
        assert_eq!(story.want("v1", None, &[]), (1, 1));
        assert_eq!(story.want("v1", Some("v1"), &[]), (1, 1), "it became the stable one");
        assert_eq!(story.want("v1", Some("v1"), &[]), (1, 0), "nothing is written again");
        assert_eq!(story.want("v2", Some("v1"), &["v1"]), (2, 1));
        assert_eq!(story.want("v2", Some("v2"), &[]), (2, 1));
        assert_eq!(story.want("v1", Some("v2"), &["v2"]), (3, 1));
        assert_eq!(story.shown(), "2 (v2)* 3 (v1)*");
        assert_eq!(story.known.len(), 2);
    }

    #[test]
    fn the_oldest_go_beyond_the_limit_but_none_that_is_in_use() {
        let mut story = Story::new(1);
        for revision in ["v1", "v2", "v3", "v4"] {
            story.want(revision, Some("v1"), &["v2"]);
        }
        assert_eq!(
            story.shown(),
            "1 (v1)* 2 (v2) 3 (v3) 4 (v4)",
            "v1 is stable, a Server has v2, v3 is within the limit"
        );
        story.want("v5", Some("v5"), &[]);
        assert_eq!(story.shown(), "4 (v4) 5 (v5)*");
        story.limit = 0;
        story.want("v5", Some("v5"), &[]);
        assert_eq!(story.shown(), "5 (v5)*");
    }

    #[test]
    fn the_history_of_an_older_deployment_begins_with_its_stable_application() {
        let mut story = Story::new(10);
        assert_eq!(story.want("v2", Some("v1"), &[]), (2, 2));
        assert_eq!(story.shown(), "1 (v1)* 2 (v2)");
    }

    #[test]
    fn only_revisions_of_this_very_deployment_belong_to_its_history() {
        let (deployment, mut other) = (testing::deployment("v1", |_| {}), testing::deployment("v1", |_| {}));
        other.metadata.uid = Some("another".into());
        let (own, foreign) = (Revision::new(&deployment, &app("v1"), 1), Revision::new(&other, &app("v1"), 1));
        assert_ne!(own.name, foreign.name);
        assert_eq!(Revision::of(&deployment, foreign.object(&other)), None);
        assert_eq!(Revision::of(&deployment, own.object(&deployment)), Some(own));
    }

    #[test]
    fn a_version_that_cannot_be_read_is_counted_and_kept_within_the_limit() {
        let mut story = Story::new(1);
        let mut strange = Revision::new(&story.deployment, &app("v1"), 7);
        (strange.data, strange.app) = (serde_json::json!({"colour": "red"}), None);
        story.known.push(strange);
        assert_eq!(story.want("v2", None, &[]), (8, 1));
        assert_eq!(story.shown(), "7 (of another version of Berth) 8 (v2)");
    }
}
