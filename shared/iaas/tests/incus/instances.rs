//! Instances that belong to others or that a person has changed.

use berth_iaas::{ProviderError, ProviderMachinePhase};
use serde_json::json;

use crate::{
    lab::with_incus,
    project::{Project, running},
};

#[test]
fn clusters_in_one_project_do_not_see_each_other_s_machines() {
    with_incus(async |incus| {
        let one = Project::new(incus, "two-clusters");
        let two = one.of_cluster("d");
        // The UID is the same: one cluster may have been restored from the backup of the other.
        let (first, second) = (one.connect(), two.connect());
        first.create(&one.request("same")).await.unwrap();
        assert_eq!(second.get("same").await, Ok(None));
        assert_eq!(second.list("d").await, Ok(Vec::new()));
        second.delete("same").await.unwrap();
        second.create(&two.request("same")).await.unwrap();
        let (mine, other) = (running(first.as_ref(), "same").await, running(second.as_ref(), "same").await);
        assert_ne!(mine.id, other.id);
        assert_eq!(first.list("c").await.unwrap(), std::slice::from_ref(&mine));
        second.delete("same").await.unwrap();
        assert_eq!(first.get("same").await, Ok(Some(mine)));
        let error = second.create(&one.request("same")).await.unwrap_err();
        assert!(matches!(error, ProviderError::Configuration(_)), "{error:?}");
        first.delete("same").await.unwrap();
    });
}

#[test]
fn instances_without_the_tags_are_not_touched() {
    with_incus(async |incus| {
        let project = Project::new(incus, "strangers");
        let provider = project.connect();
        provider.create(&project.request("s-1")).await.unwrap();
        let made = running(provider.as_ref(), "s-1").await;
        let instance = project.instance("s-1");
        let incus_of = |arguments: &[&str]| incus.incus(&[arguments, &["--project", "strangers"]].concat());

        // A copy that a person made has the same tags, and is no machine.
        incus_of(&["copy", &instance, "copy", "--instance-only", "--stateless"]);
        assert_eq!(provider.list("c").await.unwrap(), std::slice::from_ref(&made));

        // A renamed instance is still the machine.
        incus_of(&["stop", "--force", &instance]);
        incus_of(&["rename", &instance, "renamed"]);
        let found = provider.get("s-1").await.unwrap().unwrap();
        assert_eq!((found.phase, &found.host_key), (ProviderMachinePhase::Stopped, &made.host_key));
        provider.create(&project.request("s-1")).await.unwrap();
        assert!(found.id.starts_with("renamed/"), "{}", found.id);
        provider.delete("s-1").await.unwrap();
        assert_eq!(incus_of(&["list", "--format", "csv", "--columns", "n"]), "copy");

        // An instance with the machine's name, but without the tags.
        incus_of(&["init", "small", &instance]);
        let refused = [
            provider.create(&project.request("s-1")).await.map(|_| ()),
            provider.get("s-1").await.map(|_| ()),
            provider.reboot("s-1").await.map(|_| ()),
            provider.delete("s-1").await,
        ];
        for result in refused {
            assert!(matches!(&result, Err(ProviderError::Configuration(text)) if text.contains("tags")), "{result:?}");
        }
        assert_eq!(incus_of(&["list", "--format", "csv", "--columns", "n"]).lines().count(), 2);
        incus_of(&["delete", &instance, "copy"]);
    });
}

#[test]
fn a_paused_machine_counts_as_stopped_and_is_resumed_or_deleted() {
    with_incus(async |incus| {
        let project = Project::new(incus, "paused");
        let provider = project.connect();
        provider.create(&project.request("p-1")).await.unwrap();
        let before = running(provider.as_ref(), "p-1").await;
        let pause = || incus.incus(&["pause", "--project", "paused", &project.instance("p-1")]);
        pause();
        assert_eq!(provider.get("p-1").await.unwrap().unwrap().phase, ProviderMachinePhase::Stopped);
        assert_eq!(provider.create(&project.request("p-1")).await.unwrap().boot_id, before.boot_id);
        pause();
        provider.reboot("p-1").await.unwrap();
        assert_ne!(running(provider.as_ref(), "p-1").await.boot_id, before.boot_id);
        pause();
        provider.delete("p-1").await.unwrap();
        assert_eq!(provider.get("p-1").await, Ok(None));
    });
}

#[test]
fn a_protected_machine_is_not_deleted_until_the_protection_ends() {
    with_incus(async |incus| {
        let project = Project::new(incus, "protected");
        let provider = project.with(&json!({"parameters": {"config": {"security.protection.delete": true}}}));
        provider.create(&project.request("p-2")).await.unwrap();
        let error = provider.delete("p-2").await.unwrap_err();
        assert!(
            matches!(&error, ProviderError::Configuration(text) if text.contains("Instance is protected")),
            "{error:?}"
        );
        incus.incus(&[
            "config",
            "unset",
            "--project",
            "protected",
            &project.instance("p-2"),
            "security.protection.delete",
        ]);
        provider.delete("p-2").await.unwrap();
    });
}
