//! How applications end, and deployments that are interrupted.

use std::time::Duration;

use berth_machine::{
    MachineChange, MachineError,
    app::{self, AppRelease},
};
use tokio::time::Instant;

use super::machine::{ROOT, SystemdMachine, application, one_unit, web, with_systemd};
use crate::project::LIMIT;

/// An application that works on for this long when it is asked to end, and says when it has ended by itself.
fn slow_to_end(revision: &str, seconds: u32, stop_seconds: u32) -> AppRelease {
    let script = format!(
        "#!/bin/sh\ntrap 'asked=$((asked + 1))' TERM\n(exec sleep 4321) &\nbusybox httpd -f -p \"$PORT\" -h . &\n\
         asked=0 left={seconds}\nwhile [ $left -gt 0 ]; do sleep 1 & wait $!; [ $asked = 0 ] || left=$((left - 1)); done\n\
         echo {revision} ended after $asked >>/root/ends\n"
    );
    AppRelease { stop_seconds, ..application(revision, &script) }
}

async fn took(machine: &SystemdMachine, release: &AppRelease) -> Duration {
    let begin = Instant::now();
    machine.deploy(release).await.unwrap();
    machine.answers(&release.revision).await;
    begin.elapsed()
}

#[test]
fn an_application_has_its_stop_seconds_to_end_and_then_it_is_killed_with_its_children() {
    with_systemd("stop-seconds", async |machine| {
        took(&machine, &slow_to_end("v1", 4, 20)).await;
        let waited = took(&machine, &slow_to_end("v2", 30, 1)).await;
        assert!(waited > Duration::from_secs(4), "{waited:?}");
        // It was asked once: many programs end at once when they are asked again.
        assert_eq!(machine.run("cat /root/ends").await, "v1 ended after 1");
        let killed = took(&machine, &web("v3")).await;
        assert!(killed < Duration::from_secs(10), "{killed:?}");
        assert_eq!(machine.run("cat /root/ends").await, "v1 ended after 1");
        assert_eq!(machine.run("pgrep -fc 'sleep 432[1]' || true").await, "0", "no child of v1 and v2 is left");

        // Another time to end alone starts nothing anew.
        let before = machine.read("web").await.pid;
        let (change, after) = machine.deploy(&AppRelease { stop_seconds: 25, ..web("v3") }).await.unwrap();
        assert_eq!((change, after.pid), (MachineChange::None, before));
        assert_eq!(machine.property("TimeoutStopUSec").await, "35s");
    });
}

/// The client is killed in the middle: the connection ends, and so does everything of its script.
#[test]
fn an_interrupted_deployment_is_completed_by_the_next_one() {
    with_systemd("interrupted", async |machine| {
        machine.deploy(&slow_to_end("v1", 6, 20)).await.unwrap();
        let short = Duration::from_secs(4);
        let error = app::deploy_app(&machine.ssh(), ROOT, &web("v2"), short).await.unwrap_err();
        assert!(matches!(error, MachineError::Timeout { .. }), "{error}");
        let (change, status) = app::deploy_app(&machine.ssh(), ROOT, &web("v2"), LIMIT).await.unwrap();
        assert_eq!((change, status.revision.as_deref()), (MachineChange::Done, Some("v2")));
        machine.answers("v2").await;
        assert_eq!(machine.units().await, one_unit("web"));
    });
}

/// One Server has one application.
#[test]
fn an_application_with_another_name_takes_the_place_of_the_one_before() {
    with_systemd("renamed", async |machine| {
        machine.deploy(&web("v1")).await.unwrap();
        let renamed = |release: AppRelease| AppRelease { name: "shop".into(), ..release };
        let error = machine.deploy(&renamed(application("v2", "#!/bin/sh\nexit 1\n"))).await.unwrap_err();
        assert!(error.to_string().contains("web v1, which ran before, runs again"), "{error}");
        machine.answers("v1").await;
        assert_eq!(machine.units().await, one_unit("web"));
        machine.deploy(&renamed(web("v2"))).await.unwrap();
        machine.answers("v2").await;
        assert_eq!(machine.units().await, one_unit("shop"));
        assert_eq!(
            machine.run("ls /opt/berth/apps /opt/berth/services").await,
            "/opt/berth/apps:\nshop\n\n/opt/berth/services:\nshop"
        );
    });
}
