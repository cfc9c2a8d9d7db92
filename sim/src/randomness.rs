//! Random numbers that follow from a seed, for everything that runs on a thread: the hashers of maps, and what Berth draws.
//!
//! Rust's maps, and those of the libraries that Berth uses, iterate in an order that depends on random numbers of the operating
//! system, which come through the C function `getrandom`. This file defines that function anew for programs of the
//! simulation: on a thread that has a seed it draws from the seed, on others from the operating system.

use std::{cell::Cell, fs::File, io::Read as _, sync::Once};

use ahash::random_state::{RandomSource, set_random_source};

thread_local! {
    static STATE: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Makes everything that is random on this thread follow from this seed. The thread has to be new: what it has drawn before is
/// kept by its maps.
pub(crate) fn seed_this_thread(seed: u64) {
    static HASHERS: Once = Once::new();
    // Without a use of it the linker would leave this file's function out.
    std::hint::black_box(getrandom as extern "C" fn(*mut u8, usize, u32) -> isize);
    // What ahash draws once in a process must not depend on which world is the first.
    HASHERS.call_once(|| {
        let _ = set_random_source(Constant);
        STATE.set(Some(0));
        let _ = ahash::RandomState::new();
    });
    STATE.set(Some(seed));
    // It draws its first seed from the clock. kube's backoff uses it.
    fastrand::seed(seed);
}

/// The part of ahash's seeds that otherwise depends on addresses in memory.
struct Constant;

impl RandomSource for Constant {
    fn gen_hasher_seed(&self) -> usize {
        1
    }
}

/// The next number of this thread's sequence (SplitMix64: Steele, Lea, Flood 2014); none without a seed.
fn draw() -> Option<u64> {
    STATE.get().map(|state| {
        let state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        STATE.set(Some(state));
        let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    })
}

/// Fills the buffer. Says whether it could.
fn fill(buffer: &mut [u8]) -> bool {
    for chunk in buffer.chunks_mut(8) {
        match draw() {
            Some(number) => chunk.copy_from_slice(&number.to_le_bytes()[..chunk.len()]),
            None => return File::open("/dev/urandom").is_ok_and(|mut file| file.read_exact(buffer).is_ok()),
        }
    }
    true
}

/// See getrandom(2). The flags say how long to wait for the operating system, which never takes long here.
#[expect(
    unsafe_code,
    reason = "nothing else reaches the hashers of libraries; the function only fills the caller's buffer"
)]
#[unsafe(no_mangle)]
extern "C" fn getrandom(buffer: *mut u8, length: usize, _flags: u32) -> isize {
    if buffer.is_null() {
        return -1;
    }
    // SAFETY: the caller of getrandom(2) gives a buffer of this length that it may be written to.
    let buffer = unsafe { std::slice::from_raw_parts_mut(buffer, length) };
    if fill(buffer) { isize::try_from(length).unwrap_or(-1) } else { -1 }
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher as _, RandomState};

    use super::*;

    /// What a new thread with this seed draws: from the hashers of Rust and of ahash, and as numbers.
    fn drawn(seed: u64) -> (u64, u64, u64, u64) {
        let draw = move || {
            seed_this_thread(seed);
            (
                RandomState::new().hash_one(1),
                ahash::RandomState::new().hash_one(1),
                rand::random::<u64>(),
                fastrand::u64(..),
            )
        };
        std::thread::spawn(draw).join().unwrap()
    }

    #[test]
    fn everything_random_follows_from_the_seed() {
        let (first, again, other) = (drawn(5), drawn(5), drawn(6));
        assert_eq!(first, again);
        assert_ne!(first.0, other.0);
        assert_ne!((first.2, first.3), (other.2, other.3));
        assert_eq!(first.1, other.1, "ahash draws once in a process, which must not depend on the first seed");
    }
}
