//! The panic floor of a backend: how many of its Servers must stay in traffic although they seem to be sick. Pure.
//!
//! What probes say may be wrong about many Servers at once, for example when the prober has lost its route to them. So sickness
//! and silence alone never take a backend below its floor: the Servers that are found sick last stay in traffic. Holds that
//! somebody wants (a change, a retirement) are always carried out, and are not limited here.
//!
//! A Server that was out of reach and answers again has to be verified without traffic. It may go while the floor is kept. At the
//! floor one Server may go at a time, and only when no other is on its way back: otherwise the Servers of a backend that is half
//! dead for good would wait for ever.

use std::{collections::BTreeMap, fmt, str::FromStr};

use berth_core::lifecycle::HoldCause;

/// Annotation of a Service: its threshold, instead of that of `--panic-threshold`.
pub const PANIC_THRESHOLD: &str = "berth.dev/panic-threshold";

/// The share of a backend's registered Servers that sickness and silence leave in traffic, in percent. 0 turns the floor off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PanicThreshold(u8);

impl PanicThreshold {
    /// What holds unless something else is declared: half of the Servers, as in Envoy.
    pub const DEFAULT: Self = Self(50);

    /// How many of these registered Servers must serve, rounded up.
    #[must_use]
    pub fn floor_of(self, registered: usize) -> usize {
        registered.saturating_mul(usize::from(self.0)).div_ceil(100)
    }
}

/// A text that is no threshold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a percentage from 0% to 100%, such as 50%, but is {0:?}")]
pub struct InvalidThreshold(String);

impl FromStr for PanicThreshold {
    type Err = InvalidThreshold;

    fn from_str(text: &str) -> Result<Self, InvalidThreshold> {
        let digits = text.strip_suffix('%').filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
        let percent = digits.and_then(|digits| digits.parse().ok()).filter(|percent| *percent <= 100);
        percent.map(Self).ok_or_else(|| InvalidThreshold(text.to_owned()))
    }
}

impl fmt::Display for PanicThreshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

/// A registered Server that is not being retired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FloorMember {
    /// Whether the backend sends it traffic now.
    pub serves: bool,
    /// Whether it becomes Ready again without a person, as far as is known.
    pub is_coming_back: bool,
}

/// How many Servers of a backend serve, and how many must.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FloorCounts {
    /// The Servers that serve, after all holds that are carried out now.
    pub serving: usize,
    /// The registered Servers, without those that are being retired.
    pub registered: usize,
    /// The floor: how many of them must serve.
    pub needed: usize,
}

/// Which of the wanted holds the floor withholds, by UID, with the counts that say why. `members` are the backend's registered
/// Servers by UID, `holds` what each wanted hold is for. All wanted holds are decided together, so that none counts on a Server
/// that another one takes away.
#[must_use]
pub fn withheld(
    threshold: PanicThreshold,
    members: &BTreeMap<String, FloorMember>,
    holds: &BTreeMap<String, HoldCause>,
) -> BTreeMap<String, FloorCounts> {
    let registered = members.len();
    let mut floor = Floor {
        serving: members.values().filter(|member| member.serves).count(),
        needed: threshold.floor_of(registered),
        is_one_coming_back: members.values().any(|member| !member.serves && member.is_coming_back),
    };
    let mut kept = Vec::new();
    // Deliberate holds are carried out in any case, and a sick Server has more reason to go than one that only is verified.
    for cause in [HoldCause::Deliberate, HoldCause::Sick, HoldCause::Returning] {
        for uid in holds.iter().filter(|(_, other)| **other == cause).map(|(uid, _)| uid) {
            let Some(member) = members.get(uid).filter(|member| member.serves) else { continue };
            if floor.lets_go(cause) {
                floor.serving -= 1;
                floor.is_one_coming_back |= member.is_coming_back;
            } else {
                kept.push(uid.clone());
            }
        }
    }
    let counts = FloorCounts { serving: floor.serving, registered, needed: floor.needed };
    kept.into_iter().map(|uid| (uid, counts)).collect()
}

struct Floor {
    serving: usize,
    needed: usize,
    /// Whether a Server that does not serve is on its way back.
    is_one_coming_back: bool,
}

impl Floor {
    fn lets_go(&self, cause: HoldCause) -> bool {
        match cause {
            HoldCause::Deliberate => true,
            HoldCause::Sick => self.serving > self.needed,
            HoldCause::Returning => {
                self.serving > self.needed || self.serving == self.needed && !self.is_one_coming_back
            }
        }
    }
}

#[cfg(test)]
#[path = "panic_floor_tests.rs"]
mod tests;
