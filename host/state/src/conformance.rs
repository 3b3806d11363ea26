//! What every store of keyed state must do, checked through the calls that guests make.
//!
//! [`run`] drives a store with random calls from a seed and compares it with a plain map after
//! each. A new store implements [`Subject`] in its tests and calls [`run`] for some hundred seeds.

use std::collections::BTreeMap;

use tidemill_types::{Column, KeyGroup, KeyGroupRange};

use crate::{Entries, NEVER, StateError, StateId};

/// A store under test. It has been opened for the key groups `0..64` of 128 of a vertex with three
/// states: two keyed ones (0 and 1), and one that belongs to no key (2).
pub trait Subject {
    /// As [`crate::KeyedStore::get_many`].
    ///
    /// # Errors
    ///
    /// As there.
    fn get_many(
        &mut self,
        state: StateId,
        keys: &Column,
        subkeys: &Column,
        now_ms: i64,
    ) -> Result<Column, StateError>;

    /// As [`crate::KeyedStore::put_many`].
    ///
    /// # Errors
    ///
    /// As there.
    fn put_many(
        &mut self,
        state: StateId,
        entries: &Entries,
        now_ms: i64,
    ) -> Result<(), StateError>;

    /// As [`crate::KeyedStore::scan`].
    ///
    /// # Errors
    ///
    /// As there.
    #[expect(
        clippy::too_many_arguments,
        reason = "as in the contract, and the time"
    )]
    fn scan(
        &mut self,
        state: StateId,
        key: &[u8],
        after: Option<&[u8]>,
        max_bytes: u32,
        now_ms: i64,
    ) -> Result<Entries, StateError>;

    /// Takes a snapshot, and becomes a store that was restored from it.
    ///
    /// # Errors
    ///
    /// When that fails.
    fn snapshot_and_restore(&mut self, now_ms: i64) -> Result<(), StateError>;
}

/// The key groups that a subject is opened for.
pub const RANGE: KeyGroupRange = KeyGroupRange { start: 0, end: 64 };
/// The number of key groups of its vertex.
pub const MAX_PARALLELISM: u32 = 128;

/// What a store should hold: by state, key and sub-key, the value and its expiry.
type Model = BTreeMap<(u32, Vec<u8>, Vec<u8>), (Vec<u8>, i64)>;

/// Random numbers, the same on every machine.
#[derive(Debug)]
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn state(&mut self) -> StateId {
        StateId(u32::from(self.below(2) == 1))
    }

    /// One of a few keys, in one of the owned groups.
    fn key(&mut self) -> Vec<u8> {
        loop {
            let key = format!("key-{}", self.below(40)).into_bytes();
            if RANGE.contains(KeyGroup::of(&key, MAX_PARALLELISM)) {
                return key;
            }
        }
    }

    fn subkey(&mut self) -> Vec<u8> {
        let n = self.below(12);
        if n == 0 {
            Vec::new()
        } else {
            format!("{}", n * 7).into_bytes()
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "one byte is wanted")]
    fn value(&mut self) -> Vec<u8> {
        let len = match self.below(10) {
            0 => 0,
            1..9 => self.below(20),
            _ => self.below(3_000),
        };
        let byte = self.below(256) as u8;
        (0..len).map(|_| byte).collect()
    }
}

/// Drives a store with the calls that belong to `seed`.
///
/// # Panics
///
/// When the store does anything else than a map would.
pub fn run(subject: &mut impl Subject, seed: u64) {
    let mut dice = Dice(seed);
    let mut model = Model::new();
    let mut now = 1_000;
    refuse(subject, &format!("seed {seed}"));
    for step in 0..200 {
        let at = format!("seed {seed}, step {step}");
        match dice.below(19) {
            0..9 => write(subject, &mut model, &mut dice, now, &at),
            9..14 => read(subject, &model, &mut dice, now, &at),
            14..17 => scan(subject, &model, &mut dice, now, &at),
            17 => now += i64::try_from(dice.below(50)).expect("it is small"),
            _ => {
                let result = subject.snapshot_and_restore(now);
                assert!(result.is_ok(), "{at}: {result:?}");
            }
        }
        model.retain(|_, (_, expiry)| *expiry > now);
    }
}

fn write(subject: &mut impl Subject, model: &mut Model, dice: &mut Dice, now: i64, at: &str) {
    let state = dice.state();
    let mut entries = Entries::default();
    let expiring = dice.below(3) == 0;
    for _ in 0..dice.below(30) {
        let (key, subkey) = (dice.key(), dice.subkey());
        let value = if dice.below(4) == 0 {
            None
        } else {
            Some(dice.value())
        };
        let life = i64::try_from(dice.below(100)).expect("it is small");
        let expiry = if expiring && dice.below(2) == 0 {
            now + life
        } else {
            NEVER
        };
        entries.keys.push(Some(&key));
        entries.subkeys.push(if subkey.is_empty() {
            None
        } else {
            Some(&subkey)
        });
        entries.values.push(value.as_deref());
        if expiring {
            entries.expiries.push(expiry);
        }
        let id = (state.0, key, subkey);
        match value {
            Some(value) if expiry > now => model.insert(id, (value, expiry)),
            _ => model.remove(&id),
        };
    }
    let result = subject.put_many(state, &entries, now);
    assert!(result.is_ok(), "{at}: {result:?}");
}

fn read(subject: &mut impl Subject, model: &Model, dice: &mut Dice, now: i64, at: &str) {
    let state = dice.state();
    let (mut keys, mut subkeys, mut expected) = <(Column, Column, Column)>::default();
    for _ in 0..dice.below(30) {
        let (key, subkey) = (dice.key(), dice.subkey());
        keys.push(Some(&key));
        subkeys.push(Some(&subkey));
        expected.push(
            model
                .get(&(state.0, key, subkey))
                .map(|(value, _)| value.as_slice()),
        );
    }
    assert_eq!(
        subject.get_many(state, &keys, &subkeys, now),
        Ok(expected),
        "{at}"
    );
}

fn scan(subject: &mut impl Subject, model: &Model, dice: &mut Dice, now: i64, at: &str) {
    let (state, key) = (dice.state(), dice.key());
    let max_bytes = u32::try_from(dice.below(4_000)).expect("it is small");
    let mut after: Option<Vec<u8>> = (dice.below(2) == 0).then(|| dice.subkey());
    let first = (state.0, key.clone(), Vec::new());
    let expected: Vec<_> = model
        .range(first..)
        .take_while(|((s, k, _), _)| *s == state.0 && *k == key)
        .filter(|((_, _, subkey), _)| after.as_ref().is_none_or(|after| subkey > after))
        .map(|((_, _, subkey), (value, expiry))| (subkey.clone(), value.clone(), *expiry))
        .collect();
    let mut expected = expected.into_iter();
    loop {
        let result = subject.scan(state, &key, after.as_deref(), max_bytes, now);
        let Ok(found) = result else {
            unreachable!("{at}: {result:?}")
        };
        if found.keys.is_empty() {
            assert_eq!(expected.next(), None, "{at}: the scan ended too early");
            return;
        }
        for index in 0..found.keys.len() {
            let subkey = found.subkeys.bytes(index).to_vec();
            let expiry = found.expiries.get(index).copied().unwrap_or(NEVER);
            let got = (subkey.clone(), found.values.bytes(index).to_vec(), expiry);
            assert_eq!(Some(got), expected.next(), "{at}");
            assert_eq!(found.keys.bytes(index), key, "{at}");
            after = Some(subkey);
        }
        let bytes = found.values.data.len() + found.keys.data.len() + found.subkeys.data.len();
        assert!(
            found.keys.len() == 1 || bytes <= max_bytes as usize,
            "{at}: {bytes} bytes"
        );
    }
}

/// What guests must not do is refused, and changes nothing.
fn refuse(subject: &mut impl Subject, at: &str) {
    let column = |bytes: &[u8]| {
        let mut column = Column::default();
        column.push(Some(bytes));
        column
    };
    let none = Column::default();
    let entries = |keys: &Column, values: &Column| Entries {
        keys: keys.clone(),
        values: values.clone(),
        ..Entries::default()
    };
    let owned = |n: &u32| RANGE.contains(KeyGroup::of(&n.to_le_bytes(), MAX_PARALLELISM));
    let mine = (0u32..)
        .find(owned)
        .map(u32::to_le_bytes)
        .expect("half of all keys are owned");
    let foreign = (0u32..)
        .find(|n| !owned(n))
        .map(u32::to_le_bytes)
        .expect("and half are not");
    let (mine, foreign) = (column(&mine), column(&foreign));
    for state in [2, 3, u32::from(u16::MAX), u32::MAX] {
        let result = subject.get_many(StateId(state), &mine, &none, 0);
        assert!(
            matches!(result, Err(StateError::UnknownState { .. })),
            "{at}: {result:?}"
        );
    }
    let result = subject.get_many(StateId(0), &foreign, &none, 0);
    assert!(
        matches!(result, Err(StateError::NotOwned { .. })),
        "{at}: {result:?}"
    );
    let result = subject.put_many(StateId(0), &entries(&foreign, &mine), 0);
    assert!(
        matches!(result, Err(StateError::NotOwned { .. })),
        "{at}: {result:?}"
    );
    let result = subject.scan(StateId(0), foreign.bytes(0), None, 0, 0);
    assert!(
        matches!(result, Err(StateError::NotOwned { .. })),
        "{at}: {result:?}"
    );
    let mut two = mine.clone();
    two.push(None);
    let result = subject.put_many(StateId(0), &entries(&mine, &two), 0);
    assert!(
        matches!(result, Err(StateError::Count { .. })),
        "{at}: {result:?}"
    );
    let result = subject.get_many(StateId(0), &two, &none, 0);
    assert!(
        matches!(result, Err(StateError::NoKey { entry: 1 })),
        "{at}: {result:?}"
    );
    let long = column(&vec![b'x'; crate::KEY_BYTES_MAX + 1]);
    let mut long_subkey = entries(&mine, &mine);
    long_subkey.subkeys = long;
    let result = subject.put_many(StateId(0), &long_subkey, 0);
    assert!(
        matches!(result, Err(StateError::KeyTooLong { .. })),
        "{at}: {result:?}"
    );
    let large = column(&vec![0; crate::VALUE_BYTES_MAX + 1]);
    let result = subject.put_many(StateId(0), &entries(&mine, &large), 0);
    assert!(
        matches!(result, Err(StateError::ValueTooLong { .. })),
        "{at}: {result:?}"
    );
}
