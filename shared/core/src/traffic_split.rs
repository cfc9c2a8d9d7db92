//! How traffic is split between the Servers with the new version and the others, while a roll-out has a weight. Pure.

/// The highest weight that load balancers know.
const MAX_WEIGHT: u16 = 256;

/// How many times its even share one Server may get, unless `rollout.maxLoadFactor` says something else.
const DEFAULT_LOAD_FACTOR: f64 = 1.5;

/// The Servers of a backend that receive traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sides {
    /// Those with the new version.
    pub updated: u32,
    /// The others.
    pub stable: u32,
}

/// `rollout.maxLoadFactor` as a number.
#[must_use]
pub fn load_factor(declared: Option<&str>) -> f64 {
    declared.and_then(|text| text.parse().ok()).filter(|factor: &f64| *factor >= 1.0).unwrap_or(DEFAULT_LOAD_FACTOR)
}

impl Sides {
    /// How many times its even share a Server would get at this weight: the highest of both sides.
    #[must_use]
    pub fn load(self, percent: i32) -> f64 {
        let (updated, stable) = (f64::from(self.updated), f64::from(self.stable));
        let share = f64::from(percent) / 100.0;
        let of = |share: f64, servers: f64| if servers > 0.0 { share * (updated + stable) / servers } else { 0.0 };
        of(share, updated).max(of(1.0 - share, stable))
    }

    /// The share of the new version, from 0 to 1: what the weight says, but never more than so many times its even share for any
    /// Server. None if one side has no Server: then there is nothing to split.
    #[must_use]
    pub fn share(self, percent: i32, load_factor: f64) -> Option<f64> {
        if self.updated == 0 || self.stable == 0 {
            return None;
        }
        let (updated, stable) = (f64::from(self.updated), f64::from(self.stable));
        let all = updated + stable;
        let (least, most) = (1.0 - load_factor * stable / all, load_factor * updated / all);
        Some((f64::from(percent) / 100.0).clamp(least.clamp(0.0, 1.0), most.clamp(0.0, 1.0)))
    }

    /// The weights of a Server with the new version and of another one, so that the new version gets this share as exactly as whole
    /// numbers allow.
    #[must_use]
    pub fn weights(self, share: f64) -> (u16, u16) {
        if share <= 0.0 {
            return (0, 100);
        }
        if share >= 1.0 {
            return (100, 0);
        }
        let (updated, stable) = (f64::from(self.updated), f64::from(self.stable));
        let ratio = (share / updated) / ((1.0 - share) / stable);
        let pair = |highest: u16| {
            let highest = f64::from(highest);
            if ratio >= 1.0 { (highest, highest / ratio) } else { (highest * ratio, highest) }
        };
        let error = |(a, b): (f64, f64)| ((a * updated) / (a * updated + b * stable) - share).abs();
        let rounded = (1..=MAX_WEIGHT).map(pair).map(|(a, b)| (a.round(), b.round()));
        let usable = rounded.filter(|(a, b)| *a >= 1.0 && *b >= 1.0);
        let best = usable.min_by(|one, other| error(*one).total_cmp(&error(*other)));
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 1 to 256")]
        let whole = |weight: f64| weight as u16;
        best.map_or((1, MAX_WEIGHT), |(a, b)| (whole(a), whole(b)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sides(updated: u32, stable: u32) -> Sides {
        Sides { updated, stable }
    }

    fn share_of((updated, stable): (u16, u16), sides: Sides) -> f64 {
        let (a, b) = (f64::from(updated) * f64::from(sides.updated), f64::from(stable) * f64::from(sides.stable));
        a / (a + b)
    }

    #[test]
    fn weights_give_the_share_within_half_a_percent_however_many_servers_there_are() {
        for (updated, stable) in [(1, 3), (1, 9), (5, 95), (50, 50), (99, 1), (1, 1), (3, 997)] {
            for percent in [1, 5, 10, 50, 90, 99] {
                let (sides, share) = (sides(updated, stable), f64::from(percent) / 100.0);
                let weights = sides.weights(share);
                let even = f64::from(updated) / f64::from(updated + stable);
                // A ratio of more than 1 to 256 cannot be said in weights.
                let ratio = (share / even) / ((1.0 - share) / (1.0 - even));
                if (1.0 / 256.0..=256.0).contains(&ratio) {
                    let got = share_of(weights, sides);
                    assert!((got - share).abs() < 0.005, "{updated} of {}: {percent} % is {got}", updated + stable);
                }
            }
        }
        assert_eq!(sides(1, 3).weights(0.0), (0, 100));
        assert_eq!(sides(1, 3).weights(1.0), (100, 0));
    }

    #[test]
    fn no_server_gets_more_than_its_load_factor_allows() {
        for updated in 1..20 {
            let sides = sides(updated, 20 - updated);
            for percent in 0..=100 {
                let share = sides.share(percent, 1.5).unwrap();
                let (even_updated, even_stable) = (f64::from(updated) / 20.0, f64::from(20 - updated) / 20.0);
                assert!(share <= 1.5 * even_updated + 1e-9, "{updated} {percent} {share}");
                assert!(1.0 - share <= 1.5 * even_stable + 1e-9, "{updated} {percent} {share}");
                if sides.load(percent) <= 1.5 {
                    assert!((share - f64::from(percent) / 100.0).abs() < 1e-9, "{updated} {percent} {share}");
                }
            }
        }
        assert_eq!(sides(0, 3).share(50, 1.5), None);
        assert_eq!(sides(3, 0).share(0, 1.5), None, "nobody else is there to take the traffic");
    }

    #[test]
    fn a_load_factor_that_is_none_is_not_used() {
        assert!((load_factor(Some("2.5")) - 2.5).abs() < 1e-9);
        for text in [None, Some("0.5"), Some("many")] {
            assert!((load_factor(text) - DEFAULT_LOAD_FACTOR).abs() < 1e-9, "{text:?}");
        }
    }
}
