//! Every record arrives at the right target, in order, whatever its columns look like.

use tidemill_types::{BatchBuilder, Column};

use super::*;

/// A record, apart from columns.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Record {
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
}

fn records(batch: &Batch) -> Vec<Record> {
    batch.validate().unwrap();
    (0..batch.len())
        .map(|i| Record {
            timestamp: batch.timestamps[i],
            key: batch.keys.get(i).map(<[u8]>::to_vec),
            value: batch.values.get(i).map(<[u8]>::to_vec),
            headers: batch
                .headers
                .iter()
                .filter(|h| h.record as usize == i)
                .map(|h| (h.name.clone(), h.value.clone()))
                .collect(),
        })
        .collect()
}

/// Batches of all shapes: with and without keys, nulls and headers; numbered by timestamp.
fn batches() -> Vec<Batch> {
    let mut next = 0_i64;
    (0..60_usize)
        .map(|shape| {
            let mut builder = BatchBuilder::new();
            for i in 0..(shape * 7) % 50 {
                let key = format!("key-{}", next % 17);
                let has_key = shape % 3 == 0 || (shape % 3 == 1 && i % 2 == 0);
                let value = vec![b'v'; i * (shape % 5)];
                let value = (i % 4 != 3 || shape % 2 == 0).then_some(value);
                builder.push(next, has_key.then_some(key.as_bytes()), value.as_deref());
                if shape % 4 == 0 && i % 3 == 0 {
                    builder.header("a".into(), Some(vec![1]));
                    builder.header(format!("b{next}"), None);
                }
                next += 1;
            }
            builder.take()
        })
        .collect()
}

fn run(partitioner: &mut Partitioner, batches: &[Batch]) -> Vec<Vec<Record>> {
    let mut out = vec![Vec::new(); partitioner.targets.len()];
    for batch in batches {
        partitioner.accumulate(batch.clone()).unwrap();
        while let Some((target, batch)) = partitioner.take_ready() {
            out[target].extend(records(&batch));
        }
    }
    for (target, batch) in partitioner.take_all() {
        out[target].extend(records(&batch));
    }
    assert!(partitioner.is_empty());
    assert_eq!(partitioner.pending_bytes(), 0);
    out
}

#[test]
fn every_strategy_keeps_every_record_and_the_order_per_target() {
    use ShipStrategy::{Broadcast, Forward, Global, Hash, Rebalance, Rescale};
    let batches = batches();
    let all: Vec<_> = batches.iter().flat_map(records).collect();
    for targets in [1, 2, 3, 8, 100] {
        for strategy in [Forward, Hash, Rebalance, Rescale, Broadcast, Global] {
            let out = run(&mut Partitioner::new(strategy, targets, 128), &batches);
            assert!(
                out.iter()
                    .all(|records| records.is_sorted_by_key(|r| r.timestamp))
            );
            let mut together = out.concat();
            together.sort();
            let mut expected = match strategy {
                Broadcast => vec![all.clone(); targets].concat(),
                _ => all.clone(),
            };
            expected.sort();
            assert_eq!(together, expected, "{strategy:?} over {targets}");
        }
    }
}

#[test]
fn a_hash_goes_to_the_owner_of_its_key_group() {
    let out = run(
        &mut Partitioner::new(ShipStrategy::Hash, 5, 128),
        &batches(),
    );
    for (target, records) in (0_u32..).zip(&out) {
        assert!(!records.is_empty());
        for record in records {
            let key = record.key.as_deref().unwrap_or_default();
            assert_eq!(KeyGroup::of(key, 128).owner(5, 128), target);
        }
    }
}

#[test]
fn rebalancing_never_puts_a_target_ahead_by_more_than_one_record() {
    let out = run(
        &mut Partitioner::new(ShipStrategy::Rebalance, 7, 128),
        &batches(),
    );
    let sizes: Vec<_> = out.iter().map(Vec::len).collect();
    assert!(
        sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1,
        "{sizes:?}"
    );
}

#[test]
fn a_large_batch_for_one_target_is_moved_not_copied() {
    for strategy in [ShipStrategy::Forward, ShipStrategy::Hash] {
        let mut partitioner = Partitioner::new(strategy, 1, 128);
        let mut builder = BatchBuilder::new();
        builder.push(0, Some(b"k"), Some(&vec![7; READY_BYTES]));
        let batch = builder.take();
        let address = batch.values.data.as_ptr();
        partitioner.accumulate(batch).unwrap();
        let (target, batch) = partitioner.take_ready().unwrap();
        assert_eq!((target, batch.values.data.as_ptr()), (0, address));
    }
}

#[test]
fn a_batch_that_lies_about_its_columns_is_refused() {
    let batch = Batch {
        timestamps: vec![1, 2],
        values: Column::default(),
        ..Batch::default()
    };
    let mut partitioner = Partitioner::new(ShipStrategy::Hash, 2, 128);
    partitioner.accumulate(batch.clone()).unwrap();
    let keys = Column {
        data: vec![1],
        ends: vec![9, 1],
        nulls: vec![],
    };
    let lying = Batch { keys, ..batch };
    assert!(matches!(
        partitioner.accumulate(lying),
        Err(ExchangeError::InvalidBatch(_))
    ));
    assert_eq!(partitioner.take_all().len(), 1);
}

#[test]
fn small_batches_gather_until_they_are_worth_sending() {
    let mut partitioner = Partitioner::new(ShipStrategy::Hash, 2, 128);
    let mut builder = BatchBuilder::new();
    for key in 0..8_u8 {
        builder.push(0, Some(&[key]), Some(b"value"));
    }
    let batch = builder.take();
    let mut sent = 0;
    for _ in 0..READY_RECORDS {
        partitioner.accumulate(batch.clone()).unwrap();
        while let Some((_, batch)) = partitioner.take_ready() {
            assert!(is_ready(&batch));
            assert!(batch.byte_size() < 2 * READY_BYTES);
            sent += batch.len();
        }
    }
    assert!(sent > READY_RECORDS);
}
