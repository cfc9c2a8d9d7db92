use super::*;

const RULES: ProxyRules = ProxyRules {
    expected: None,
    learn_for: Duration::from_secs(10),
    forget_after: Duration::from_mins(2),
    takes_effect: Duration::ZERO,
};

fn version(text: &str) -> AssignmentVersion {
    AssignmentVersion::of_request(text)
}

fn after(start: Instant, seconds: u64) -> Instant {
    start + Duration::from_secs(seconds)
}

/// Two proxies that have asked `asks` seconds after the start and run these versions.
fn two(start: Instant, asks: u64, runs: [&str; 2]) -> Proxies {
    let mut proxies = Proxies::new(start);
    for (id, runs) in ["a", "b"].into_iter().zip(runs) {
        proxies.asks(id, Some(version(runs)), None, &RULES, after(start, asks));
    }
    proxies
}

/// What is known of the only proxy.
fn only(proxies: &Proxies, now: Instant) -> ProxyStatus {
    let (mut all, others) = proxies.by_version(&RULES, now, |_| true);
    all.extend(others);
    assert_eq!(all.len(), 1);
    all.remove(0)
}

#[test]
fn a_version_counts_when_the_workers_act_on_it_and_an_earlier_one_until_then() {
    let start = Instant::now();
    let rules = ProxyRules { expected: Some(1), takes_effect: Duration::from_secs(2), ..RULES };
    let mut proxies = Proxies::new(start);
    let act_on = |proxies: &Proxies, text: &str, seconds| {
        proxies.all_act_on(&rules, after(start, seconds), |runs| *runs == version(text))
    };
    proxies.asks("a", Some(version("1")), None, &rules, start);
    assert!(!act_on(&proxies, "1", 1) && act_on(&proxies, "1", 2));
    assert_eq!(proxies.changes_at(&rules, after(start, 1)), Some(after(start, 2)));
    proxies.asks("a", Some(version("2")), None, &rules, after(start, 5));
    assert!(act_on(&proxies, "1", 6) && !act_on(&proxies, "2", 6) && act_on(&proxies, "2", 7));
    proxies.asks("a", None, None, &rules, after(start, 8));
    assert!(!act_on(&proxies, "2", 8) && !act_on(&proxies, "1", 20), "it was started again");
}

#[test]
fn everybody_has_applied_it_only_when_everybody_is_known() {
    let start = Instant::now();
    let all = |proxies: &Proxies, rules: &ProxyRules, seconds| {
        proxies.all_act_on(rules, after(start, seconds), |runs| *runs == version("2"))
    };
    let proxies = two(start, 1, ["2", "2"]);
    assert!(!all(&proxies, &RULES, 9), "a third proxy may not have asked yet");
    assert!(all(&proxies, &RULES, 10));
    assert!(all(&proxies, &ProxyRules { expected: Some(2), ..RULES }, 1), "nobody has to be waited for");
    assert!(!all(&proxies, &ProxyRules { expected: Some(3), ..RULES }, 1000), "one has never asked");
    assert!(!all(&two(start, 1, ["2", "1"]), &RULES, 20));
    assert!(!all(&Proxies::new(start), &RULES, 1000), "nobody has asked, so nobody has applied it");
}

#[test]
fn a_silent_proxy_is_waited_for_until_it_is_given_up() {
    let start = Instant::now();
    let mut proxies = two(start, 0, ["2", "1"]);
    proxies.asks("a", Some(version("2")), None, &RULES, after(start, 100));
    let good = |runs: &AssignmentVersion| *runs == version("2");
    proxies.forget(&RULES, after(start, 120));
    assert!(!proxies.all_act_on(&RULES, after(start, 120), good));
    let later = proxies.changes_at(&RULES, after(start, 120)).unwrap();
    proxies.forget(&RULES, later);
    assert!(proxies.all_act_on(&RULES, later, good), "{later:?}");
    assert!(
        !proxies.all_act_on(&ProxyRules { expected: Some(2), ..RULES }, later, good),
        "with a number, a missing one counts"
    );
}

#[test]
fn a_proxy_that_was_sent_a_version_twice_and_runs_another_rejects_it() {
    let start = Instant::now();
    let mut proxies = Proxies::new(start);
    let (one, two) = (version("1"), version("2"));
    proxies.asks("a", Some(one.clone()), None, &RULES, start);
    proxies.sent("a", &two);
    assert_eq!(proxies.asks("a", Some(one.clone()), None, &RULES, start), None, "the answer may have been lost");
    proxies.sent("a", &two);
    let rejection = proxies.asks("a", Some(one.clone()), None, &RULES, start).unwrap();
    assert!(rejection.version == two && rejection.message.contains("2 times"), "{rejection:?}");
    proxies.sent("a", &two);
    assert_eq!(proxies.asks("a", Some(one), None, &RULES, start), None, "that is known");
    let status = only(&proxies, after(start, 1));
    let text = status.to_string();
    assert!(text.starts_with("proxy `a` rejects 2: it was sent this version 3 times"), "{text}");
    assert!(
        text.contains("`REST config for /v3/discovery:endpoints rejected`") && text.ends_with("(it asked 1000 ms ago)"),
        "{text}"
    );
    proxies.asks("a", Some(two), None, &RULES, after(start, 2));
    let status = only(&proxies, after(start, 3));
    assert_eq!((status.rejection, status.asks_every), (None, Some(Duration::from_secs(2))));
}

#[test]
fn the_words_of_a_proxy_that_says_why_are_kept() {
    let start = Instant::now();
    let mut proxies = Proxies::new(start);
    proxies.asks("a", None, None, &RULES, start);
    proxies.sent("a", &version("1"));
    let rejection = proxies.asks("a", None, Some("weight: must be at least 1".to_owned()), &RULES, start);
    assert_eq!(rejection.unwrap().message, "weight: must be at least 1");
    proxies.sent("a", &version("2"));
    assert_eq!(proxies.asks("a", None, None, &RULES, start), None);
    assert_eq!(only(&proxies, start).rejection, None, "that was another version");
}
