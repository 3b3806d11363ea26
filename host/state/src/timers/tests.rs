//! Timers come once, in time order, and are bounded.

use std::collections::BTreeSet;

use rand::{Rng, SeedableRng, rngs::StdRng};

use super::*;

const ALL: KeyGroupRange = KeyGroupRange { start: 0, end: 16 };

fn service() -> TimerService {
    TimerService::new(ALL, 16, 2)
}

fn rows(batch: &TimerBatch) -> Vec<(i64, Vec<u8>, Vec<u8>)> {
    (0..batch.len())
        .map(|i| {
            (
                batch.timestamps[i],
                batch.keys.bytes(i).to_vec(),
                batch.namespace(i).to_vec(),
            )
        })
        .collect()
}

#[test]
fn timers_come_in_time_order_up_to_the_watermark() {
    let mut timers = service();
    let mut batch = TimerBatch::new(TimeDomain::EventTime, 0);
    for (at, key) in [(30, b"c"), (10, b"b"), (10, b"a"), (20, b"x"), (10, b"b")] {
        batch.push(at, key, b"");
    }
    timers.set_many(&batch).unwrap();
    assert_eq!(timers.len(), 4, "setting one twice is once");
    assert_eq!(timers.next_event_time(), Some(10));
    assert_eq!(timers.next_processing_time(), None);
    assert!(timers.pop_due_event(9, 10).is_none());
    let due = timers.pop_due_event(20, 10).unwrap();
    assert_eq!(due.timestamps, [10, 10, 20]);
    assert_eq!(due.keys.bytes(2), b"x");
    assert!(timers.pop_due_event(20, 10).is_none());
    assert_eq!(timers.len(), 1);
}

#[test]
fn all_timers_of_an_operator_come_before_those_of_the_next() {
    let mut timers = service();
    timers
        .set(TimeDomain::ProcessingTime, 1, 1, b"k", b"")
        .unwrap();
    timers
        .set(TimeDomain::ProcessingTime, 0, 2, b"k", b"")
        .unwrap();
    assert_eq!(timers.next_processing_time(), Some(1));
    assert_eq!(timers.pop_due_processing(2, 10).unwrap().operator, 0);
    assert_eq!(timers.pop_due_processing(2, 10).unwrap().operator, 1);
}

#[test]
fn what_guests_must_not_do_is_refused() {
    let mut timers = service();
    let error = timers
        .set(TimeDomain::EventTime, 2, 0, b"k", b"")
        .unwrap_err();
    assert_eq!(
        error,
        StateError::UnknownOperator {
            operator: 2,
            operators: 2
        }
    );
    let error = timers
        .set(TimeDomain::EventTime, 0, 0, &[0; 70_000], b"")
        .unwrap_err();
    assert!(matches!(error, StateError::KeyTooLong { what: "key", .. }));
    let mut part = TimerService::new(KeyGroupRange { start: 0, end: 1 }, 16, 2);
    let foreign = (0u8..)
        .find(|&n| KeyGroup::of(&[n], 16) != KeyGroup(0))
        .unwrap();
    let error = part
        .set(TimeDomain::EventTime, 0, 0, &[foreign], b"")
        .unwrap_err();
    assert!(matches!(error, StateError::NotOwned { .. }));
    assert!(timers.is_empty() && part.is_empty());
}

/// Operator, time, hash, key and namespace.
type Timer = (u32, i64, u32, Vec<u8>, Vec<u8>);

/// Timers as a sorted set, with the same calls.
#[test]
fn timers_behave_as_a_sorted_set() {
    for seed in 0..500 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut timers = service();
        let mut model: BTreeSet<Timer> = BTreeSet::new();
        let mut images = Vec::new();
        for _ in 0..300 {
            let operator = rng.random_range(0..2);
            let at = rng.random_range(0..6);
            let key = vec![rng.random_range(0..20)];
            let namespace = vec![7; rng.random_range(0..2)];
            let order = identity(&key, &namespace).0;
            match rng.random_range(0..10) {
                0..5 => {
                    timers
                        .set(TimeDomain::EventTime, operator, at, &key, &namespace)
                        .unwrap();
                    model.insert((operator, at, order, key, namespace));
                }
                5..7 => {
                    let mut batch = TimerBatch::new(TimeDomain::EventTime, operator);
                    batch.push(at, &key, &namespace);
                    timers.delete_many(&batch).unwrap();
                    model.remove(&(operator, at, order, key, namespace));
                }
                7..9 => {
                    let max = rng.random_range(1..8);
                    let due = model
                        .iter()
                        .find(|timer| timer.1 <= at)
                        .map(|timer| timer.0);
                    let expected: Vec<_> = model
                        .iter()
                        .filter(|timer| Some(timer.0) == due && timer.1 <= at)
                        .take(max)
                        .cloned()
                        .collect();
                    let popped = timers.pop_due_event(at, max);
                    assert_eq!(
                        popped.as_ref().map(|batch| batch.operator),
                        due,
                        "seed {seed}"
                    );
                    let popped = popped.map(|batch| rows(&batch)).unwrap_or_default();
                    for timer in &expected {
                        model.remove(timer);
                    }
                    let expected: Vec<_> = expected
                        .into_iter()
                        .map(|(_, t, _, k, n)| (t, k, n))
                        .collect();
                    assert_eq!(popped, expected, "seed {seed}");
                }
                _ => images.push((timers.image(), model.clone())),
            }
            assert_eq!(timers.len(), model.len(), "seed {seed}");
            let costs = model.iter().map(|(_, _, _, k, n)| cost(k, n));
            assert_eq!(timers.bytes, costs.sum::<usize>(), "seed {seed}");
        }
        for (image, model) in images {
            let mut seen = BTreeSet::new();
            image.for_each(|operator, _, at, key, namespace| {
                let order = identity(key, namespace).0;
                let timer = (operator, at, order, key.to_vec(), namespace.to_vec());
                assert!(seen.insert(timer), "seed {seed}");
            });
            assert_eq!(seen, model, "seed {seed}: an image does not change");
        }
    }
}

#[test]
fn large_keys_are_bounded_by_their_bytes() {
    let mut timers = service();
    timers.bytes_max = 10_000;
    let key = vec![b'k'; 1_000];
    let mut set = |at| timers.set(TimeDomain::EventTime, 0, at, &key, &[b'n'; 1_000]);
    assert_eq!((0..100).take_while(|&at| set(at).is_ok()).count(), 4);
    let refused = set(100).unwrap_err();
    assert!(matches!(
        refused,
        StateError::TimersTooLarge { limit: 10_000, .. }
    ));
    timers.pop_due_event(0, 10).unwrap();
    timers
        .set(TimeDomain::EventTime, 0, 100, &key, &[b'n'; 1_000])
        .unwrap();
}

#[test]
fn what_is_deleted_does_not_pile_up() {
    let mut timers = service();
    timers
        .set(TimeDomain::EventTime, 0, 7, b"stays", b"")
        .unwrap();
    for n in 0u32..1_000 {
        let mut batch = TimerBatch::new(TimeDomain::EventTime, 0);
        batch.push(7, &[&n.to_le_bytes()[..], &[0; 10_000]].concat(), b"");
        timers.set_many(&batch).unwrap();
        timers.delete_many(&batch).unwrap();
    }
    let Some(Bucket::Many(table)) = timers.event[0].due.get(&7) else {
        panic!("one of several is left");
    };
    assert!(table.bytes() < 1 << 20, "{}", table.bytes());
}
