//! Which subtasks of two vertices are connected by an edge.

use tidemill_types::ShipStrategy;

/// The downstream subtasks that `from` of `from_parallelism` sends to.
pub(crate) fn targets(
    strategy: ShipStrategy,
    from: u32,
    from_parallelism: u32,
    to_parallelism: u32,
) -> Vec<u32> {
    match strategy {
        ShipStrategy::Forward if from_parallelism == to_parallelism => vec![from],
        ShipStrategy::Rescale if from_parallelism > to_parallelism => {
            vec![scale(from, to_parallelism, from_parallelism)]
        }
        ShipStrategy::Rescale => (0..to_parallelism)
            .filter(|to| scale(*to, from_parallelism, to_parallelism) == from)
            .collect(),
        // A forward edge between different parallelisms has nobody to go straight to.
        ShipStrategy::Forward
        | ShipStrategy::Hash
        | ShipStrategy::Rebalance
        | ShipStrategy::Broadcast
        | ShipStrategy::Global => (0..to_parallelism).collect(),
    }
}

/// The upstream subtasks that `to` receives from.
pub(crate) fn origins(
    strategy: ShipStrategy,
    to: u32,
    from_parallelism: u32,
    to_parallelism: u32,
) -> Vec<u32> {
    (0..from_parallelism)
        .filter(|from| targets(strategy, *from, from_parallelism, to_parallelism).contains(&to))
        .collect()
}

/// How records are spread over the targets of an edge.
pub(crate) fn effective(
    strategy: ShipStrategy,
    from_parallelism: u32,
    to_parallelism: u32,
) -> ShipStrategy {
    match strategy {
        ShipStrategy::Forward if from_parallelism != to_parallelism => ShipStrategy::Rebalance,
        other => other,
    }
}

fn scale(index: u32, to: u32, from: u32) -> u32 {
    u32::try_from(u64::from(index) * u64::from(to) / u64::from(from)).expect("below a u32")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [ShipStrategy; 6] = [
        ShipStrategy::Forward,
        ShipStrategy::Hash,
        ShipStrategy::Rebalance,
        ShipStrategy::Rescale,
        ShipStrategy::Broadcast,
        ShipStrategy::Global,
    ];

    #[test]
    fn every_subtask_has_someone_to_send_to_and_to_receive_from() {
        for strategy in ALL {
            for from in 1..6 {
                for to in 1..6 {
                    for subtask in 0..from {
                        assert!(!targets(strategy, subtask, from, to).is_empty());
                    }
                    for subtask in 0..to {
                        assert!(!origins(strategy, subtask, from, to).is_empty());
                    }
                }
            }
        }
    }
}
