//! Random numbers that are the same in every run.

use sha2::{Digest as _, Sha256};

/// A sequence of random numbers. It only depends on what it is for, not on time or on the order of calls.
#[derive(Clone, Debug)]
pub(super) struct Draw(u64);

impl Draw {
    /// The sequence for the `n`-th draw for a Server and a purpose.
    pub(super) fn new(seed: u64, server: &str, purpose: &str, n: u64) -> Self {
        let mut hash = Sha256::new();
        hash.update(seed.to_be_bytes());
        hash.update(n.to_be_bytes());
        hash.update(purpose.as_bytes());
        hash.update([0]);
        hash.update(server.as_bytes());
        let digest: [u8; 32] = hash.finalize().into();
        Self(digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// Uniform from 0 to 1, without 1.
    pub(super) fn unit(&mut self) -> f64 {
        // SplitMix64 (Steele, Lea, Flood 2014).
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        #[expect(clippy::cast_precision_loss, reason = "53 bits fit exactly")]
        let fraction = (mixed >> 11) as f64 / (1_u64 << 53) as f64;
        fraction
    }

    /// True with this probability.
    pub(super) fn chance(&mut self, rate: f64) -> bool {
        self.unit() < rate
    }

    /// Standard normal, by Box and Muller (1958).
    pub(super) fn normal(&mut self) -> f64 {
        let (radius, angle) = (1.0 - self.unit(), self.unit());
        (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
    }
}
