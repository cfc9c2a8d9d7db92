//! One suite of behaviours for the API server in memory and for a real kube-apiserver: what passes here on both is what the
//! simulation may rely on.
#![cfg(test)]

mod creates;
mod deletes;
mod lab;
mod lists;
mod patches;
mod rights;
mod updates;
mod watches;

use std::{panic::AssertUnwindSafe, path::Path};

use berth_control_plane::{ControlPlane, ControlPlaneOptions};
use berth_sim::{ApiServer, SimClock};
use futures::FutureExt as _;

use lab::Lab;

/// Runs each behaviour on the API server in memory as a test of its own, and all of them on one real kube-apiserver.
macro_rules! behaviours {
    ($($module:ident :: $name:ident),* $(,)?) => {
        mod in_memory {
            $(
                #[tokio::test(start_paused = true)]
                async fn $name() {
                    super::in_memory(|lab| super::$module::$name(lab)).await;
                }
            )*
        }

        #[tokio::test]
        async fn a_real_api_server_behaves_the_same() {
            let control_plane = ControlPlane::start(ControlPlaneOptions::default()).await.unwrap();
            let crds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/crds");
            control_plane.install(&crds, None).await.unwrap();
            let mut failed = Vec::new();
            $(
                let lab = Lab::new(control_plane.admin_client(), stringify!($name)).await;
                if AssertUnwindSafe($module::$name(lab)).catch_unwind().await.is_err() {
                    failed.push(stringify!($name));
                }
            )*
            control_plane.stop().await.unwrap();
            assert!(failed.is_empty(), "the real API server differs in {failed:?}: see the panics above");
        }
    };
}

behaviours!(
    creates::a_new_object_gets_what_only_the_api_server_writes,
    creates::unknown_fields_are_removed_and_defaults_added,
    creates::a_default_of_the_status_shows_that_nobody_has_observed_the_object,
    creates::a_name_is_given_once,
    creates::a_namespace_has_to_exist,
    creates::a_name_has_to_be_a_dns_name,
    creates::a_generated_name_begins_with_its_prefix,
    creates::what_the_schema_refuses_is_named,
    creates::what_a_rule_refuses_is_said_in_its_words,
    creates::a_document_of_another_kind_is_refused,
    creates::built_in_kinds_are_stored_as_they_are_written,
    updates::an_update_needs_the_current_version,
    updates::an_update_of_another_object_of_the_same_name_is_refused,
    updates::what_changes_nothing_is_no_new_version,
    updates::only_the_declaration_counts_as_a_generation,
    updates::a_write_to_the_object_leaves_its_status,
    updates::a_write_to_the_status_leaves_everything_else,
    updates::a_rule_may_compare_with_the_past,
    updates::the_scale_of_an_object_is_its_replicas,
    patches::a_json_patch_whose_test_fails_changes_nothing,
    patches::a_json_patch_may_test_the_version,
    patches::a_merge_patch_removes_what_is_null,
    patches::an_apply_creates_and_repeats_without_a_change,
    patches::an_apply_of_a_version_that_has_changed_is_a_conflict,
    patches::an_apply_removes_what_it_no_longer_names,
    patches::an_apply_leaves_what_others_wrote,
    patches::an_apply_gives_a_revision_a_new_number,
    patches::a_patch_of_an_unknown_format_is_refused,
    deletes::an_object_without_finalizers_is_gone_at_once,
    deletes::an_object_with_finalizers_waits_for_them,
    deletes::no_finalizer_is_added_to_what_is_being_deleted,
    deletes::a_delete_may_name_what_it_means,
    deletes::what_belongs_to_an_owner_goes_with_it,
    lists::a_list_is_in_the_order_of_names,
    lists::labels_select,
    lists::fields_select,
    lists::pages_show_one_moment,
    lists::metadata_is_shown_alone,
    lists::what_is_not_there_is_not_found,
    rights::who_has_no_right_is_refused_in_words,
    rights::a_refusal_names_the_place,
    watches::a_watch_shows_each_change_after_its_version,
    watches::a_watch_that_selects_shows_who_comes_and_goes,
    watches::a_watch_ends_at_its_time,
    watches::a_version_that_is_too_old_is_refused,
    watches::metadata_is_watched_alone,
);

async fn in_memory<F: Future<Output = ()>>(behaviour: impl FnOnce(Lab) -> F) {
    let api = ApiServer::new(SimClock::start(), None).unwrap();
    let mut lab = Lab::new(api.client("admin"), "simulated").await;
    lab.in_memory = Some(api.clone());
    let collector = api.clone();
    tokio::select! {
        () = behaviour(lab) => {}
        () = collector.collect_garbage() => {}
    }
}

/// Rules that the simulation does not evaluate: the real API server and its tests have to.
#[tokio::test]
async fn the_rules_that_are_not_evaluated_are_known() {
    let api = ApiServer::new(SimClock::start(), None).unwrap();
    let functions = ["format.", "isSorted", "type("];
    let rules = api.unsupported_rules();
    assert!(!rules.is_empty());
    for rule in rules {
        assert!(functions.iter().any(|function| rule.contains(function)), "not evaluated: {rule}");
    }
}
