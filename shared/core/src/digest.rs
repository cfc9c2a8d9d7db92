//! Short digests of parts of a declaration.

use serde::Serialize;
use sha2::{Digest, Sha256};

/// The first ten hexadecimal digits of the SHA-256 of the value's JSON. Equal values have equal digests. The order of the
/// type's fields is part of the digest. Ten digits fit into names and still make a collision between the few revisions of one
/// object practically impossible.
#[must_use]
pub fn short<T: Serialize + ?Sized>(value: &T) -> String {
    // The types of this crate always serialise: their maps have string keys and no value can fail.
    let json = serde_json::to_vec(value).unwrap_or_default();
    hex::encode(&Sha256::digest(&json)[..5])
}

#[cfg(test)]
mod tests {
    #[test]
    fn equal_values_have_equal_digests_and_different_values_have_different_ones() {
        assert_eq!(super::short(&["a", "b"]), super::short(&vec!["a".to_owned(), "b".to_owned()]));
        assert_ne!(super::short(&["a", "b"]), super::short(&["ab"]));
        assert_eq!(super::short("x").len(), 10);
    }
}
