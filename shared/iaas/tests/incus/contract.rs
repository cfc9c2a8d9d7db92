//! The contract of every provider.

use crate::{certificate::ClientCertificate, lab::with_incus, project::contract_project, provider_contract};

#[test]
fn the_contract_holds_over_the_unix_socket() {
    with_incus(async |incus| {
        provider_contract::check(&contract_project(incus, "contract-unix")).await;
    });
}

#[test]
fn the_contract_holds_over_https_with_a_certificate_for_two_projects() {
    with_incus(async |incus| {
        let project = contract_project(incus, "contract-https").on_another_network();
        let client = ClientCertificate::trusted(
            incus,
            "contract",
            &["--restricted", "--projects", "contract-https,contract-https-small"],
        );
        provider_contract::check(&project.over_https(client.with_fingerprint(&incus.server_certificate))).await;
    });
}
