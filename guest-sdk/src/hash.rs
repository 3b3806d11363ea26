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
