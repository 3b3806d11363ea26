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
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        hash = mix(
            hash,
            u64::from_le_bytes(chunk.try_into().unwrap_or_default()),
        );
    }
    let mut tail = 0;
    for byte in chunks.remainder() {
        tail = (tail << 8) | u64::from(*byte);
    }
    let hash = mix(hash, tail);
    hash ^ (hash >> 29)
}
