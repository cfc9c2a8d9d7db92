//! Files of an application with content from elsewhere, on a real machine process.

mod support;

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
};

use berth_machine::{
    EarlierRelease, MachineChange, MachineError,
    app::{self, AppFile, AppRelease, MAX_FILE_BYTES},
};
use support::{LIMIT, LocalLab, ROOT, application, archive, get, until};

/// An application that answers with the content of `conf/a`, and does not start with a bad one. Its archive has a file of its own there.
fn web(revision: &str, files: &[(&str, &[u8], bool)]) -> AppRelease {
    let run = "#!/bin/sh\n! grep -q bad a || { cat a; exit 1; }\n\
               exec berth-httpd --address \"$BERTH_MACHINE_ADDRESS\" --port \"$PORT\" --root .\n";
    let file = |(path, content, secret): &(&str, &[u8], bool)| AppFile {
        path: (*path).to_owned(),
        content: content.to_vec(),
        secret: *secret,
    };
    let files = files.iter().map(file).collect();
    AppRelease { files, ..application(revision, archive(&[("run", run, true), ("a", "of the archive", false)])) }
}

async fn deploy(lab: &LocalLab, release: &AppRelease) -> Result<MachineChange, MachineError> {
    app::deploy_app(&lab.machine(), ROOT, release, LIMIT).await.map(|(change, _)| change)
}

fn answers(lab: &LocalLab, path: &str, text: Option<&str>) {
    until("it answers", || get(&lab.info.address, 8080, path).as_deref() == text);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_placed_changed_and_removed_and_the_archive_is_as_it_was_then() {
    let lab = LocalLab::start();
    let bytes: Vec<u8> = (0..=255).collect();
    let first = web("v1", &[("a", b"it's\nfirst\n\n", false), ("deep/er/b", &bytes, false), ("key", b"hush", true)]);
    assert_eq!(deploy(&lab, &first).await, Ok(MachineChange::Done));
    answers(&lab, "/a", Some("it's\nfirst\n\n"));
    let current = lab.path("apps/web/current");
    assert_eq!(fs::read(current.join("deep/er/b")).unwrap(), bytes);
    let mode = |path: &str| fs::metadata(current.join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("key"), mode("a")), (0o600, 0o644));
    assert_eq!(deploy(&lab, &first).await, Ok(MachineChange::None));

    // Another content is another start; what is declared no longer is gone, and what it covered is back.
    let before = app::read_app(&lab.machine(), ROOT, "web", LIMIT).await.unwrap();
    assert_eq!(deploy(&lab, &web("v1", &[("a", b"second", false)])).await, Ok(MachineChange::Done));
    let after = app::read_app(&lab.machine(), ROOT, "web", LIMIT).await.unwrap();
    assert_ne!(before.pid, after.pid);
    answers(&lab, "/a", Some("second"));
    answers(&lab, "/key", None);
    fs::write(current.join("a"), "somebody else").unwrap();
    assert_eq!(app::read_app(&lab.machine(), ROOT, "web", LIMIT).await.unwrap().digest, None);
    deploy(&lab, &web("v1", &[])).await.unwrap();
    answers(&lab, "/a", Some("of the archive"));
    assert!(!lab.path("services/web/files").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_does_not_start_with_its_files_leaves_those_of_the_one_before() {
    let lab = LocalLab::start();
    deploy(&lab, &web("v1", &[("a", b"good", true), ("b", b"of v1", false)])).await.unwrap();
    let error = deploy(&lab, &web("v1", &[("a", b"bad-secret", true), ("c", b"of v2", false)])).await.unwrap_err();
    assert!(matches!(&error, MachineError::FailedStart { before: EarlierRelease::Runs(_), .. }), "{error}");
    assert!(error.to_string().contains("printed last: ***berth:"), "{error}");
    answers(&lab, "/a", Some("good"));
    answers(&lab, "/b", Some("of v1"));
    answers(&lab, "/c", None);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_user_of_the_application_owns_its_secret_files() {
    let lab = LocalLab::start();
    let release = web("v1", &[("a", b"x", false), ("key", b"hush", true)]);
    deploy(&lab, &AppRelease { user: Some("nobody".into()), ..release }).await.unwrap();
    answers(&lab, "/key", Some("hush"));
    let nobody = fs::metadata(lab.path("apps/web/current/key")).unwrap().uid();
    assert_ne!((nobody, fs::metadata(lab.path("apps/web/current/a")).unwrap().uid()), (0, nobody));
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_cannot_be_there_are_refused_in_words_and_nothing_is_touched() {
    let lab = LocalLab::start();
    deploy(&lab, &web("v1", &[("a", b"good", false)])).await.unwrap();
    let large = vec![0; MAX_FILE_BYTES + 1];
    for (files, said) in [
        (
            &[("run/a", &b""[..], false)][..],
            "run/a (spec.app.files) cannot be a file, because of what the artifact has there",
        ),
        (&[("x", b"", false), ("x/y", b"", false)], "x/y (spec.app.files) is a file and a folder at once"),
        (&[("../a", b"", false)], "app files: \"../a\" must be a path"),
        (&[("/a", b"", false)], "app files: \"/a\" must be relative"),
        (&[("a", &large, false)], "app files: they have 1048577 bytes together, at most 1048576 may be"),
    ] {
        let error = deploy(&lab, &web("v2", files)).await.unwrap_err();
        assert!(error.is_permanent() && error.to_string().starts_with(said), "{error}");
        answers(&lab, "/a", Some("good"));
        assert_eq!(app::read_app(&lab.machine(), ROOT, "web", LIMIT).await.unwrap().revision.as_deref(), Some("v1"));
    }
    // The release leads elsewhere by a link.
    let outside = tempfile::tempdir().unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(outside.path(), folder.path().join("conf")).unwrap();
    let tar = std::process::Command::new("tar").args(["-cf", "-", "conf"]).current_dir(folder.path()).output().unwrap();
    let files = web("v2", &[("conf/a", b"x", false)]).files;
    let error = deploy(&lab, &AppRelease { files, ..application("v2", tar.stdout) }).await.unwrap_err();
    assert!(error.to_string().starts_with("conf/a (spec.app.files) is behind a link that leads out"), "{error}");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}
