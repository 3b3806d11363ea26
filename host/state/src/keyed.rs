//! What a task owns: its keyed entries and its timers, snapshotted and restored together.

use std::{collections::HashMap, sync::Arc};

use tidemill_types::{KeyGroup, KeyGroupRange, Vertex};

use crate::{
    StateError,
    arena::Id,
    format::{GroupRecord, SnapshotReader},
    snapshot::{Snapshot, UnknownState},
    store::KeyedStore,
    timers::TimerService,
};

/// One declared state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateName {
    /// Position of its operator in the vertex.
    pub operator: u32,
    /// Its name, unique within the operator.
    pub name: String,
    /// Whether it belongs to keys; others are not kept here.
    pub keyed: bool,
}

/// The names behind the numbers of a vertex: operators and states, by position.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StateNames {
    operators: Vec<String>,
    states: Vec<StateName>,
}

impl StateNames {
    /// The names of a vertex.
    #[must_use]
    pub fn of(vertex: &Vertex) -> Arc<Self> {
        let states = vertex.states.iter().map(|state| StateName {
            operator: state.operator,
            name: state.name.clone(),
            keyed: state.kind.is_keyed() && (state.operator as usize) < vertex.operators.len(),
        });
        Arc::new(Self {
            operators: vertex
                .operators
                .iter()
                .map(|operator| operator.uid.clone())
                .collect(),
            states: states.collect(),
        })
    }

    /// The uids of the operators.
    #[must_use]
    pub fn operators(&self) -> &[String] {
        &self.operators
    }

    /// The states.
    #[must_use]
    pub fn states(&self) -> &[StateName] {
        &self.states
    }
}

/// Keyed state and timers of one task.
#[derive(Debug)]
pub struct KeyedState {
    /// The entries.
    pub store: KeyedStore,
    /// The timers.
    pub timers: TimerService,
    names: Arc<StateNames>,
}

impl KeyedState {
    /// Empty state of a task of `vertex` that owns these key groups.
    #[must_use]
    pub fn new(range: KeyGroupRange, max_parallelism: u32, vertex: &Vertex) -> Self {
        let names = StateNames::of(vertex);
        Self {
            store: KeyedStore::new(range, max_parallelism, Arc::clone(&names)),
            timers: TimerService::new(range, max_parallelism, names.operators().len()),
            names,
        }
    }

    /// Whether there is nothing to snapshot.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.store.is_empty() && self.timers.is_empty()
    }

    /// Takes a snapshot; entries that have expired at `now_ms` are left out of it.
    #[must_use]
    pub fn snapshot(&self, now_ms: i64) -> Snapshot {
        Snapshot {
            range: self.store.range(),
            max_parallelism: self.store.max_parallelism(),
            names: Arc::clone(&self.names),
            groups: self.store.groups().to_vec(),
            timers: self.timers.image(),
            now_ms,
        }
    }

    /// Adds what an encoded snapshot holds for this task's key groups. Operators and states are
    /// matched by uid and name.
    ///
    /// # Errors
    ///
    /// [`StateError`] when the bytes are damaged, are of another number of key groups, or hold
    /// state that this vertex does not have (unless that is to be skipped).
    pub fn restore(&mut self, bytes: &[u8], unknown: UnknownState) -> Result<(), StateError> {
        let reader = SnapshotReader::open(bytes)?;
        let (written, expected) = (reader.max_parallelism(), self.store.max_parallelism());
        if written != expected {
            return Err(StateError::MaxParallelism { written, expected });
        }
        let mapping = Mapping::new(&reader, &self.names);
        for group in self.store.range().start..self.store.range().end {
            for record in reader.group(KeyGroup(group))? {
                self.restore_record(record?, &mapping, &reader, unknown)?;
            }
        }
        Ok(())
    }

    fn restore_record(
        &mut self,
        record: GroupRecord<'_>,
        mapping: &Mapping,
        reader: &SnapshotReader<'_>,
        unknown: UnknownState,
    ) -> Result<(), StateError> {
        match record {
            GroupRecord::Entry {
                state,
                key,
                subkey,
                value,
                expiry,
            } => match mapping.states.get(state as usize).copied().flatten() {
                Some(state) => self
                    .store
                    .write(Id { state, key, subkey }, Some(value), expiry),
                None => unknown.judge(|| reader.state_name(state)),
            },
            GroupRecord::Timer {
                operator,
                domain,
                timestamp,
                key,
                namespace,
            } => match mapping.operators.get(operator as usize).copied().flatten() {
                Some(operator) => self.timers.set(domain, operator, timestamp, key, namespace),
                None => unknown.judge(|| (reader.operator_uid(operator), "timers".to_owned())),
            },
        }
    }
}

/// From the numbers of a snapshot to those of this vertex.
struct Mapping {
    operators: Vec<Option<u32>>,
    states: Vec<Option<u16>>,
}

impl Mapping {
    fn new(reader: &SnapshotReader<'_>, names: &StateNames) -> Self {
        let operators: HashMap<&str, u32> = (0u32..)
            .zip(names.operators())
            .map(|(n, uid)| (uid.as_str(), n))
            .collect();
        let states: HashMap<(&str, &str), u16> = (0u16..)
            .zip(names.states())
            .filter(|(_, state)| state.keyed)
            .map(|(n, s)| {
                (
                    (
                        names.operators()[s.operator as usize].as_str(),
                        s.name.as_str(),
                    ),
                    n,
                )
            })
            .collect();
        Self {
            operators: reader
                .operators()
                .iter()
                .map(|o| operators.get(o.as_str()).copied())
                .collect(),
            states: reader
                .states()
                .iter()
                .map(|(operator, name)| states.get(&(operator.as_str(), name.as_str())).copied())
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests;
