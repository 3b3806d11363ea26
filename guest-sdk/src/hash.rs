//! A fast hash for the short byte strings that keys are. It never leaves the guest (the host hashes
//! keys for routing by itself), and who picks keys to collide only slows their own job down.

/// The multiplier of FxHash: an odd number with well-mixed bits.
const K: u64 = 0xf135_7aea_2e62_a9c5;

#[inline]
fn mix(hash: u64, word: u64) -> u64 {
    (hash.rotate_left(23) ^ word).wrapping_mul(K)
}

/// The hash of a byte string followed by a number.
#[inline]
pub(crate) fn hash(bytes: &[u8], then: u64) -> u64 {
    let mut hash = mix(bytes.len() as u64, then);
    let mut rest = bytes;
    while let Some((chunk, after)) = rest.split_first_chunk::<8>() {
        hash = mix(hash, u64::from_le_bytes(*chunk));
        rest = after;
    }
    let hash = mix(hash, tail(rest));
    hash ^ (hash >> 29)
}

/// The last bytes, fewer than eight, as a number. Read as two that may overlap: the length, which
/// is part of the hash, says how.
#[inline]
fn tail(rest: &[u8]) -> u64 {
    if let (Some(first), Some(last)) = (rest.first_chunk::<4>(), rest.last_chunk::<4>()) {
        return u64::from(u32::from_le_bytes(*first)) << 32 | u64::from(u32::from_le_bytes(*last));
    }
    rest.iter()
        .fold(0, |tail, byte| (tail << 8) | u64::from(*byte))
}

/// Two numbers that stand for a byte string, and whether they do so exactly: then strings are the
/// same if their numbers are.
#[inline]
pub(crate) fn summary(bytes: &[u8]) -> ((u64, u32), bool) {
    let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX - 1);
    let (Some(first), Some(last)) = (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) else {
        return ((tail(bytes), len), true);
    };
    let ends = u64::from_le_bytes(*first).rotate_left(31) ^ u64::from_le_bytes(*last);
    ((ends, len), false)
}

/// Whether two byte strings are the same, without a call for short ones.
#[inline]
pub(crate) fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    if a.len() < 8 {
        return tail(a) == tail(b);
    }
    let (Some(first), Some(last)) = (a.first_chunk::<8>(), a.last_chunk::<8>()) else {
        return false;
    };
    let ends = b.first_chunk::<8>() == Some(first) && b.last_chunk::<8>() == Some(last);
    ends && (a.len() <= 16 || a == b)
}

/// Numbers found by hash: a table of open addressing that only grows, for when little is deleted.
#[derive(Debug, Default)]
pub(crate) struct Table {
    /// One more than the number, so that zero is an empty place. A power of two of them.
    places: Vec<u32>,
    len: usize,
}

impl Table {
    /// The number under this hash for which `is` says so.
    #[inline]
    pub(crate) fn find(&self, hash: u64, mut is: impl FnMut(u32) -> bool) -> Option<u32> {
        let mask = self.places.len().wrapping_sub(1);
        let mut at = place(hash);
        loop {
            let number = self.places.get(at & mask)?.checked_sub(1)?;
            if is(number) {
                return Some(number);
            }
            at = at.wrapping_add(1);
        }
    }

    /// Adds a number that is not there. `hash_of` gives the hash of those that are.
    pub(crate) fn insert(&mut self, hash: u64, number: u32, hash_of: impl Fn(u32) -> u64) {
        if (self.len + 1) * 2 > self.places.len() {
            let size = (self.places.len() * 2).max(16);
            let old = std::mem::replace(&mut self.places, vec![0; size]);
            for place in old.into_iter().filter(|place| *place != 0) {
                self.put(hash_of(place - 1), place);
            }
        }
        self.put(hash, number + 1);
        self.len += 1;
    }

    fn put(&mut self, hash: u64, value: u32) {
        let mask = self.places.len() - 1;
        let mut at = place(hash) & mask;
        while self.places[at] != 0 {
            at = (at + 1) & mask;
        }
        self.places[at] = value;
    }
}

/// Where to look first.
#[inline]
#[expect(
    clippy::cast_possible_truncation,
    reason = "any bits of the hash will do"
)]
fn place(hash: u64) -> usize {
    hash as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_strings_of_any_length_are_told_apart() {
        let text = b"abcdefghijklmnopqrstuvwxyz";
        for end in 0..text.len() {
            let own = &text[..end];
            assert!(same(own, own.to_vec().as_slice()));
            for at in 0..end {
                let mut other = own.to_vec();
                other[at] = b'.';
                assert!(!same(own, &other), "{own:?} {at}");
                assert_ne!(hash(own, 0), hash(&other, 0));
            }
            assert!(!same(own, &text[..end + 1]));
        }
    }

    #[test]
    fn exact_summaries_tell_byte_strings_apart() {
        let mut seen = std::collections::HashSet::new();
        let letters = [0_u8, 1, 0xff, b'a'];
        let mut strings = vec![Vec::new()];
        for _ in 0..5 {
            let longer = strings
                .iter()
                .flat_map(|string| letters.map(|letter| [string.as_slice(), &[letter]].concat()));
            strings.extend(longer.collect::<Vec<_>>());
            strings.sort();
            strings.dedup();
        }
        for string in &strings {
            let (summary, is_exact) = summary(string);
            assert!(is_exact && seen.insert(summary), "{string:?}");
        }
        assert!(!summary(b"12345678").1);
    }

    #[test]
    fn a_table_finds_what_was_put_in() {
        let mut table = Table::default();
        assert_eq!(table.find(7, |_| true), None);
        let hash_of = |n: u32| hash(&n.to_le_bytes(), 0);
        for n in 0..1_000 {
            table.insert(hash_of(n), n, hash_of);
        }
        assert!((0..1_000).all(|n| table.find(hash_of(n), |own| own == n) == Some(n)));
        assert_eq!(table.find(hash_of(1_000), |own| own == 1_000), None);
    }
}
