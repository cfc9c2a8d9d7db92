//! What objects say of when something happened is by the clock of a copy of the webhook: judges do not rely on it.

use super::*;

/// A lock that a webhook has given whose clock says this time.
fn acquired(at: &str) -> Value {
    json!({"lock": {"acquiredAt": at, "renewedAt": at}})
}

/// Its holder did not hear that its claim was accepted, and finds the lock later.
#[tokio::test(start_paused = true)]
async fn a_lock_that_its_holder_finds_later_counts_like_one_that_was_handed_over() {
    let lab = Lab::new();
    let uid = lab.serving("web-0", json!({})).await;
    let mut status = json!({"lock": lock(HOLDER)});
    json_patch::merge(&mut status, &acquired("2026-01-01T00:00:00Z"));
    lab.set_status("web-0", status).await;
    lab.court.see_claim("default", "web-0", HOLDER);
    tokio::time::sleep(Duration::from_secs(70)).await;
    lab.work(&uid);
    lab.assert_nothing();
    tokio::time::sleep(Duration::from_secs(10)).await;
    lab.work(&uid);
    assert!(lab.found(Judge::Lock).contains("after its lock had ended"), "{:?}", lab.findings.first());
}

#[tokio::test(start_paused = true)]
async fn work_is_judged_by_when_a_force_came_and_not_by_what_the_force_says() {
    let force = |at| json!({"spec": {"force": {"state": "Unknown", "reason": "a test", "at": at}}});
    for (locked_at, forced_at) in [
        ("2025-12-31T23:59:30Z", "2025-12-31T23:59:40Z"),
        ("2026-01-01T00:01:10Z", "2025-12-31T23:59:40Z"),
        ("2026-01-01T00:01:10Z", "2026-01-01T00:01:20Z"),
    ] {
        let lab = Lab::new();
        let uid = lab.serving("web-0", json!({})).await;
        let script = |seconds| {
            let (server, age, before, after) =
                ("default/web-0", Duration::from_secs(seconds), &runs("v1"), &runs("v2"));
            lab.court.see_work(&Deed { server, uid: &uid, holder: HOLDER, age, ends: true, before, after });
        };
        tokio::time::sleep(Duration::from_secs(10)).await;
        let mut status = json!({"lock": lock(HOLDER)});
        json_patch::merge(&mut status, &acquired(locked_at));
        lab.set_status("web-0", status).await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        lab.patch("ann", "web-0", force(forced_at)).await;
        lab.set_status("web-0", json!({"force": {"id": "f", "active": true}})).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        script(10);
        // Another script of the task that was begun before: its holder does not know of the force yet.
        script(2);
        lab.assert_nothing();
        lab.set_status("web-0", acquired("2026-01-01T00:01:30Z")).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        script(0);
        assert!(lab.found(Judge::Decisions).contains("forced to Unknown"), "{:?}", lab.findings.first());
    }
}
