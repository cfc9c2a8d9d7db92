//! What a MachineClass declares.

use berth_iaas::{MachineRequest, ProviderError};
use serde_json::{Value, json};

use crate::{lab::with_incus, project::Project};

#[test]
fn the_parameters_of_the_class_are_on_the_instance() {
    with_incus(async |incus| {
        let project = Project::new(incus, "class");
        incus.incus(&["profile", "create", "marked"]);
        incus.incus(&["profile", "set", "marked", "user.marked=yes"]);
        let provider = project.with(&json!({"parameters": {
            "profiles": ["default", "marked"],
            "config": {"limits.processes": 500, "boot.autostart": false},
            "devices": {"extra": {"type": "none"}},
        }}));
        let mut request = project.request("class-1");
        request.flavor = Some("c1-m1".into());
        provider.create(&request).await.unwrap();
        let shown = incus.incus(&["query", &format!("/1.0/instances/{}?project=class", project.instance("class-1"))]);
        let shown: Value = serde_json::from_str(&shown).unwrap();
        let config = |key: &str| shown["expanded_config"][key].as_str().unwrap_or_default().to_owned();
        let expected = [
            ("user.marked", "yes"),
            ("limits.processes", "500"),
            ("boot.autostart", "false"),
            ("limits.cpu", "1"),
            ("user.berth.cluster", "c"),
            ("user.berth.namespace", "n"),
            ("user.berth.name", "s"),
            ("user.berth.uid", "class-1"),
        ];
        assert_eq!(expected.map(|(key, _)| config(key)), expected.map(|(_, value)| value.to_owned()));
        assert!(config("cloud-init.user-data").contains(&request.authorized_key));
        assert_eq!((&shown["type"], &shown["devices"]["extra"]["type"]), (&json!("container"), &json!("none")));
        provider.delete("class-1").await.unwrap();
    });
}

#[test]
fn impossible_requests_are_refused_with_the_message_of_incus() {
    with_incus(async |incus| {
        let project = Project::new(incus, "wrong");
        let refused = async |changes: Value, change: fn(&mut MachineRequest)| {
            let mut request = project.request("wrong-1");
            change(&mut request);
            let error = project.with(&changes).create(&request).await.unwrap_err();
            assert!(matches!(error, ProviderError::Configuration(_)), "{error:?}");
            error.to_string()
        };
        let same = |_: &mut MachineRequest| {};
        let parameters = |parameters: Value| json!({"parameters": parameters});
        for (changes, change, words) in [
            (json!({}), (|r| r.image = Some("nope".into())) as fn(&mut MachineRequest), "Image not provided"),
            (json!({}), |r| r.image = Some("0123456789abcdef".into()), "Image not provided"),
            (json!({"image": null}), |r| r.image = None, "spec.image"),
            (json!({}), |r| r.flavor = Some("huge".into()), "instance type doesn't exist: huge"),
            (json!({}), |r| r.owner.uid = "no/uid".into(), "only letters, digits"),
            (parameters(json!({"project": "nope"})), same, "Project not found"),
            (parameters(json!({"profiles": ["nope"]})), same, "profile \"nope\" doesn't exist"),
            (parameters(json!({"config": {"limits.cpu": "many"}})), same, "Invalid CPU limit"),
            (parameters(json!({"config": {"no.such": 1}})), same, "Unknown configuration key: no.such"),
            (parameters(json!({"devices": {"e": {"type": "nic", "network": "nope"}}})), same, "Network not found"),
            (
                parameters(json!({"devices": {"root": {"type": "disk", "path": "/", "pool": "nope"}}})),
                same,
                "pool not found",
            ),
            (parameters(json!({"type": "virtual-machine"})), same, "doesn't match instance type"),
        ] {
            let error = refused(changes.clone(), change).await;
            assert!(error.contains(words), "{changes}: {error}");
        }
        assert_eq!(incus.incus(&["list", "--project", "wrong", "--format", "csv"]), "");
        // A missing user is only seen once the machine runs.
        let error = refused(json!({"access": {"user": "nobody-here"}}), same).await;
        assert!(error.contains("no user \"nobody-here\"") && error.contains("spec.access.user"), "{error}");
        project.connect().delete("wrong-1").await.unwrap();
    });
}

#[test]
fn a_check_names_what_is_missing_before_any_creation() {
    with_incus(async |incus| {
        let project = Project::new(incus, "check");
        for (changes, words) in [
            (json!({"parameters": {"project": "nope"}}), "spec.parameters.project: there is no project \"nope\""),
            (json!({"parameters": {"profiles": ["nope"]}}), "spec.parameters.profiles: there is no profile \"nope\""),
            (json!({"image": "nope"}), "spec.image: there is no image \"nope\""),
            (json!({"image": "0123456789abcdef"}), "spec.image: there is no image \"0123456789abcdef\""),
        ] {
            let error = project.with(&changes).check().await.unwrap_err();
            assert!(matches!(error, ProviderError::Configuration(_)) && error.to_string().contains(words), "{error:?}");
        }
        let nowhere = project.with(&json!({"parameters": {"endpoint": "unix:///nonexistent/socket"}}));
        let error = nowhere.check().await.unwrap_err();
        assert!(
            matches!(&error, ProviderError::Retryable(text) if text.contains("/nonexistent/socket: No such file")),
            "{error:?}"
        );
    });
}

#[test]
fn a_limit_of_the_project_is_a_quota() {
    with_incus(async |incus| {
        let project = Project::new(incus, "full");
        incus.incus(&["project", "set", "full", "limits.instances=1"]);
        let provider = project.connect();
        provider.create(&project.request("full-1")).await.unwrap();
        let error = provider.create(&project.request("full-2")).await.unwrap_err();
        assert!(
            matches!(&error, ProviderError::Quota(text) if text.contains("Reached maximum number of instances")),
            "{error:?}"
        );
        // A machine that exists is still found.
        provider.create(&project.request("full-1")).await.unwrap();
        provider.delete("full-1").await.unwrap();
    });
}
