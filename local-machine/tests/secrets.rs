//! Secret variables of an application on a real machine process.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail a test by panicking")]

mod support;

use std::{fs, os::unix::fs::PermissionsExt as _};

use berth_machine::{
    MachineChange,
    app::{self, AppRelease, SecretEnv},
};
use support::{LIMIT, LocalLab, ROOT, application, get, until};

fn web(secrets: &[(&str, &str)]) -> AppRelease {
    let run = "#!/bin/sh\nprintf '%s' \"${TOKEN-none}\" >index.html\n\
               exec berth-httpd --address \"$BERTH_MACHINE_ADDRESS\" --port \"$PORT\" --root .\n";
    let artifact = support::archive(&[("run", run, true)]);
    let secrets = SecretEnv(secrets.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect());
    // The digest covers only the references.
    AppRelease { digest: "the-same".into(), secrets, ..application("v1", artifact) }
}

/// Everything that processes of the machine were called with.
fn command_lines(lab: &LocalLab) -> String {
    let of = |pid: &u32| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    lab.dir.processes().unwrap().iter().map(|pid| String::from_utf8_lossy(&of(pid)).into_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_reaches_the_application_alone_and_a_changed_one_restarts_it() {
    let lab = LocalLab::start();
    let machine = lab.machine();
    let deploy = async |release: &AppRelease| app::deploy_app(&machine, ROOT, release, LIMIT).await.unwrap();
    let answers = |text: &str| until("it answers", || get(&lab.info.address, 8080, "/").as_deref() == Some(text));
    let (file, run) = (lab.path("services/web/secrets"), lab.path("services/web/run"));

    // Without secrets there is no trace of them: what an older version has deployed stays as it is.
    deploy(&web(&[])).await;
    assert!(!file.exists() && !fs::read_to_string(&run).unwrap().contains("secrets"));
    answers("none");

    let value = "it's \"$HOME\" `id`\nhush";
    let (change, first) = deploy(&web(&[("TOKEN", value)])).await;
    assert_eq!((change, first.digest.as_deref()), (MachineChange::Done, Some("the-same")));
    answers(value);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!fs::read_to_string(&run).unwrap().contains("hush") && !command_lines(&lab).contains("hush"));
    assert_eq!(deploy(&web(&[("TOKEN", value)])).await, (MachineChange::None, first.clone()));

    let (change, second) = deploy(&web(&[("TOKEN", "changed")])).await;
    assert_eq!((change, second.pid != first.pid), (MachineChange::Done, true));
    answers("changed");

    // Somebody else changes the file: what was deployed no longer runs.
    fs::write(&file, "export TOKEN=other\n").unwrap();
    assert_eq!(app::read_app(&machine, ROOT, "web", LIMIT).await.unwrap().digest, None);

    deploy(&web(&[])).await;
    answers("none");
    assert!(!file.exists());
}

#[test]
fn a_secret_is_not_printed() {
    let printed = format!("{:?}", web(&[("TOKEN", "hush")]));
    assert!(printed.contains("TOKEN") && !printed.contains("hush"), "{printed}");
}
