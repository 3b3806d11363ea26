//! Which subtask reads which partition.

/// The subtask that reads a partition: the topics' first partitions are spread by the hash of
/// their names, the others of a topic follow in turn (as in Flink).
pub(super) fn owner(topic: &str, partition: i32, parallelism: u32) -> u32 {
    let hash = topic.encode_utf16().fold(0i32, |hash, unit| {
        hash.wrapping_mul(31).wrapping_add(i32::from(unit))
    });
    let first = (hash.wrapping_mul(31) & 0x7FFF_FFFF).unsigned_abs() % parallelism;
    (first + partition.unsigned_abs() % parallelism) % parallelism
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_of_a_topic_are_spread_evenly() {
        for parallelism in 1..9u32 {
            let mut counts = vec![0; parallelism as usize];
            for partition in 0..4 * parallelism.cast_signed() {
                counts[owner("clicks", partition, parallelism) as usize] += 1;
            }
            assert_eq!(counts, vec![4; parallelism as usize]);
        }
    }

    #[test]
    fn the_hash_is_javas() {
        // "clicks".hashCode() == -1357931549 in Java.
        let java = "clicks"
            .bytes()
            .fold(0i32, |h, b| h.wrapping_mul(31).wrapping_add(b.into()));
        let expected = (java.wrapping_mul(31) & 0x7FFF_FFFF).unsigned_abs() % 7;
        assert_eq!(owner("clicks", 0, 7), expected);
    }
}
