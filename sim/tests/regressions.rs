//! Runs that went wrong once, and go well since: `sim/regressions`.
#![cfg(test)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use berth_sim::{Outcome, Schedule, play};

/// The files in `sim/regressions` with this extension.
fn files(extension: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions");
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|found| found == extension));
    files.sort();
    assert!(files.len() > 9, "only {files:?}");
    files
}

#[test]
fn runs_that_went_wrong_once_go_well() {
    for file in files("json") {
        let schedule: Schedule = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        let Outcome { finding, log, .. } = play(&schedule);
        let end = log[log.len().saturating_sub(20)..].join("\n");
        assert_eq!(finding, None, "{}: the end of the log is\n{end}", file.display());
    }
}

/// `cargo xtask mends` shows that each run goes wrong with its patch.
#[test]
fn each_patch_still_fits_the_code_and_has_a_run() {
    for patch in files("patch") {
        assert!(patch.with_extension("json").exists(), "there is no run that goes wrong with {}", patch.display());
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let checked = Command::new("git").args(["apply", "--check"]).arg(&patch).current_dir(root).output().unwrap();
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    }
}
