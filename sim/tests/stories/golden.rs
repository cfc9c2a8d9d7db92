//! The logs in `logs/`: how a story is compared with the one that was accepted.
//!
//! A log says the same if each subject goes through the same, in the same order and at about the same times. So it stays as it is when a
//! program sends one more request, or wakes up a second later.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::PathBuf,
};

use crate::chronicle::{Line, clock};

/// How far a time may differ, and by which share of it besides: a delay of each Server moves everything after it.
const TOLERANCE: (u64, u64) = (6, 10);
/// Begins the part of a log that says how everything is when the story is over.
const END: &str = "In the end:";
/// Set to accept what is told now.
const ACCEPT: &str = "BERTH_ACCEPT";

/// A story as a text.
pub(crate) fn written(about: &str, lines: &[Line], end: &[(String, String)]) -> String {
    let mut text = format!("# {about}\n\n");
    for Line { at, subject, text: what } in lines {
        let _ = writeln!(text, "{}  {subject:<6} {what}", clock(*at));
    }
    let _ = writeln!(text, "\n{END}");
    // Which of several Servers was removed, or replaced, does not matter then.
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (subject, what) in end {
        if subject.contains('-') {
            *counts.entry(what).or_default() += 1;
        } else {
            let _ = writeln!(text, "       {subject:<6} {what}");
        }
    }
    for (what, count) in counts {
        let _ = writeln!(text, "       {:<6} {what}", format!("{count} x"));
    }
    text
}

/// Compares a story with the accepted one.
///
/// # Panics
/// When they differ.
pub(crate) fn compare(name: &str, told: &str) {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/stories/logs").join(format!("{name}.log"));
    let accepted = fs::read_to_string(&file).unwrap_or_default();
    if is_same(&accepted, told) {
        return;
    }
    if std::env::var_os(ACCEPT).is_some() {
        fs::write(&file, told).unwrap();
        return;
    }
    panic!(
        "the story {name} is told otherwise than in {} (- there, + now):\n{}\nIf it is right now, \
         `{ACCEPT}=1 cargo test -p berth-sim --test stories {name}` writes it there.",
        file.display(),
        difference(&accepted, told)
    );
}

/// How everything is in the end of the accepted story. Times are left out.
pub(crate) fn accepted_end(name: &str) -> Vec<String> {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/stories/logs").join(format!("{name}.log"));
    end_of(&fs::read_to_string(&file).unwrap_or_default())
}

/// How everything is in the end of this story. Times are left out.
pub(crate) fn end_of(text: &str) -> Vec<String> {
    let end = text.split_once(END).map_or("", |(_, end)| end);
    end.lines().filter(|line| !line.is_empty()).map(|line| without_times(line).0).collect()
}

fn is_same(accepted: &str, told: &str) -> bool {
    let (one, other) = (by_subject(accepted), by_subject(told));
    let is_like = |one: &&str, other: &&str| {
        let ((one, its), (other, others)) = (without_times(one), without_times(other));
        one == other && its.len() == others.len() && its.iter().zip(&others).all(|(one, other)| is_near(*one, *other))
    };
    one.len() == other.len()
        && one.iter().zip(&other).all(|((name, lines), (other_name, others))| {
            name == other_name
                && lines.len() == others.len()
                && lines.iter().zip(others).all(|(line, other)| is_like(line, other))
        })
}

fn is_near(one: u64, other: u64) -> bool {
    one.abs_diff(other) <= TOLERANCE.0 + one.max(other) / TOLERANCE.1
}

/// The lines of each subject. What is not about one is about the story.
fn by_subject(text: &str) -> BTreeMap<String, Vec<&str>> {
    let mut subjects: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        let is_about_one = !line.starts_with('#') && line != END;
        let subject = line.get(7..).filter(|_| is_about_one).and_then(|rest| rest.split_whitespace().next());
        subjects.entry(subject.unwrap_or_default().to_owned()).or_default().push(line);
    }
    subjects
}

/// The line with a mark in place of each time, and the times in seconds.
fn without_times(line: &str) -> (String, Vec<u64>) {
    let (mut text, mut times) = (String::new(), Vec::new());
    for word in line.split_inclusive(' ') {
        let bare = word.trim_end_matches([' ', ',', ';', ')', ':']);
        let time = bare.split_once(':').filter(|(_, seconds)| seconds.len() == 2);
        let time =
            time.and_then(|(minutes, seconds)| Some(minutes.parse::<u64>().ok()? * 60 + seconds.parse::<u64>().ok()?));
        match time {
            Some(time) => {
                times.push(time);
                text.push_str("<time>");
                text.push_str(&word[bare.len()..]);
            }
            None => text.push_str(word),
        }
    }
    (text, times)
}

/// What only one of the texts has, in the order of the new one.
fn difference(accepted: &str, told: &str) -> String {
    let (one, other): (Vec<&str>, Vec<&str>) = (accepted.lines().collect(), told.lines().collect());
    let keys = |lines: &[&str]| lines.iter().map(|line| without_times(line).0).collect::<Vec<_>>();
    let (one_keys, other_keys) = (keys(&one), keys(&other));
    // The longest common part, by the lengths of those of all ends.
    let mut common = vec![vec![0_usize; other.len() + 1]; one.len() + 1];
    for a in (0..one.len()).rev() {
        for b in (0..other.len()).rev() {
            let longer = common[a + 1][b].max(common[a][b + 1]);
            common[a][b] = if one_keys[a] == other_keys[b] { common[a + 1][b + 1] + 1 } else { longer };
        }
    }
    let (mut a, mut b, mut lines) = (0, 0, Vec::new());
    while a < one.len() || b < other.len() {
        if a < one.len() && b < other.len() && one_keys[a] == other_keys[b] {
            lines.push(format!("  {}", other[b]));
            (a, b) = (a + 1, b + 1);
        } else if b == other.len() || a < one.len() && common[a + 1][b] >= common[a][b + 1] {
            lines.push(format!("- {}", one[a]));
            a += 1;
        } else {
            lines.push(format!("+ {}", other[b]));
            b += 1;
        }
    }
    lines.join("\n")
}

#[test]
fn a_log_stays_as_it_is_when_times_differ_a_little_and_subjects_change_places() {
    let log = |first: &str, second: &str| format!("# About\n\n{first}\n{second}\n\n{END}\n       web    v1: Ready\n");
    let accepted = log("00:30  web-0  Ready v1, until 02:00", "00:31  web-1  Ready v1");
    assert!(is_same(&accepted, &log("00:33  web-1  Ready v1", "00:34  web-0  Ready v1, until 02:03")));
    assert!(!is_same(&accepted, &log("00:30  web-0  Ready v1, until 02:00", "00:51  web-1  Ready v1")), "too late");
    assert!(
        !is_same(&accepted, &log("00:30  web-0  Ready v2, until 02:00", "00:31  web-1  Ready v1")),
        "another revision"
    );
    assert!(!is_same(&accepted, &log("00:30  web-0  Ready v1, until 02:40", "00:31  web-1  Ready v1")), "another end");
    assert!(!is_same(&accepted, &accepted.replace("web    v1", "web    v2")), "another end of the story");
    let other = accepted.replace("web-1  Ready v1", "web-1  Ready v2");
    assert!(difference(&accepted, &other).contains("- 00:31  web-1  Ready v1\n+ 00:31  web-1  Ready v2"));
    let subjects: BTreeSet<String> = by_subject(&accepted).into_keys().collect();
    assert_eq!(subjects, ["", "web", "web-0", "web-1"].map(String::from).into());
}
