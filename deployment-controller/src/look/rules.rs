//! What Prometheus says about its alerting rules. Pure.
//!
//! Rules and not only the alerts that fire are asked for: that a rule is missing, or could not be evaluated, must not pass for an alarm that
//! does not fire.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::alarms::Seen;

#[derive(Deserialize)]
struct Envelope {
    #[serde(default)]
    data: Option<Groups>,
    #[serde(default)]
    error: Option<String>,
}

#[derive(Deserialize)]
struct Groups {
    #[serde(default)]
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    #[serde(default)]
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
struct Rule {
    #[serde(default)]
    name: String,
    #[serde(default)]
    health: String,
    #[serde(default, rename = "lastError")]
    last_error: String,
    #[serde(default)]
    alerts: Vec<Alert>,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct Alert {
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    state: String,
}

/// Which of these alarms fire, by the body of an answer to `/api/v1/rules`. `labels`: what an alert must have to count.
pub(super) fn parse(
    code: u16,
    body: &[u8],
    names: &[String],
    labels: &BTreeMap<String, String>,
) -> Result<Seen, String> {
    let envelope: Envelope = serde_json::from_slice(body).map_err(|_| super::answer::not_understood(code))?;
    let Some(data) = envelope.data else {
        return Err(format!("it refuses to name its rules: {}", envelope.error.unwrap_or_default()));
    };
    let rules: Vec<Rule> =
        data.groups.into_iter().flat_map(|group| group.rules).filter(|rule| rule.kind == "alerting").collect();
    let mut seen = Seen::default();
    let mut unknown = Vec::new();
    for name in names {
        let mut found = rules.iter().filter(|rule| rule.name == *name).peekable();
        if found.peek().is_none() {
            unknown.push(format!("there is no alerting rule {name}"));
        }
        let mut fires = false;
        for rule in found {
            fires |= rule.alerts.iter().any(|alert| alert.state == "firing" && has(&alert.labels, labels));
            match rule.health.as_str() {
                "ok" => {}
                "err" => unknown.push(format!("rule {name} could not be evaluated: {}", rule.last_error)),
                _ => unknown.push(format!("rule {name} was not evaluated yet")),
            }
        }
        if fires {
            seen.firing.push(name.clone());
        }
    }
    seen.unknown = (!unknown.is_empty()).then(|| unknown.join(", "));
    Ok(seen)
}

fn has(labels: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> bool {
    wanted.iter().all(|(label, value)| labels.get(label) == Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(rules: &str, names: &[&str], labels: &[(&str, &str)]) -> Seen {
        let body = format!(r#"{{"status":"success","data":{{"groups":[{{"name":"g","rules":[{rules}]}}]}}}}"#);
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let labels = labels.iter().map(|(label, value)| ((*label).to_owned(), (*value).to_owned())).collect();
        parse(200, body.as_bytes(), &names, &labels).unwrap()
    }

    fn rule(name: &str, health: &str, alerts: &str) -> String {
        format!(
            r#"{{"type":"alerting","name":"{name}","health":"{health}","lastError":"bad","state":"x","alerts":[{alerts}]}}"#
        )
    }

    fn alert(state: &str, namespace: &str) -> String {
        format!(r#"{{"labels":{{"alertname":"A","namespace":"{namespace}"}},"state":"{state}","value":"1"}}"#)
    }

    #[test]
    fn only_alerts_that_fire_and_have_the_labels_count() {
        let (firing, pending) = (alert("firing", "shop"), alert("pending", "shop"));
        for (alerts, labels, expected) in [
            (firing.clone(), &[][..], true),
            (pending.clone(), &[], false),
            (format!("{pending},{firing}"), &[("namespace", "shop")], true),
            (firing.clone(), &[("namespace", "other")], false),
            (firing, &[("team", "shop")], false),
            (String::new(), &[], false),
        ] {
            let seen = seen(&rule("A", "ok", &alerts), &["A"], labels);
            assert_eq!((seen.firing.len(), seen.unknown), (usize::from(expected), None), "{alerts} {labels:?}");
        }
    }

    #[test]
    fn a_rule_that_is_missing_or_was_not_evaluated_is_unknown_and_never_quiet() {
        for (rules, words) in [
            (rule("B", "ok", ""), "there is no alerting rule A"),
            (rule("A", "ok", "").replace("alerting", "recording"), "there is no alerting rule A"),
            (rule("A", "err", ""), "rule A could not be evaluated: bad"),
            (rule("A", "unknown", ""), "rule A was not evaluated yet"),
            (format!("{},{}", rule("A", "ok", ""), rule("A", "err", "")), "could not be evaluated"),
        ] {
            let seen = seen(&rules, &["A"], &[]);
            assert!(seen.unknown.as_ref().is_some_and(|unknown| unknown.contains(words)), "{seen:?}");
        }
        let both = seen(&format!("{},{}", rule("A", "ok", &alert("firing", "x")), rule("A", "err", "")), &["A"], &[]);
        assert!(both.firing == ["A"] && both.unknown.is_some(), "what fires fires: {both:?}");
        assert!(parse(503, b"no", &[], &BTreeMap::new()).unwrap_err().contains("status 503"));
        assert!(parse(200, br#"{"status":"error","error":"why"}"#, &[], &BTreeMap::new()).unwrap_err().contains("why"));
    }
}
