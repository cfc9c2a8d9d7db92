//! What kube-apiserver says about its own work in its metrics.

use std::fmt;

use berth_tests::Berth;

use crate::usage::Requests;

/// What kube-apiserver has done, since its start or since an earlier reading.
#[derive(Clone, Default)]
pub(crate) struct Meter {
    /// Bytes that it has allocated, whether or not they were freed.
    pub(crate) bytes: f64,
    pub(crate) cpu_seconds: f64,
    /// Reads of single objects of Berth's kinds, and of EndpointSlices.
    pub(crate) reads: Requests,
    /// Writes that it refused because the object had changed, or because a test of a patch failed.
    pub(crate) conflicts: u64,
    pub(crate) webhook_calls: u64,
    pub(crate) writes: Requests,
}

impl Meter {
    /// Reads the metrics.
    pub(crate) async fn of(berth: &Berth) -> Self {
        let request = http::Request::get("/metrics").body(Vec::new()).unwrap();
        let text = berth.client().request_text(request).await.unwrap();
        let sum = |name: &str, is_meant: &dyn Fn(&str) -> bool| -> f64 {
            let lines =
                text.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
            lines.filter(|line| is_meant(line)).map(value).sum()
        };
        let of_berth =
            |line: &str| label(line, "group") == Some("berth.dev") || label(line, "resource") == Some("endpointslices");
        let is_refused = |line: &str| {
            of_berth(line) && label(line, "verb") != Some("GET") && matches!(label(line, "code"), Some("409" | "422"))
        };
        let is_ours = |line: &str| label(line, "name").is_some_and(|name| name.ends_with(".berth.dev"));
        Self {
            bytes: sum("go_memstats_alloc_bytes_total", &|_| true),
            cpu_seconds: sum("process_cpu_seconds_total", &|_| true),
            reads: Requests::reads_in(&text),
            conflicts: whole(sum("apiserver_request_total", &is_refused)),
            webhook_calls: whole(sum("apiserver_admission_webhook_admission_duration_seconds_count", &is_ours)),
            writes: Requests::writes_in(&text),
        }
    }

    /// What it has done since an earlier reading.
    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            bytes: self.bytes - before.bytes,
            cpu_seconds: self.cpu_seconds - before.cpu_seconds,
            reads: self.reads.since(&before.reads),
            conflicts: self.conflicts - before.conflicts,
            webhook_calls: self.webhook_calls - before.webhook_calls,
            writes: self.writes.since(&before.writes),
        }
    }

    /// Adds what it has done elsewhere.
    pub(crate) fn add(&mut self, other: &Self) {
        self.bytes += other.bytes;
        self.cpu_seconds += other.cpu_seconds;
        self.reads.add(&other.reads);
        self.conflicts += other.conflicts;
        self.webhook_calls += other.webhook_calls;
        self.writes.add(&other.writes);
    }
}

impl fmt::Display for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (megabytes, cpu) = (self.bytes / 1e6, self.cpu_seconds);
        let (calls, conflicts) = (self.webhook_calls, self.conflicts);
        write!(
            f,
            "{megabytes:.0} MB, {cpu:.2} CPU s, {calls} webhook calls, {conflicts} conflicts, writes: {}; GETs: {}",
            self.writes, self.reads
        )
    }
}

/// Whether a line of metrics is about a resource that Berth writes.
pub(crate) fn is_about_berth(line: &str) -> bool {
    let resource = label(line, "resource").unwrap_or_default();
    label(line, "group") == Some("berth.dev") || ["endpointslices", "events"].contains(&resource)
}

/// The value of a label in a line of metrics.
pub(crate) fn label<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let labels = line.split_once('{')?.1;
    let mut rest = labels;
    loop {
        let (key, after) = rest.split_once("=\"")?;
        let (value, next) = after.split_once('"')?;
        if key.trim_start_matches(',') == name {
            return Some(value);
        }
        rest = next;
    }
}

/// The value of a line of metrics.
pub(crate) fn value(line: &str) -> f64 {
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// A counter is a whole number.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
pub(crate) fn whole(count: f64) -> u64 {
    count as u64
}
