//! The formats of artifacts on a real machine process.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail a test by panicking")]

mod support;

use std::{fs, process::Command};

use berth_core::api::ArtifactFormat;
use berth_machine::{
    MachineError,
    app::{self, AppRelease},
};
use support::{LIMIT, LocalLab, ROOT, WithPath, application, get, programs_without, until};

const RUN: &str = "#!/bin/sh\nexec berth-httpd --address \"$BERTH_MACHINE_ADDRESS\" --port \"$PORT\" --root ./www\n";

/// An archive of an application that answers with `text`, packed by this command in the folder of its files.
fn packed(text: &str, pack: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let tar = support::archive(&[("run", RUN, true)]);
    fs::write(folder.path().join("run.tgz"), tar).unwrap();
    let script = format!("tar -xzf run.tgz && rm run.tgz && mkdir www && printf %s {text} >www/index.html && {pack}");
    let packed = Command::new("sh").args(["-euc", &script]).current_dir(folder.path()).output().unwrap();
    assert!(packed.status.success(), "{}", String::from_utf8_lossy(&packed.stderr));
    packed.stdout
}

#[tokio::test(flavor = "multi_thread")]
async fn every_format_of_archive_is_deployed_by_its_content_and_when_it_is_declared() {
    let lab = LocalLab::start();
    let machine = lab.machine();
    for (name, pack, format) in [
        ("tar", "tar -cf - .", ArtifactFormat::Tar),
        ("gz", "tar -czf - .", ArtifactFormat::TarGz),
        ("zst", "tar -cf - . | zstd -q", ArtifactFormat::TarZst),
        ("zip", "zip -qr - .", ArtifactFormat::Zip),
    ] {
        for declared in [None, Some(format)] {
            let text = format!("{name}-{}", declared.is_some());
            let release = AppRelease { format: declared, ..application(&text, packed(&text, pack)) };
            let (_, status) = app::deploy_app(&machine, ROOT, &release, LIMIT).await.unwrap();
            assert_eq!(status.revision.as_deref(), Some(text.as_str()));
            until("it answers", || get(&lab.info.address, 8080, "/").as_deref() == Some(&text));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_program_is_the_whole_release() {
    let lab = LocalLab::start();
    let program = fs::read(support::BINARY).unwrap();
    let command = "exec ./web httpd --address \"$BERTH_MACHINE_ADDRESS\" --port \"$PORT\" --root .";
    let command = ["/bin/sh", "-c", command].map(str::to_owned).to_vec();
    let release = AppRelease { command, format: Some(ArtifactFormat::Binary), ..application("v1", program) };
    let undeclared = AppRelease { format: None, ..release.clone() };
    let error = app::deploy_app(&lab.machine(), ROOT, &undeclared, LIMIT).await.unwrap_err().to_string();
    assert!(error.contains("it is a program and no archive; declare spec.app.artifact.format: Binary"), "{error}");
    app::deploy_app(&lab.machine(), ROOT, &release, LIMIT).await.unwrap();
    until("it answers", || get(&lab.info.address, 8080, "/.berth-release").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_artifact_of_another_format_than_declared_is_refused_in_words_and_nothing_is_left() {
    let lab = LocalLab::start();
    let artifact = packed("x", "zip -qr - .");
    let release = AppRelease { format: Some(ArtifactFormat::TarZst), ..application("v1", artifact) };
    let error = app::deploy_app(&lab.machine(), ROOT, &release, LIMIT).await.unwrap_err();
    assert!(matches!(error, MachineError::Unpack { .. }), "{error}");
    let said = "it is declared as TarZst (spec.app.artifact.format), but its content is Zip";
    assert!(error.to_string().ends_with(said), "{error}");
    assert_eq!(fs::read_dir(lab.path("apps/web/releases")).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_without_the_unpacking_program_says_which_one_it_lacks_and_how_to_get_it() {
    let lab = LocalLab::start();
    let programs = programs_without(&["zstd", "unzip", "python3"]);
    let machine = WithPath(lab.machine(), programs.path().display().to_string());
    for (pack, said) in [
        ("tar -cf - . | zstd -q", "zstd, to unpack a tar.zst: declare the package zstd in spec.template.spec.packages"),
        ("zip -qr - .", "unzip or python3, to unpack a zip: declare the package unzip in spec.template.spec.packages"),
    ] {
        let error = app::deploy_app(&machine, ROOT, &application("v1", packed("x", pack)), LIMIT).await.unwrap_err();
        assert!(matches!(&error, MachineError::MissingTool(missing) if missing.starts_with(said)), "{error}");
    }
    // Without unzip alone, python3 does the same.
    let programs = programs_without(&["unzip"]);
    let path = format!("{}:{}", lab.dir.path().join("bin").display(), programs.path().display());
    let release = application("v2", packed("from-python", "zip -qr - ."));
    app::deploy_app(&WithPath(lab.machine(), path), ROOT, &release, LIMIT).await.unwrap();
    until("it answers", || get(&lab.info.address, 8080, "/").as_deref() == Some("from-python"));
}
