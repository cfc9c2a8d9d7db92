//! Whether this process believes what it sees of machines: the rule that tells its own blindness from an outage. Pure.
//!
//! While it doubts, no failure is written that may come from blindness, until replicaset-controller confirms the loss or the
//! machines are seen again. What was seen while it was in doubt and not confirmed is forgotten then.

use std::time::Duration;

use berth_core::second_opinion::SecondOpinion;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::survey::Survey;

/// How often a question is asked anew while the doubt lasts: others need up to ten seconds for an answer.
const ASK_EVERY: SignedDuration = SignedDuration::from_secs(20);
/// The least time between two questions, if doubts come and go: each question makes others look at ten machines.
const ASK_AFTER: SignedDuration = SignedDuration::from_secs(5);
/// How long an opinion counts while later questions are not answered: for two of them.
const OPINION_LASTS: SignedDuration = SignedDuration::from_secs(60);
/// Between two surveys. A loss is noticed this much later.
pub(crate) const SURVEY_PERIOD: Duration = Duration::from_millis(500);

/// Whether failures that may come from blindness are believed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Trust {
    /// They are: replicaset-controller has confirmed the loss, or nobody wants to know.
    #[default]
    Full,
    /// They are once a round of probes since the first failure has shown that not too many others are lost.
    AfterRound {
        /// When the latest survey was made, which found nothing suspicious.
        surveyed_at: Timestamp,
        /// How long a round takes.
        round: Duration,
    },
    /// They are not.
    Nothing,
}

impl Trust {
    /// Before the first survey.
    pub(crate) const UNSURVEYED: Self = Self::AfterRound { surveyed_at: Timestamp::MIN, round: Duration::ZERO };

    /// What is to be thought of failures since this time.
    pub(crate) fn in_failure_since(self, since: Timestamp) -> Belief {
        match self {
            Self::Full => Belief::True,
            Self::Nothing => Belief::Doubtful,
            Self::AfterRound { surveyed_at, round } => {
                let settled = since.checked_add(round).unwrap_or(Timestamp::MAX);
                if surveyed_at >= settled {
                    Belief::True
                } else {
                    Belief::Wait(settled.checked_add(SURVEY_PERIOD).unwrap_or(Timestamp::MAX))
                }
            }
        }
    }
}

/// What is thought of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Belief {
    True,
    /// It shows at this time.
    Wait(Timestamp),
    /// It may be this process that is blind.
    Doubtful,
}

/// What has changed with a survey.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SightChange {
    /// A question has to be asked, with a new id.
    pub(crate) ask: bool,
    /// The doubt began, ended, or others have said something new.
    pub(crate) news: Option<News>,
}

/// What people should know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    Began,
    Opinion(SecondOpinion),
    /// The machines are seen again, or were confirmed to be lost.
    Ended {
        /// Whether what was seen meanwhile has to be forgotten, because nobody has confirmed it.
        forget: bool,
    },
}

/// Whether this process may be blind.
#[derive(Clone, Debug)]
pub(crate) struct Sight {
    /// The share of lost machines, in percent, above which it doubts.
    share: u8,
    doubt: Option<Doubt>,
    /// When the latest question was asked.
    asked_at: Option<Timestamp>,
}

/// A doubt, from its beginning.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Doubt {
    pub(crate) since: Timestamp,
    /// When the next question is due.
    ask_at: Timestamp,
    pub(crate) opinion: SecondOpinion,
    opinion_at: Timestamp,
}

impl Sight {
    pub(crate) fn new(share: u8) -> Self {
        Self { share, doubt: None, asked_at: None }
    }

    /// The doubt, if there is one.
    pub(crate) fn doubt(&self) -> Option<&Doubt> {
        self.doubt.as_ref()
    }

    /// Takes in a survey, and what others say on the latest question.
    pub(crate) fn step(&mut self, survey: &Survey, answer: SecondOpinion, now: Timestamp) -> SightChange {
        let is_suspicious = survey.is_suspicious(self.share);
        match &mut self.doubt {
            None if is_suspicious => {
                let opinion = SecondOpinion::Missing;
                let ask_at = self.asked_at.map_or(now, |at| now.max(later(at, ASK_AFTER)));
                self.doubt = Some(Doubt { since: now, ask_at, opinion, opinion_at: now });
                SightChange { ask: self.ask(now), news: Some(News::Began) }
            }
            None => SightChange::default(),
            Some(doubt) if !is_suspicious => {
                let forget = doubt.opinion != SecondOpinion::Agrees;
                self.doubt = None;
                SightChange { ask: false, news: Some(News::Ended { forget }) }
            }
            Some(doubt) => {
                let news = doubt.hear(answer, now).then_some(News::Opinion(doubt.opinion));
                SightChange { ask: self.ask(now), news }
            }
        }
    }

    /// Whether to ask now.
    fn ask(&mut self, now: Timestamp) -> bool {
        let Some(doubt) = self.doubt.as_mut().filter(|doubt| doubt.ask_at <= now) else { return false };
        doubt.ask_at = later(now, ASK_EVERY);
        self.asked_at = Some(now);
        true
    }

    /// What is believed after this survey, which was made now.
    pub(crate) fn trust(&self, survey: &Survey, now: Timestamp) -> Trust {
        match &self.doubt {
            Some(doubt) if doubt.opinion == SecondOpinion::Agrees => Trust::Full,
            Some(_) => Trust::Nothing,
            None if self.share >= 100 => Trust::Full,
            None => Trust::AfterRound { surveyed_at: now, round: survey.round },
        }
    }
}

fn later(time: Timestamp, by: SignedDuration) -> Timestamp {
    time.checked_add(by).unwrap_or(Timestamp::MAX)
}

impl Doubt {
    /// Takes in what others say. Returns whether that is something new.
    fn hear(&mut self, answer: SecondOpinion, now: Timestamp) -> bool {
        let before = self.opinion;
        if answer != SecondOpinion::Missing {
            (self.opinion, self.opinion_at) = (answer, now);
        } else if now.duration_since(self.opinion_at) > OPINION_LASTS {
            self.opinion = SecondOpinion::Missing;
        }
        self.opinion != before
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::survey::survey;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    const BEGAN: SightChange = SightChange { ask: true, news: Some(News::Began) };
    const NOTHING: SightChange = SightChange { ask: false, news: None };

    fn said(opinion: SecondOpinion) -> SightChange {
        SightChange { ask: false, news: Some(News::Opinion(opinion)) }
    }

    #[test]
    fn a_blind_process_believes_nothing_until_it_sees_again_and_then_forgets() {
        let (mut sight, blind) = (Sight::new(30), survey(10, 10));
        assert_eq!(sight.step(&survey(10, 0), SecondOpinion::Missing, at(0)), NOTHING);
        assert_eq!(sight.step(&blind, SecondOpinion::Missing, at(1)), BEGAN);
        assert_eq!(sight.trust(&blind, at(1)), Trust::Nothing);
        assert_eq!(sight.step(&blind, SecondOpinion::Contradicts, at(5)), said(SecondOpinion::Contradicts));
        assert_eq!(sight.trust(&blind, at(5)), Trust::Nothing);
        assert_eq!(sight.step(&blind, SecondOpinion::Missing, at(21)), SightChange { ask: true, news: None });
        // Nobody answers any more: it still believes nothing.
        let unanswered = sight.step(&blind, SecondOpinion::Missing, at(70)).news;
        assert_eq!(unanswered, Some(News::Opinion(SecondOpinion::Missing)));
        assert_eq!(sight.trust(&blind, at(100_000)), Trust::Nothing, "however long it lasts");
        let ended = sight.step(&survey(10, 2), SecondOpinion::Missing, at(80));
        assert_eq!(ended, SightChange { ask: false, news: Some(News::Ended { forget: true }) });
        assert_eq!(
            sight.trust(&survey(10, 2), at(80)),
            Trust::AfterRound { surveyed_at: at(80), round: Duration::from_secs(12) }
        );
    }

    #[test]
    fn a_confirmed_loss_is_believed_and_not_forgotten() {
        let (mut sight, lost) = (Sight::new(30), survey(10, 6));
        sight.step(&lost, SecondOpinion::Missing, at(0));
        assert_eq!(sight.step(&lost, SecondOpinion::Agrees, at(4)), said(SecondOpinion::Agrees));
        assert_eq!(sight.trust(&lost, at(4)), Trust::Full);
        // The facts are written, so the machines are targets no longer.
        let ended = sight.step(&survey(4, 0), SecondOpinion::Agrees, at(5));
        assert_eq!(ended.news, Some(News::Ended { forget: false }));
        // A confirmation is no licence for ever.
        sight.step(&lost, SecondOpinion::Missing, at(10));
        sight.step(&lost, SecondOpinion::Agrees, at(11));
        sight.step(&lost, SecondOpinion::Missing, at(80));
        assert_eq!(sight.trust(&lost, at(80)), Trust::Nothing);
    }

    #[test]
    fn a_failure_is_believed_once_a_round_has_shown_that_others_are_seen() {
        let trust = |surveyed: i64| Trust::AfterRound { surveyed_at: at(surveyed), round: Duration::from_secs(12) };
        assert_eq!(trust(112).in_failure_since(at(100)), Belief::True);
        let Belief::Wait(until) = trust(111).in_failure_since(at(100)) else { panic!() };
        assert!(until > at(112) && until < at(113));
        assert_eq!(Trust::Full.in_failure_since(at(100)), Belief::True);
        assert_eq!(Trust::Nothing.in_failure_since(at(100)), Belief::Doubtful);
        let in_small_fleet = Sight::new(30).trust(&survey(2, 2), at(12)).in_failure_since(at(0));
        assert_eq!(in_small_fleet, Belief::True, "two machines are too few for a doubt");
        assert!(matches!(Trust::UNSURVEYED.in_failure_since(at(0)), Belief::Wait(_)));
        assert_eq!(Sight::new(100).trust(&survey(9, 9), at(0)), Trust::Full, "turned off");
    }

    proptest! {
        /// Whatever is surveyed and whatever others say: a failure of a suspicious survey is believed only if the latest
        /// opinion that anybody gave, within its time, agrees; and questions are asked at a bounded rate.
        #[test]
        fn many_losses_are_believed_only_if_confirmed(steps in proptest::collection::vec((0..20usize, 0..3u8, 1..30i64), 1..80)) {
            let (mut sight, mut second, mut asked) = (Sight::new(30), 0, Vec::new());
            let mut last: Option<(SecondOpinion, i64)> = None;
            for (lost, answer, pause) in steps {
                second += pause;
                let answer = [SecondOpinion::Missing, SecondOpinion::Contradicts, SecondOpinion::Agrees][usize::from(answer)];
                let (survey, was_in_doubt) = (survey(20, lost), sight.doubt().is_some());
                let change = sight.step(&survey, answer, at(second));
                if change.ask {
                    asked.push(second);
                }
                if was_in_doubt && answer != SecondOpinion::Missing {
                    last = Some((answer, second));
                }
                if sight.doubt().is_none() || change.news == Some(News::Began) {
                    last = None;
                }
                let confirmed = last.is_some_and(|(opinion, at)| opinion == SecondOpinion::Agrees && second - at <= 60);
                let trusts = sight.trust(&survey, at(second)) == Trust::Full;
                prop_assert_eq!(survey.is_suspicious(30), sight.doubt().is_some());
                prop_assert_eq!(trusts, survey.is_suspicious(30) && confirmed, "{} lost at {}", lost, second);
            }
            prop_assert!(asked.windows(2).all(|pair| pair[1] - pair[0] >= 5), "{:?}", asked);
        }
    }
}
