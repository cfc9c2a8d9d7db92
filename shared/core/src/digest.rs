//! Short digests of parts of a declaration.

use serde::Serialize;
use sha2::{Digest, Sha256};

/// The first ten hexadecimal digits of the SHA-256 of the value's JSON. Equal values have equal digests; the field
/// order of the types is part of the digest. Ten digits make a collision between the few revisions of one object
/// practically impossible and still fit into names.
#[must_use]
pub fn short<T: Serialize + ?Sized>(value: &T) -> String {
    // A type of this crate always serialises; were one ever not to, its digest would be that of nothing.
    let json = serde_json::to_vec(value).unwrap_or_default();
    let hash = Sha256::digest(&json);
    hash.iter().take(5).fold(String::with_capacity(10), |mut out, byte| {
        for nibble in [byte >> 4, byte & 0xf] {
            out.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
        }
        out
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn equal_values_have_equal_digests_and_others_do_not() {
        assert_eq!(super::short(&["a", "b"]), super::short(&vec!["a".to_owned(), "b".to_owned()]));
        assert_ne!(super::short(&["a", "b"]), super::short(&["ab"]));
        assert_eq!(super::short("x").len(), 10);
    }
}
