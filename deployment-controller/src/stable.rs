//! The stable application, and the application that a new Server begins with.

use std::collections::BTreeMap;

use berth_core::api::App;

use crate::{assessment::Assessment, content::UNKNOWN, observed::ObservedDeployment};

/// The application that was rolled out last: the newest one once it has proven itself, else the one that the status holds.
/// None before the first one has.
pub(crate) fn recorded(observed: &ObservedDeployment<'_>, assessment: &Assessment<'_>) -> Option<App> {
    let newest = &assessment.count.newest;
    // Which content it has is known only when all of it has been seen.
    if assessment.is_achieved() && newest.content_digest.as_deref() != Some(UNKNOWN) {
        return Some(newest.clone());
    }
    let known = observed.deployment.status.as_ref()?;
    known.stable_app.clone().or_else(|| {
        // A status of an older version says only its revision; the set has given it to new Servers.
        let given = observed.own_set()?.spec.template.spec.app.clone()?;
        (Some(given.effective_revision()) == known.stable_revision).then_some(given)
    })
}

/// The application that a new Server begins with.
///
/// During a roll-out it is the stable one, or the one that the set gives already if none has proven itself yet; the roll-out
/// updates the new Server in its turn. What a person has undone is given to no new Server. Afterwards it is the newest one, but while fewer Servers than the partition asks for have another one, it is that.
pub(crate) fn initial_app(observed: &ObservedDeployment<'_>, assessment: &Assessment<'_>) -> App {
    let count = &assessment.count;
    if assessment.progress.undone.is_some() && assessment.progress.aborted.is_none() {
        return count.newest.clone();
    }
    let given = || observed.own_set()?.spec.template.spec.app.clone();
    let stable = recorded(observed, assessment).or_else(given).unwrap_or_else(|| count.newest.clone());
    // What its ConfigMaps and Secrets contained before, no Server can get any more. A new Server needs no restart.
    let stable = if stable.is_declared_as(&count.newest) { count.newest.clone() } else { stable };
    if assessment.is_achieved() && count.old.len() < count.budget.partition {
        most_common(count.old.iter().filter_map(|server| server.spec.app.as_ref()))
            .map_or(stable, |app| app.unmarked().into_owned())
    } else {
        stable
    }
}

/// The application that most Servers have; of several, always the same one.
fn most_common<'a>(apps: impl Iterator<Item = &'a App>) -> Option<&'a App> {
    let mut found: BTreeMap<String, (usize, &App)> = BTreeMap::new();
    for app in apps {
        found.entry(app.effective_revision()).or_insert((0, app)).0 += 1;
    }
    found.into_values().max_by_key(|(count, _)| *count).map(|(_, app)| app)
}

#[cfg(test)]
mod tests {
    use berth_core::api::{Server, VMDeploymentStatus};
    use serde_json::json;

    use super::*;
    use crate::{
        replica_set::{self, newest_app},
        status,
        testing::{deployment, failed, now, server},
    };

    /// What a new Server begins with while v2 is rolled out over these Servers, after v1.
    fn initial(partition: i32, servers: &[Server]) -> String {
        let stable = newest_app(&deployment("v1", |_| {}));
        let mut newer = deployment("v2", |spec| spec["rollout"] = json!({"partition": partition}));
        let set = replica_set::desired(&newer, stable.clone());
        let known = VMDeploymentStatus { stable_app: Some(stable), ..VMDeploymentStatus::default() };
        newer.status = Some(known);
        let servers: Vec<&Server> = servers.iter().collect();
        let observed = ObservedDeployment {
            deployment: &newer,
            set: Some(&set),
            servers: &servers,
            missing_content: None,
            looks: &[],
            alarm_look: None,
            others: &[],
            awaited: &[],
            now: now(),
        };
        initial_app(&observed, &Assessment::of(&observed)).effective_revision()
    }

    fn servers(declared: &[(&str, &str)]) -> Vec<Server> {
        let of = |(n, (revision, state)): (usize, &(&str, &str))| server(&format!("web-{n}"), revision, state, 60);
        declared.iter().enumerate().map(of).collect()
    }

    #[test]
    fn a_new_server_begins_with_the_stable_application_until_the_newest_one_has_proven_itself() {
        let (old, new, unknown) = (("v1", "Ready"), ("v2", "Ready"), ("v2", "Unknown"));
        for (case, partition, declared, expected) in [
            ("nothing is updated yet", 0, &[old, old, old][..], "v1"),
            ("one is left", 0, &[new, new, old], "v1"),
            ("all are updated", 0, &[new, new, new], "v2"),
            ("a machine is broken", 0, &[new, new, unknown], "v2"),
            ("one is still being deployed", 0, &[new, new, ("v2", "Deploying")], "v1"),
            ("the share is reached", 1, &[new, new, old], "v2"),
            ("one that the partition kept is gone", 2, &[new, old], "v1"),
            ("the partition keeps all", 3, &[old, old, old], "v1"),
            ("only a broken machine has it", 2, &[unknown, old, old], "v1"),
        ] {
            assert_eq!(initial(partition, &servers(declared)), expected, "{case}");
        }
        let with_failed = |n: usize| {
            let mut all = servers(&[new, new, new]);
            all.iter_mut().take(n).for_each(|server| *server = failed(server.name(), "v2"));
            initial(0, &all)
        };
        assert_eq!([1, 2, 3].map(with_failed), ["v2", "v1", "v1"], "as many may have failed as the budget allows");
    }

    #[test]
    fn the_stable_application_of_a_status_of_an_older_version_is_the_one_that_the_set_gives() {
        let stable = newest_app(&deployment("v1", |_| {}));
        let mut newer = deployment("v2", |_| {});
        let set = replica_set::desired(&newer, stable.clone());
        let known = VMDeploymentStatus { stable_revision: Some("v1".into()), ..VMDeploymentStatus::default() };
        newer.status = Some(known);
        let server = server("web-0", "v1", "Ready", 60);
        let observed = ObservedDeployment {
            deployment: &newer,
            set: Some(&set),
            servers: &[&server],
            missing_content: None,
            looks: &[],
            alarm_look: None,
            others: &[],
            awaited: &[],
            now: now(),
        };
        let (status, _) = status::compute(&observed);
        assert_eq!((status.stable_revision.as_deref(), status.stable_app), (Some("v1"), Some(stable)));
    }
}
