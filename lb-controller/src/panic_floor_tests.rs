use proptest::prelude::*;

use super::*;
use HoldCause::{Deliberate, Returning, Sick};

/// Members `0`, `1`, ...; each says whether it serves, and whether it is coming back.
fn members(members: &[(bool, bool)]) -> BTreeMap<String, FloorMember> {
    let member =
        |(serves, is_coming_back): &(bool, bool)| FloorMember { serves: *serves, is_coming_back: *is_coming_back };
    members.iter().enumerate().map(|(n, described)| (n.to_string(), member(described))).collect()
}

fn holds(holds: &[(usize, HoldCause)]) -> BTreeMap<String, HoldCause> {
    holds.iter().map(|(n, cause)| (n.to_string(), *cause)).collect()
}

/// Which of the wanted holds are withheld at 50 %.
fn withheld_of(described: &[(bool, bool)], wanted: &[(usize, HoldCause)]) -> Vec<usize> {
    let kept = withheld(PanicThreshold::DEFAULT, &members(described), &holds(wanted));
    kept.keys().map(|uid| uid.parse().unwrap()).collect()
}

const NONE: [usize; 0] = [];
const SERVES: (bool, bool) = (true, true);
const SILENT: (bool, bool) = (false, false);
const ON_ITS_WAY: (bool, bool) = (false, true);

#[test]
fn thresholds_are_percentages() {
    for (text, floors) in [("0%", [0, 0, 0]), ("30%", [1, 1, 3]), ("50%", [1, 2, 4]), ("100%", [1, 3, 8])] {
        let threshold: PanicThreshold = text.parse().unwrap();
        assert_eq!([1, 3, 8].map(|registered| threshold.floor_of(registered)), floors, "{text}");
        assert_eq!((threshold.to_string().as_str(), threshold.floor_of(0)), (text, 0));
    }
    for text in ["", "%", "50", "101%", "-1%", "+5%", "5.5%", " 5%", "300%", "half"] {
        let error = text.parse::<PanicThreshold>().unwrap_err().to_string();
        assert!(error.contains(&format!("{text:?}")) && error.contains("from 0% to 100%"), "{error}");
    }
}

#[test]
fn sick_servers_go_down_to_the_floor_and_those_that_are_found_last_stay() {
    let all = [SERVES; 8];
    let sick: Vec<_> = (0..8).map(|n| (n, Sick)).collect();
    assert_eq!(withheld_of(&all, &sick), [4, 5, 6, 7]);
    assert_eq!(withheld_of(&all, &sick[..4]), NONE);
    let kept = withheld(PanicThreshold::DEFAULT, &members(&all), &holds(&sick));
    assert_eq!(kept["7"], FloorCounts { serving: 4, registered: 8, needed: 4 });
    // The only Server of a Service stays.
    assert_eq!(withheld_of(&[SERVES], &[(0, Sick)]), [0]);
    assert_eq!(withheld_of(&[SERVES, SERVES], &[(0, Sick), (1, Sick)]), [1]);
    assert_eq!(withheld_of(&[SERVES, SERVES, SERVES], &[(0, Sick), (1, Sick), (2, Sick)]), [1, 2]);
    // When others serve again, it goes.
    assert_eq!(withheld_of(&[SILENT, SERVES], &[(1, Sick)]), [1]);
    assert_eq!(withheld_of(&[SERVES, SERVES], &[(1, Sick)]), NONE);
}

#[test]
fn without_a_threshold_nothing_is_withheld() {
    let sick: Vec<_> = (0..4).map(|n| (n, if n < 2 { Sick } else { Returning })).collect();
    assert!(withheld("0%".parse().unwrap(), &members(&[SERVES; 4]), &holds(&sick)).is_empty());
}

#[test]
fn deliberate_holds_are_carried_out_and_count_against_the_floor() {
    let all = [SERVES; 4];
    let changes: Vec<_> = (0..4).map(|n| (n, Deliberate)).collect();
    assert_eq!(withheld_of(&all, &changes), NONE);
    // A sick Server must not count on one that is being drained by the same write.
    assert_eq!(withheld_of(&all, &[(2, Deliberate), (3, Deliberate), (0, Sick)]), [0]);
    assert_eq!(withheld_of(&all, &[(3, Deliberate), (0, Sick), (1, Sick)]), [1]);
}

#[test]
fn at_the_floor_one_returning_server_goes_at_a_time() {
    let half_dead = [SILENT, SILENT, SERVES, SERVES];
    assert_eq!(withheld_of(&half_dead, &[(2, Returning), (3, Returning)]), [3]);
    assert_eq!(withheld_of(&[SILENT, SILENT, ON_ITS_WAY, SERVES], &[(3, Returning)]), [3]);
    // Not while another one is on its way back, with which the floor would be kept.
    assert_eq!(withheld_of(&[ON_ITS_WAY, SERVES], &[(1, Returning)]), [1]);
    assert_eq!(withheld_of(&[SERVES, SERVES], &[(1, Returning)]), NONE);
    assert_eq!(withheld_of(&[SERVES], &[(0, Returning)]), NONE, "it would wait for ever");
    // A sick Server goes before one that is only verified.
    assert_eq!(withheld_of(&[SERVES, SERVES, SERVES, SILENT], &[(0, Returning), (1, Sick)]), [0]);
}

#[test]
fn servers_that_do_not_serve_or_are_not_counted_change_nothing() {
    assert_eq!(withheld_of(&[SILENT, SERVES, SERVES], &[(0, Sick), (1, Sick)]), [1]);
    assert_eq!(withheld_of(&[SILENT, SERVES, SERVES, SERVES], &[(0, Sick), (1, Sick), (7, Deliberate)]), NONE);
}

/// A Server of a simulated Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Ready,
    /// Its machine does not answer.
    Silent,
    /// Its application is not healthy.
    Unhealthy,
    /// It was silent, and has to be verified without traffic.
    Back,
    /// It is being changed without traffic.
    Changing,
}

#[derive(Clone, Copy, Debug)]
enum Event {
    FallSilent(usize),
    BecomeUnhealthy(usize),
    /// It answers again, or is healthy again.
    Recover(usize),
    /// It falls silent for good, if it serves.
    Die(usize),
    /// It falls silent for good, wherever it is.
    DieAnywhere(usize),
    Change(usize),
    /// What has no traffic is verified or changed, and gets traffic.
    Finish,
}

#[derive(Debug)]
struct Service {
    threshold: PanicThreshold,
    lives: Vec<(Life, bool)>,
    dead: Vec<bool>,
}

impl Service {
    fn new(threshold: PanicThreshold, servers: usize) -> Self {
        Self { threshold, lives: vec![(Life::Ready, true); servers], dead: vec![false; servers] }
    }

    fn serving(&self) -> usize {
        self.lives.iter().filter(|(_, serves)| *serves).count()
    }

    fn floor(&self) -> usize {
        self.threshold.floor_of(self.lives.len())
    }

    fn happen(&mut self, event: Event) {
        let count = self.lives.len();
        match event {
            Event::FallSilent(n) => self.lives[n % count].0 = Life::Silent,
            Event::BecomeUnhealthy(n) => {
                let life = &mut self.lives[n % count].0;
                *life = if *life == Life::Ready { Life::Unhealthy } else { *life };
            }
            Event::Recover(n) if !self.dead[n % count] => {
                let (life, serves) = &mut self.lives[n % count];
                (*life, *serves) = match *life {
                    Life::Silent => (Life::Back, *serves),
                    Life::Unhealthy => (Life::Ready, true),
                    other => (other, *serves),
                };
            }
            Event::Recover(_) => {}
            Event::Die(n) if !self.lives[n % count].1 => {}
            Event::Die(n) | Event::DieAnywhere(n) => {
                self.lives[n % count].0 = Life::Silent;
                self.dead[n % count] = true;
            }
            Event::Change(n) => {
                let life = &mut self.lives[n % count].0;
                *life = if *life == Life::Silent { *life } else { Life::Changing };
            }
            Event::Finish => self.finish(),
        }
        self.hold();
    }

    fn finish(&mut self) {
        for (life, serves) in &mut self.lives {
            if !*serves && matches!(life, Life::Back | Life::Changing | Life::Ready) {
                (*life, *serves) = (Life::Ready, true);
            }
        }
    }

    /// Carries out the holds that the floor does not withhold.
    fn hold(&mut self) {
        let cause = |life: Life| match life {
            Life::Ready => None,
            Life::Silent | Life::Unhealthy => Some(Sick),
            Life::Back => Some(Returning),
            Life::Changing => Some(Deliberate),
        };
        let described: Vec<_> = self.lives.iter().map(|(life, serves)| (*serves, *life != Life::Silent)).collect();
        let wanted: Vec<_> =
            self.lives.iter().enumerate().filter_map(|(n, (life, _))| Some((n, cause(*life)?))).collect();
        let kept = withheld(self.threshold, &members(&described), &holds(&wanted));
        let before = self.serving();
        for (n, cause) in wanted {
            let is_kept = kept.contains_key(&n.to_string());
            assert!(!(is_kept && cause == Deliberate), "a deliberate hold is withheld");
            self.lives[n].1 &= is_kept;
        }
        for counts in kept.values() {
            assert_eq!((counts.serving, counts.needed), (self.serving(), self.floor()), "the counts are true");
        }
        let deliberate =
            described.iter().zip(&self.lives).filter(|((was, _), (life, _))| *was && *life == Life::Changing);
        let lowest = self.floor().min(before - deliberate.count());
        assert!(self.serving() + 1 >= lowest, "more than one Server below the floor: {:?}", self.lives);
    }
}

fn any_event() -> impl Strategy<Value = Event> {
    let n = 0..12_usize;
    prop_oneof![
        3 => n.clone().prop_map(Event::FallSilent),
        2 => n.clone().prop_map(Event::BecomeUnhealthy),
        3 => n.clone().prop_map(Event::Recover),
        1 => n.clone().prop_map(Event::Die),
        1 => n.prop_map(Event::Change),
        2 => Just(Event::Finish),
    ]
}

fn any_service() -> impl Strategy<Value = Service> {
    (0..=100_u8, 1..12_usize).prop_map(|(percent, servers)| Service::new(PanicThreshold(percent), servers))
}

proptest! {
    #[test]
    fn sickness_and_silence_alone_never_lead_below_the_floor(mut service in any_service(), events in prop::collection::vec(any_event(), 0..60)) {
        for event in events {
            if !matches!(event, Event::Change(_)) {
                service.happen(event);
            }
            // One Server may be below it, while it is verified.
            let verified = service.lives.iter().filter(|(life, serves)| *life == Life::Back && !serves).count();
            let missing = service.floor().saturating_sub(service.serving());
            prop_assert!(missing <= 1, "{:?}", service.lives);
            let is_silent = |(life, serves): &(Life, bool)| *life == Life::Silent && !serves;
            prop_assert!(missing == 0 || verified > 0 || service.lives.iter().any(is_silent), "{:?}", service.lives);
        }
    }

    #[test]
    fn as_long_as_nothing_returns_or_is_changed_the_floor_serves(mut service in any_service(), events in prop::collection::vec(any_event(), 0..60)) {
        for event in events.into_iter().filter(|e| !matches!(e, Event::Change(_) | Event::Recover(_))) {
            service.happen(event);
            prop_assert!(service.serving() >= service.floor(), "{:?}", service.lives);
        }
    }

    /// No deadlock, also when many Servers have died for good.
    #[test]
    fn every_server_that_recovers_becomes_ready(mut service in any_service(), events in prop::collection::vec(any_event(), 0..60)) {
        for event in events {
            service.happen(event);
        }
        recover_all(&mut service);
        for (n, (life, serves)) in service.lives.iter().enumerate() {
            prop_assert!(service.dead[n] || (*life, *serves) == (Life::Ready, true), "{n}: {:?}", service.lives);
        }
    }

    /// The limit: where Servers have died while they were changed or verified, others may wait for them; but in traffic.
    #[test]
    fn every_server_that_recovers_serves_whoever_has_died(
        mut service in any_service(), events in prop::collection::vec(any_event(), 0..60), deaths in prop::collection::vec(0..12_usize, 0..6)
    ) {
        for event in events.into_iter().chain(deaths.into_iter().map(Event::DieAnywhere)) {
            service.happen(event);
        }
        recover_all(&mut service);
        for (n, (life, serves)) in service.lives.iter().enumerate() {
            prop_assert!(service.dead[n] || *serves && matches!(life, Life::Ready | Life::Back), "{n}: {:?}", service.lives);
        }
    }
}

/// Everything recovers that is not dead, and whatever has no traffic is verified or changed.
fn recover_all(service: &mut Service) {
    for n in 0..service.lives.len() {
        service.happen(Event::Recover(n));
    }
    for _ in 0..2 * service.lives.len() {
        service.happen(Event::Finish);
    }
}
