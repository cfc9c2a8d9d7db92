//! Provider `incus` with a real incusd, containers and SSH.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on says where")]

mod access;
mod certificate;
mod class;
mod contract;
mod instances;
mod interruptions;
mod lab;
mod project;
#[path = "../provider_contract/mod.rs"]
mod provider_contract;
mod services;

use lab::Incus;

#[test]
fn the_lab_leaves_nothing_behind() {
    let mut incus = Incus::start("fleeting");
    assert!(incus.lives() && !incus.control_groups().is_empty());
    incus.close();
    assert!(!incus.lives());
    assert_eq!(incus.control_groups(), Vec::<std::path::PathBuf>::new());
}
