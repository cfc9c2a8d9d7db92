//! Which copy does what: the work is shared among the copies of a controller without any of them asking another. Pure.

/// The copy, of those with these names, whose turn it is to work on the object with this UID; none if there are no copies.
///
/// Every copy that knows the same names comes to the same answer. When a copy goes, only its share moves; when one comes, it
/// takes an equal part from each of the others (rendezvous hashing).
pub(crate) fn responsible<'n>(uid: &str, copies: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    copies.into_iter().max_by_key(|copy| (weight(uid, copy), *copy))
}

/// A number that looks random and depends on the UID and the copy alone: FNV-1a, mixed at the end. Own code, because the
/// standard library's hashes may differ between two versions of this program, which share the work during an upgrade.
fn weight(uid: &str, copy: &str) -> u64 {
    let mut hash = hash(&[uid.as_bytes(), b"\0", copy.as_bytes()]);
    for factor in [0xff51_afd7_ed55_8ccd_u64, 0xc4ce_b9fe_1a85_ec53] {
        hash = (hash ^ (hash >> 33)).wrapping_mul(factor);
    }
    hash ^ (hash >> 33)
}

/// FNV-1a of these bytes, one part after another.
pub(super) fn hash(parts: &[&[u8]]) -> u64 {
    let bytes = parts.iter().copied().flatten();
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uids() -> Vec<String> {
        (0..6000).map(|n| format!("0b5e9f1c-8a51-4f0e-9f5e-{n:012}")).collect()
    }

    #[test]
    fn each_object_has_one_copy_and_the_shares_are_equal() {
        let copies = ["replicaset-controller-1", "replicaset-controller-2", "replicaset-controller-3"];
        for copy in copies {
            let share = uids().iter().filter(|uid| responsible(uid, copies) == Some(copy)).count();
            assert!((1800..=2200).contains(&share), "{copy}: {share}");
        }
        assert_eq!(responsible("u", []), None);
    }

    #[test]
    fn the_order_of_the_names_does_not_matter() {
        for uid in uids() {
            assert_eq!(responsible(&uid, ["a", "b", "c"]), responsible(&uid, ["c", "a", "b"]));
        }
    }

    #[test]
    fn when_a_copy_goes_only_its_share_moves() {
        let mut moved = 0;
        for uid in uids() {
            let (before, after) = (responsible(&uid, ["a", "b", "c"]), responsible(&uid, ["a", "c"]));
            assert!(before == after || before == Some("b"), "{uid}: {before:?}, {after:?}");
            moved += usize::from(before != after);
        }
        assert!((1800..=2200).contains(&moved), "{moved}");
    }
}
