//! A judge: no object is written or read again and again, as fast as possible. Two copies that contradict each other do that, and so
//! does one that tries again without a pause.

use std::{
    borrow::Cow,
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use http::Method;
use serde_json::Value;

/// The time in which requests are counted.
const WINDOW: Duration = Duration::from_mins(1);
/// The most writes of one object within that time, whatever the answers were. Runs that go well stay below 250: many copies write
/// the status of one set, and conflict. A hot loop makes thousands.
const MOST_WRITES: usize = 600;
/// The most reads of one object, or lists and watches of one collection. Runs that go well stay below 300.
const MOST_READS: usize = 600;

/// What a request is about: a Server that is created, or else the path. A large set creates hundreds of Servers within a second, and a
/// loop creates the same ones again and again. Other objects that are created count together: the names of Events are all different.
pub(crate) fn subject<'a>(method: &Method, path: &'a str, body: &[u8]) -> Cow<'a, str> {
    if *method != Method::POST || !path.ends_with("/servers") {
        return path.into();
    }
    let created: Value = serde_json::from_slice(body).unwrap_or_default();
    created["metadata"]["name"].as_str().map_or(path.into(), |name| format!("{path}/{name}").into())
}

/// The requests of the last minute, by object or collection.
#[derive(Default)]
pub(crate) struct RecentRequests {
    /// When there was a write (true) or a read of this path.
    times: BTreeMap<(bool, String), VecDeque<Duration>>,
    finding: Option<String>,
}

impl RecentRequests {
    /// Counts a request that is answered now.
    pub(crate) fn count(&mut self, method: &Method, path: &str, now: Duration) {
        let is_write = *method != Method::GET;
        // An object and its subresources are one.
        let object = path.trim_end_matches("/status").trim_end_matches("/scale");
        let times = self.times.entry((is_write, object.to_owned())).or_default();
        times.push_back(now);
        while times.front().is_some_and(|time| *time + WINDOW < now) {
            times.pop_front();
        }
        let (most, what) = if is_write { (MOST_WRITES, "writes") } else { (MOST_READS, "reads") };
        if times.len() > most && self.finding.is_none() {
            let (at, seconds) = (now.as_millis(), WINDOW.as_secs());
            self.finding = Some(format!("{at} ms: a hot loop: more than {most} {what} of {object} within {seconds} s"));
        }
    }

    /// The first hot loop.
    pub(crate) fn hot_loop(&self) -> Option<String> {
        self.finding.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the judge says of so many requests for one object and its status, one after each pause, and of another object at rest.
    fn judged(method: &Method, requests: usize, pause: Duration) -> Option<String> {
        let mut recent = RecentRequests::default();
        for (number, path) in (0..requests).zip(["/servers/web-0", "/servers/web-0/status"].into_iter().cycle()) {
            recent.count(method, path, pause * u32::try_from(number).unwrap());
            recent.count(method, "/servers/web-1", Duration::from_secs(1) * u32::try_from(number).unwrap());
        }
        recent.hot_loop()
    }

    #[test]
    fn a_server_that_is_created_counts_by_its_name() {
        let subject = |method, path| subject(method, path, br#"{"metadata":{"name":"web-0"}}"#).into_owned();
        assert_eq!(subject(&Method::POST, "/namespaces/default/servers"), "/namespaces/default/servers/web-0");
        assert_eq!(subject(&Method::GET, "/namespaces/default/servers"), "/namespaces/default/servers");
        assert_eq!(subject(&Method::POST, "/namespaces/default/events"), "/namespaces/default/events");
    }

    #[test]
    fn too_many_requests_for_one_object_within_a_minute_are_found() {
        let quick = Duration::from_millis(1);
        assert_eq!(judged(&Method::PATCH, MOST_WRITES, quick), None);
        let found = judged(&Method::PATCH, MOST_WRITES + 1, quick).unwrap();
        assert_eq!(found, "600 ms: a hot loop: more than 600 writes of /servers/web-0 within 60 s");
        assert_eq!(judged(&Method::PATCH, 10 * MOST_WRITES, WINDOW / 300), None, "not within a minute");
        assert_eq!(judged(&Method::GET, MOST_READS, quick), None);
        assert!(judged(&Method::GET, MOST_READS + 1, quick).is_some());
    }
}
