//! An application is one unit of systemd.

use std::collections::BTreeMap;

use berth_machine::{
    MachineChange,
    app::{AppFile, AppRelease, SecretEnv},
};

use super::machine::{SystemdMachine, one_unit, web, with_systemd};

fn file(path: &str, content: &str, secret: bool) -> AppFile {
    AppFile { path: path.into(), content: content.into(), secret }
}

/// With everything that may be declared of how it runs.
fn full(revision: &str) -> AppRelease {
    AppRelease {
        user: Some("web".into()),
        env: BTreeMap::from([("GREETING".into(), "it's \"$HOME\" %h\nand more".into())]),
        secrets: SecretEnv([("TOKEN".to_owned(), "hush-hush".to_owned())].into()),
        files: vec![file("conf/a", "plain", false), file("conf/key", "hush-file", true)],
        ..web(revision)
    }
}

async fn pid(machine: &SystemdMachine) -> u32 {
    let status = machine.read("web").await;
    assert!(status.running, "{status:?}");
    status.pid.unwrap()
}

#[test]
fn an_application_is_one_unit_that_outlives_crashes_and_boots() {
    with_systemd("unit", async |machine| {
        let (change, status) = machine.deploy(&full("v1")).await.unwrap();
        assert_eq!((change, status.running, status.revision.as_deref()), (MachineChange::Done, true, Some("v1")));
        machine.answers("v1").await;
        assert_eq!(machine.units().await, one_unit("web"));
        let first = pid(&machine).await;
        assert_eq!(machine.run(&format!("ps -o user= -p {first}")).await, "web");
        assert_eq!(machine.property("MainPID").await, first.to_string());
        let (change, status) = machine.deploy(&full("v1")).await.unwrap();
        assert_eq!((change, status.pid), (MachineChange::None, Some(first)), "nothing is started anew");

        // It crashes.
        machine.run("pkill -KILL -f 'busybox http[d]'").await;
        machine
            .until(&format!(
                "pid=$(systemctl show --property MainPID --value berth-web); [ $pid != 0 ] && [ $pid != {first} ]"
            ))
            .await;
        machine.answers("v1").await;
        let second = pid(&machine).await;
        assert_ne!(second, first);

        // Another revision is the same unit.
        let (change, _) = machine.deploy(&full("v2")).await.unwrap();
        assert_eq!(change, MachineChange::Done);
        machine.answers("v2").await;
        assert_eq!(machine.units().await, one_unit("web"));
        assert_eq!(machine.run("pgrep -fc 'busybox http[d]'").await, "1", "of v1 nothing runs");

        // The machine boots anew, in order and after a power failure.
        for in_order in [true, false] {
            machine.reboot(in_order).await;
            machine.answers("v2").await;
            let status = machine.read("web").await;
            assert_eq!((status.digest.as_deref(), status.running), (Some("digest-v2"), true), "{in_order}");
            let (change, _) = machine.deploy(&full("v2")).await.unwrap();
            assert_eq!(change, MachineChange::None, "{in_order}");
        }
    });
}

#[test]
fn an_application_has_its_environment_and_files_and_its_secrets_are_its_own() {
    with_systemd("secrets", async |machine| {
        machine.deploy(&full("v1")).await.unwrap();
        machine.answers("v1").await;
        let pid = pid(&machine).await;
        let variable = async |name: &str| {
            machine.run(&format!("tr '\\n\\0' '|\\n' </proc/{pid}/environ | sed -n 's/^{name}=//p'")).await
        };
        assert_eq!(variable("GREETING").await, "it's \"$HOME\" %h|and more");
        assert_eq!(variable("TOKEN").await, "hush-hush");
        assert_eq!((variable("HOME").await, variable("USER").await), ("/home/web".into(), "web".into()));
        assert_eq!(variable("BERTH_APP_REVISION").await, "v1");
        let as_user = |user: &str, command: &str| format!("setpriv --reuid {user} --clear-groups sh -c '{command}'");
        let folder = "/opt/berth/apps/web/current";
        assert_eq!(
            machine.run(&as_user("web", &format!("cat {folder}/conf/a {folder}/conf/key"))).await,
            "plainhush-file"
        );

        // Others see nothing of the secrets: in no file, no property of the unit, no command line and no log.
        let looks = [
            "grep -rs hus[h] /opt/berth /etc/systemd /run/systemd /tmp /var/tmp",
            "systemctl show berth-web | grep hus[h]",
            "systemctl cat berth-web | grep hus[h]",
            "systemctl status berth-web | grep hus[h]",
            "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | grep -a hus[h]-",
        ];
        for look in looks {
            let found = machine.run(&as_user("nobody", &format!("{look} || true"))).await;
            assert_eq!(found, "", "{look}");
        }
        assert_eq!(machine.run("journalctl --no-pager | grep hush- || true").await, "");
        let modes = "stat -c %a /etc/systemd/system/berth-web.service /opt/berth/services/web/secrets";
        assert_eq!(machine.run(modes).await, "644\n600");
    });
}

/// Somebody else was at work on the machine.
#[test]
fn a_unit_that_was_changed_stopped_or_removed_is_brought_back_by_the_next_deployment() {
    with_systemd("repair", async |machine| {
        machine.deploy(&web("v1")).await.unwrap();
        let unit = machine.run("cat /etc/systemd/system/berth-web.service").await;
        let first = pid(&machine).await;
        for harm in [
            "systemctl disable berth-web",
            "sed -i s/Restart=always/Restart=no/ /etc/systemd/system/berth-web.service; systemctl daemon-reload",
            "rm /etc/systemd/system/berth-web.service; systemctl daemon-reload",
        ] {
            machine.run(harm).await;
            assert!(machine.read("web").await.running, "{harm}");
            let (change, status) = machine.deploy(&web("v1")).await.unwrap();
            assert_eq!((change, status.pid), (MachineChange::None, Some(first)), "{harm}");
            assert_eq!(machine.units().await, one_unit("web"), "{harm}");
            assert_eq!(machine.run("cat /etc/systemd/system/berth-web.service").await, unit, "{harm}");
            assert_eq!(machine.property("Restart").await, "always", "{harm}");
        }
        for harm in [
            "systemctl stop berth-web",
            "systemctl mask --runtime --now berth-web; systemctl unmask --runtime berth-web",
        ] {
            machine.run(harm).await;
            assert!(!machine.read("web").await.running, "{harm}");
            let (change, _) = machine.deploy(&web("v1")).await.unwrap();
            assert_eq!(change, MachineChange::Done, "{harm}");
            machine.answers("v1").await;
        }
    });
}
