//! A small crate with metrics of every shape that is in use.

use std::fs;

use super::{page::push_section, registrations};

const CRATE: &str = r#"
type Durations<L> = Family<L, Histogram, fn() -> Histogram>;

struct CallLabels {
    provider: String,
    /// `ok` or `timeout`.
    result: &'static str,
}

struct Metrics {
    calls: Family<CallLabels, Counter>,
    seconds: Durations<CallLabels>,
    waiting: Gauge,
}

impl Metrics {
    fn register(&self, r: &mut Registry) {
        r.register("calls", "Calls", self.calls.clone());
        let help = "Duration of calls";
        let r = r.sub_registry_with_prefix("deep");
        r.register_with_unit("call", help, Unit::Seconds, Family::clone(&self.seconds));
    }

    fn also(waiting: &Gauge, readiness: &Readiness) {
        readiness.register("certificate");
        metrics.register(|r| r.register("waiting", "Calls that wait", waiting.clone()));
    }
}

#[cfg(test)]
mod tests {
    fn test(r: &mut Registry) {
        r.register("pings", "Pings", own.clone());
    }
}
"#;

fn metrics(text: &str) -> anyhow::Result<String> {
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("lib.rs"), text)?;
    let mut page = String::new();
    push_section(&mut page, "program", registrations::metrics(&folder.path().join("lib.rs"))?);
    Ok(page)
}

#[test]
fn metrics_are_listed_with_type_labels_and_meaning_as_they_are_exposed() {
    let expected = "
## program

| metric | type | labels | meaning |
| --- | --- | --- | --- |
| `berth_calls_total` | counter | `provider`, `result` (`ok` or `timeout`) | Calls |
| `berth_deep_call_seconds` | histogram | `provider`, `result` (`ok` or `timeout`) | Duration of calls |
| `berth_waiting` | gauge |  | Calls that wait |
";
    assert_eq!(metrics(CRATE).unwrap(), expected);
}

#[test]
fn a_metric_that_cannot_be_read_from_the_sources_is_an_error() {
    for (change, reason) in [
        (("\"waiting\", ", "NAME, "), "the name of a metric is not a literal"),
        (("\"Calls\"", "HELP"), "the help of the metric calls is not a literal"),
        (("waiting: Gauge,\n", ""), "no field `waiting` holds a metric"),
    ] {
        let error = metrics(&CRATE.replacen(change.0, change.1, 1)).unwrap_err();
        assert!(format!("{error:#}").contains(reason), "{error:#}");
    }
}
