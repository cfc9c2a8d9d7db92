//! What a real machine process must be able to do before an application is deployed on it: its user, and its programs.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail a test by panicking")]

mod support;

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use berth_core::api::{ArtifactFormat, Hook, Hooks};
use berth_machine::{
    MachineError,
    app::{self, AppRelease},
};
use support::{LIMIT, LocalLab, ROOT, WithPath, application, archive, get, programs_without, until};

/// An application that answers with who runs it.
fn web(revision: &str, user: Option<&str>) -> AppRelease {
    let run = "#!/bin/sh\nmkdir -p \"/tmp/$SITE\" && echo \"$(id -un) $USER $(id -Gn) $HOME it's\" >\"/tmp/$SITE/index.html\"\n\
               exec berth-httpd --address \"$BERTH_MACHINE_ADDRESS\" --port \"$PORT\" --root \"/tmp/$SITE\"\n";
    let release = application(revision, archive(&[("run", run, true)]));
    AppRelease { user: user.map(str::to_owned), ..release }
}

fn set_mode(folder: &Path, mode: u32) {
    fs::set_permissions(folder, fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_and_its_hooks_run_as_the_declared_user() {
    let lab = LocalLab::start();
    set_mode(lab.dir.path().parent().unwrap(), 0o755);
    let without = programs_without(&["setpriv"]);
    set_mode(without.path(), 0o755);
    let path = format!("{}:{}", lab.dir.path().join("bin").display(), without.path().display());
    let site = format!("berth-test-{}", lab.info.id);
    for revision in ["setpriv", "su"] {
        let mut release = web(revision, Some("nobody"));
        let seen = format!("/tmp/{site}/hook-{revision}");
        let command = format!("id -un >{seen}; echo \"it's $USER\" >>{seen}");
        release.hooks = Hooks { post_start: Some(Hook { command, timeout_seconds: 5 }), ..Hooks::default() };
        release.env.insert("SITE".into(), site.clone());
        // As the API's command.
        release.command = ["/bin/sh", "-c", "./run 'it'\\''s'"].map(str::to_owned).to_vec();
        let deployed = if revision == "su" {
            app::deploy_app(&WithPath(lab.machine(), path.clone()), ROOT, &release, LIMIT).await
        } else {
            app::deploy_app(&lab.machine(), ROOT, &release, LIMIT).await
        };
        let (_, status) = deployed.unwrap();
        until("it answers", || get(&lab.info.address, 8080, "/").is_some());
        let said = get(&lab.info.address, 8080, "/").unwrap();
        assert!(said.starts_with("nobody nobody nogroup /nonexistent it's"), "{revision}: {said}");
        assert_eq!(fs::read_to_string(seen).unwrap(), "nobody\nit's nobody\n");
        assert!(lab.dir.processes().unwrap().contains(&status.pid.unwrap()), "it ends with its machine");
        assert!(fs::read_to_string(lab.path("services/web/run")).unwrap().contains(revision));
    }
    // The user is gone from the declaration, and with it every process of the user.
    let mut release = web("root", None);
    release.env.insert("SITE".into(), format!("{site}-root"));
    app::deploy_app(&lab.machine(), ROOT, &release, LIMIT).await.unwrap();
    until("it answers as root", || get(&lab.info.address, 8080, "/").is_some_and(|said| said.starts_with("root ")));
    for folder in [format!("/tmp/{site}"), format!("/tmp/{site}-root")] {
        fs::remove_dir_all(folder).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_is_missing_or_may_not_go_there_is_said_and_nothing_is_touched() {
    let lab = LocalLab::start();
    app::deploy_app(&lab.machine(), ROOT, &with_site(web("v1", None), &lab), LIMIT).await.unwrap();
    let before = app::read_app(&lab.machine(), ROOT, "web", LIMIT).await.unwrap();
    set_mode(lab.dir.path().parent().unwrap(), 0o700);
    for (user, said) in [
        ("berth-nobody", "there is no user berth-nobody on the machine (spec.app.user)"),
        ("nobody", "user nobody (spec.app.user) may not enter "),
    ] {
        let release = with_site(web("v2", Some(user)), &lab);
        let error = app::deploy_app(&lab.machine(), ROOT, &release, LIMIT).await.unwrap_err();
        assert!(error.is_permanent() && error.to_string().starts_with(said), "{error}");
        assert_eq!(app::read_app(&lab.machine(), ROOT, "web", LIMIT).await.unwrap(), before);
    }
    fs::remove_dir_all(format!("/tmp/berth-test-{}", lab.info.id)).unwrap();
}

fn with_site(mut release: AppRelease, lab: &LocalLab) -> AppRelease {
    release.env.insert("SITE".into(), format!("berth-test-{}", lab.info.id));
    release
}

/// A program of this machine, made for another kind of machine by its header.
fn foreign(program: &[u8]) -> Vec<u8> {
    let mut foreign = program.to_vec();
    let arm = u16::from_le_bytes([program[18], program[19]]) == 183;
    foreign[18..20].copy_from_slice(&if arm { 62_u16 } else { 183 }.to_le_bytes());
    foreign
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_for_another_architecture_is_said_and_nothing_is_touched() {
    let lab = LocalLab::start();
    app::deploy_app(&lab.machine(), ROOT, &with_site(web("v1", None), &lab), LIMIT).await.unwrap();
    let before = app::read_app(&lab.machine(), ROOT, "web", LIMIT).await.unwrap();
    let program = foreign(&fs::read("/bin/true").unwrap());
    let command = ["/bin/sh", "-c", "exec ./web --all"].map(str::to_owned).to_vec();
    let binary = AppRelease { format: Some(ArtifactFormat::Binary), command, ..application("v1", program.clone()) };
    let error = app::deploy_app(&lab.machine(), ROOT, &binary, LIMIT).await.unwrap_err();
    let (made_for, here) =
        if cfg!(target_arch = "aarch64") { ("x86_64", "aarch64") } else { ("aarch64", std::env::consts::ARCH) };
    let said = format!(
        "web is a program for {made_for}, and the machine is {here}: declare an artifact that is built for {here}"
    );
    assert!(matches!(&error, MachineError::CannotRun(reason) if *reason == said), "{error}");
    assert_eq!(app::read_app(&lab.machine(), ROOT, "web", LIMIT).await.unwrap(), before);
    // Behind a script it is seen when it does not start.
    let script =
        "#!/bin/sh\nhead -c 64 /bin/true | tr '\\076\\267' '\\267\\076' >other; chmod 755 other; exec ./other\n";
    let hidden = application("v2", archive(&[("run", script, true)]));
    let error = app::deploy_app(&lab.machine(), ROOT, &hidden, LIMIT).await.unwrap_err();
    assert!(
        error.to_string().contains("v1, which ran before, runs again")
            && error.to_string().contains("xec format error"),
        "{error}"
    );
    fs::remove_dir_all(format!("/tmp/berth-test-{}", lab.info.id)).unwrap();
}
