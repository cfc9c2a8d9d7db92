use berth_core::api::{Server, VMDeployment};

use super::*;
use crate::{
    replica_set::newest_app,
    testing::{deployment, server},
};

fn sample(server: &str, value: f64) -> Sample {
    Sample { server: Some(server.to_owned()), namespace: None, value }
}

fn alone(value: f64) -> Sample {
    Sample { server: None, namespace: None, value }
}

fn sides() -> Sides<'static> {
    Sides::new("shop", ["web-0", "web-1"], ["web-2", "web-3"])
}

fn errors() -> Proportion {
    serde_json::from_value(serde_json::json!({"bad": "b", "total": "t", "maxIncrease": "0.005", "alpha": "0.01"}))
        .unwrap()
}

/// What is said, and whether it is data at all.
fn said(finding: &Finding) -> (Option<CheckVerdict>, &str) {
    match finding {
        Finding::Said(verdict, message) => (Some(*verdict), message),
        Finding::NoData(message) | Finding::Unknown(message) => (None, message),
    }
}

#[test]
fn a_number_or_that_of_each_server_with_the_new_version_meets_the_condition() {
    use CheckVerdict::{Fail, Pass};
    let series = |samples: &[Sample]| Answer::Series(samples.to_vec());
    let other = Sample { namespace: Some("other".into()), ..sample("web-0", 9.0) };
    for (answer, expected, words) in [
        (Answer::Scalar(0.5), Some(Pass), "0.5, wanted < 1"),
        (series(&[alone(0.5)]), Some(Pass), "0.5, wanted < 1"),
        (series(&[alone(2.0)]), Some(Fail), "2, wanted < 1"),
        (series(&[sample("web-0", 0.1), sample("web-1", 3.0)]), Some(Fail), "3 for Server web-1, wanted < 1"),
        (series(&[sample("web-0", 0.1), sample("web-2", 3.0)]), Some(Pass), "0.1 for Server web-0"),
        (series(&[sample("web-1", 0.1), other]), Some(Pass), "0.1 for Server web-1"),
        (series(&[sample("web-2", 3.0)]), None, "no number for a Server with the new version"),
        (series(&[]), None, "no number for a Server with the new version"),
        (series(&[alone(f64::NAN)]), None, "no number"),
        (series(&[alone(0.1), alone(0.2)]), None, "2 series without the label server: add `by (server)`"),
        (series(&[sample("web-0", 0.1), alone(0.2)]), None, "1 series without the label server, beside those of web-0"),
    ] {
        let found = value(&answer, "< 1", &sides());
        let (verdict, message) = said(&found);
        assert_eq!(verdict, expected, "{answer:?}: {message}");
        assert!(message.contains(words), "{answer:?}: {message}");
    }
    assert!(said(&value(&Answer::Scalar(1.0), "below 1", &sides())).1.contains("is no condition"));
}

/// The finding on these numbers of bad and all on web-0 to web-3.
fn of(bad: &[(&str, f64)], total: &[(&str, f64)]) -> Finding {
    let series =
        |numbers: &[(&str, f64)]| Answer::Series(numbers.iter().map(|(name, value)| sample(name, *value)).collect());
    proportion(&errors(), &series(bad), &series(total), &sides(), 10)
}

#[test]
fn a_proportion_is_compared_between_the_servers_of_both_versions() {
    let total = [("web-0", 5000.0), ("web-1", 5000.0), ("web-2", 5000.0), ("web-3", 5000.0), ("stranger", 9.0)];
    let bad = |canary: f64| [("web-0", canary), ("web-1", canary), ("web-2", 50.0), ("web-3", 50.0), ("stranger", 9.0)];
    for (canary, expected) in
        [(20.0, CheckVerdict::Pass), (60.0, CheckVerdict::Inconclusive), (150.0, CheckVerdict::Fail)]
    {
        let found = of(&bad(canary), &total);
        assert_eq!(said(&found).0, Some(expected), "{found:?}");
    }
    let found = of(&bad(150.0), &total);
    let text = "300 of 10000 bad on 2 of 2 Servers with the new version, 100 of 10000 bad on 2 of 2 Servers with another one: between ";
    assert!(said(&found).1.starts_with(text) && said(&found).1.ends_with(", at most 0.005 may be"), "{found:?}");
}

#[test]
fn a_server_counts_only_with_both_numbers_and_one_alone_is_said() {
    let total = [("web-0", 5000.0), ("web-1", 5000.0), ("web-2", 50_000.0), ("web-3", f64::NAN)];
    let found = of(&[("web-0", 1.0), ("web-2", 500.0), ("web-3", 1.0)], &total);
    let (verdict, message) = said(&found);
    assert_eq!(verdict, Some(CheckVerdict::Pass));
    assert!(
        message.starts_with("1 of 5000 bad on 1 of 2 Servers with the new version, 500 of 50000 bad on 1 of 2"),
        "{message}"
    );
    assert!(message.ends_with("one Server alone cannot tell the version from the machine"), "{message}");
}

#[test]
fn what_was_not_measured_or_cannot_be_is_never_a_verdict() {
    let all = [("web-0", 500.0), ("web-1", 500.0), ("web-2", 500.0), ("web-3", 500.0)];
    let old = [("web-2", 500.0), ("web-3", 500.0)];
    let zeros = all.map(|(name, _)| (name, 0.0));
    for (bad, total, is_no_data, words) in [
        (&[][..], &all[..], true, "let it return 0: add `or 0 * <the query for the total>`"),
        (&[], &[], true, "nothing was counted on Servers with the new version (2 of them)"),
        (&zeros, &zeros, true, "nothing was counted on Servers with the new version"),
        (&old, &old, true, "nothing was counted on Servers with the new version"),
        // The new version has another name for what is bad.
        (&old, &all, true, "nothing was counted on Servers with the new version"),
        (&all[..2], &all[..2], true, "nothing was counted on Servers with another version (2 of them)"),
        (&[("web-0", 900.0), ("web-2", 1.0)], &all, false, "on Server web-0 900 of 500 were bad, which cannot be"),
        (&[("web-0", -1.0), ("web-2", 1.0)], &all, false, "which cannot be"),
    ] {
        let found = of(bad, total);
        assert_eq!(said(&found).0, None, "{found:?}");
        assert_eq!(matches!(found, Finding::NoData(_)), is_no_data, "{found:?}");
        assert!(said(&found).1.contains(words), "{found:?}");
    }
    let series = Answer::Series(vec![alone(1.0), sample("web-0", 1.0)]);
    for (bad, total, words) in [
        (&series, &series, "bad: the query returns 1 series without the label server"),
        (&Answer::Scalar(1.0), &series, "bad: the query returns one number, and one for each Server is needed"),
    ] {
        let found = proportion(&errors(), bad, total, &sides(), 10);
        assert!(matches!(&found, Finding::Unknown(message) if message.contains(words)), "{found:?}");
    }
}

fn latency(alpha: &str) -> Shift {
    serde_json::from_value(serde_json::json!({"query": "q", "maxIncrease": "0.05", "alpha": alpha})).unwrap()
}

/// What is said of these numbers of ten Servers with the new version and thirty with another one.
fn shifted(new: impl Fn(u32) -> f64, old: impl Fn(u32) -> f64) -> Finding {
    let names: Vec<String> = (0..40).map(|n| format!("web-{n}")).collect();
    let (canary, baseline) = names.split_at(10);
    let sides = Sides::new("shop", canary.iter().map(String::as_str), baseline.iter().map(String::as_str));
    let number = |n: u32| if n < 10 { new(n) } else { old(n) };
    let samples = names.iter().zip(0..).map(|(name, n)| sample(name, number(n))).collect();
    shift(&latency("0.01"), &Answer::Series(samples), &sides, 10)
}

#[test]
fn a_shift_is_judged_by_the_ranks_of_the_servers() {
    let usual = |n: u32| 0.2 + f64::from(n % 10) / 1000.0;
    for (by, expected) in [(0.0, CheckVerdict::Pass), (0.05, CheckVerdict::Inconclusive), (0.2, CheckVerdict::Fail)] {
        let found = shifted(|n| usual(n) + by, usual);
        assert_eq!(said(&found).0, Some(expected), "{found:?}");
    }
    let found = shifted(|n| if n == 3 { 60.0 } else { usual(n) }, usual);
    let (verdict, message) = said(&found);
    assert_eq!(verdict, Some(CheckVerdict::Pass), "one Server that is far off is no shift");
    let text = "median 0.206 on 10 of 10 Servers with the new version, 0.205 on 30 of 30 with another one: between ";
    assert!(message.starts_with(text) && message.ends_with(" more, at most 0.05 may be"), "{message}");
}

#[test]
fn too_few_servers_for_a_shift_say_so_and_what_is_no_number_is_none() {
    let four = |numbers: [f64; 4]| {
        let samples = (0..4).map(|n| sample(&format!("web-{n}"), numbers[n])).collect();
        shift(&latency("0.01"), &Answer::Series(samples), &sides(), 1)
    };
    let found = four([9.0, 9.0, 1.0, 1.0]);
    assert_eq!(said(&found).0, Some(CheckVerdict::Inconclusive));
    assert!(said(&found).1.ends_with("too few Servers for so small an alpha"), "{found:?}");
    for (numbers, is_no_data, words) in [
        ([f64::NAN, f64::NAN, 1.0, 1.0], true, "no number for a Server with the new version (2 of them)"),
        ([1.0, 1.0, f64::NAN, f64::NAN], true, "no number for a Server with another version (2 of them)"),
        ([1.0, f64::INFINITY, 1.0, 1.0], false, "the highest bucket of its histogram is too low"),
    ] {
        let found = four(numbers);
        assert_eq!(said(&found).0, None, "{found:?}");
        assert!(matches!(found, Finding::NoData(_)) == is_no_data && said(&found).1.contains(words), "{found:?}");
    }
    let one = shift(&latency("0.01"), &Answer::Scalar(1.0), &sides(), 1);
    assert!(said(&one).1.contains("one for each Server is needed"), "{one:?}");
}

#[test]
fn the_new_version_is_compared_with_the_baseline_alone_and_the_message_says_so() {
    let servers = with_marks(&[("web-2", "m"), ("web-3", ""), ("web-4", "m")]);
    let deployment = with_baseline();
    let sides = of_baseline(&deployment, &servers);
    // The Servers that were not restarted have many errors, and would excuse the new version.
    let total = ["web-0", "web-1", "web-2", "web-3", "web-4"].map(|name| sample(name, 5000.0));
    let bad = [150.0, 150.0, 50.0, 4000.0, 50.0];
    let bad: Vec<Sample> = total.iter().zip(bad).map(|(known, value)| Sample { value, ..known.clone() }).collect();
    let found = proportion(&errors(), &Answer::Series(bad.clone()), &Answer::Series(total.to_vec()), &sides, 10);
    let (verdict, message) = said(&found);
    let text = "300 of 10000 bad on 2 of 2 Servers with the new version, 100 of 10000 bad on 2 of 2 Servers of the baseline \
                (web-2, web-4): between ";
    assert!(verdict == Some(CheckVerdict::Fail) && message.starts_with(text), "{found:?}");

    let found = shift(&latency("0.4"), &Answer::Series(bad), &sides, 1);
    let text =
        "median 150 on 2 of 2 Servers with the new version, 50 on 2 of 2 of the baseline (web-2, web-4): between ";
    assert!(said(&found).0 == Some(CheckVerdict::Fail) && said(&found).1.starts_with(text), "{found:?}");

    let none = proportion(&errors(), &Answer::Series(vec![]), &Answer::Series(total[..2].to_vec()), &sides, 10);
    assert!(matches!(&none, Finding::NoData(_)), "{none:?}");
    let (bad, total) = (Answer::Series(total[..2].to_vec()), Answer::Series(total[..2].to_vec()));
    let none = proportion(&errors(), &bad, &total, &sides, 10);
    assert!(said(&none).1.starts_with("nothing was counted on Servers of the baseline (2 of them)"), "{none:?}");
}

#[test]
fn without_a_baseline_server_that_is_left_there_is_no_verdict() {
    let servers = with_marks(&[("web-2", ""), ("web-3", "")]);
    let deployment = with_baseline();
    let sides = of_baseline(&deployment, &servers);
    let all = Answer::Series(["web-0", "web-1", "web-2", "web-3"].map(|name| sample(name, 5.0)).to_vec());
    for found in [proportion(&errors(), &all, &all, &sides, 1), shift(&latency("0.4"), &all, &sides, 1)] {
        assert!(matches!(&found, Finding::NoData(text) if text.starts_with("no Server is left that was")), "{found:?}");
    }
}

/// A roll-out of v2 that has restarted Servers with the mark `m`.
fn with_baseline() -> VMDeployment {
    let steps = serde_json::json!([{"servers": 1}, {"baseline": {"servers": 2}}, {"pause": {}}]);
    let mut deployment = deployment("v2", |spec| spec["rollout"] = serde_json::json!({"steps": steps}));
    let progress = serde_json::json!({"digest": "x", "healthyReplicas": 1, "stepsDone": 2,
        "baseline": {"mark": "m", "since": "2026-11-28T00:00:00Z"}});
    deployment.status = Some(serde_json::from_value(serde_json::json!({"rollout": progress})).unwrap());
    deployment
}

/// Two Servers with v2, and these with v1 and their marks.
fn with_marks(old: &[(&str, &str)]) -> Vec<Server> {
    let mut servers = ["web-0", "web-1"].map(|name| server(name, "v2", "Ready", 9)).to_vec();
    servers.extend(old.iter().map(|(name, mark)| {
        let mut old = server(name, "v1", "Ready", 9);
        old.spec.app.as_mut().unwrap().baseline = (!mark.is_empty()).then(|| (*mark).to_owned());
        old
    }));
    servers
}

fn of_baseline<'a>(deployment: &'a VMDeployment, servers: &'a [Server]) -> Sides<'a> {
    let servers: Vec<&Server> = servers.iter().collect();
    let progress = deployment.status.as_ref().unwrap().rollout.as_ref();
    Sides::of(deployment, &servers, &newest_app(deployment), progress)
}
