//! Timers: what operators set and delete during a call, handed to the host in one go, and the
//! order in which due ones run.
//!
//! # Invariants
//!
//! 1. Within a call the last word about a timer counts.
//! 2. While a batch of due timers runs, callbacks see time in order: one that is set for before
//!    the batch's last timer runs in its place, one that is deleted does not run.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::batch::{ColumnExt, Entries, empty};
use crate::bindings::tidemill::job::types::{TimeDomain, TimerBatch};
use crate::host;

/// A timer's key and namespace.
type Owner = (Vec<u8>, Vec<u8>);

/// A timer that is due.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Due {
    pub(crate) timestamp: i64,
    pub(crate) key: Vec<u8>,
    pub(crate) namespace: Vec<u8>,
}

/// Where a timer belongs: an operator and a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Queue {
    event_time: bool,
    operator: u32,
}

impl Queue {
    fn of(domain: TimeDomain, operator: u32) -> Self {
        Self {
            event_time: domain == TimeDomain::EventTime,
            operator,
        }
    }

    fn domain(self) -> TimeDomain {
        if self.event_time {
            TimeDomain::EventTime
        } else {
            TimeDomain::ProcessingTime
        }
    }
}

/// A batch of due timers that is being run.
#[derive(Debug)]
struct Firing {
    queue: Queue,
    /// When the batch's last timer is due.
    horizon: i64,
    inserted: BTreeSet<Due>,
    deleted: BTreeSet<Due>,
}

/// What was set and deleted during this call.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    changes: BTreeMap<Queue, HashMap<(i64, Owner), Option<bool>>>,
    firing: Option<Firing>,
}

impl Timers {
    pub(crate) fn set(
        &mut self,
        (domain, operator): (TimeDomain, u32),
        timestamp: i64,
        key: &[u8],
        namespace: &[u8],
    ) {
        let queue = Queue::of(domain, operator);
        if let Some(firing) = self.firing.as_mut().filter(|firing| firing.queue == queue)
            && timestamp <= firing.horizon
        {
            let due = Due {
                timestamp,
                key: key.to_vec(),
                namespace: namespace.to_vec(),
            };
            firing.deleted.remove(&due);
            // Of those due with the batch's last one, the host may have more: they go to it.
            if timestamp < firing.horizon {
                firing.inserted.insert(due);
                return;
            }
        }
        *self.changed(queue, timestamp, key, namespace) = Some(true);
    }

    pub(crate) fn delete(
        &mut self,
        (domain, operator): (TimeDomain, u32),
        timestamp: i64,
        key: &[u8],
        namespace: &[u8],
    ) {
        let queue = Queue::of(domain, operator);
        if let Some(firing) = self.firing.as_mut().filter(|firing| firing.queue == queue)
            && timestamp <= firing.horizon
        {
            let due = Due {
                timestamp,
                key: key.to_vec(),
                namespace: namespace.to_vec(),
            };
            firing.inserted.remove(&due);
            firing.deleted.insert(due);
        }
        *self.changed(queue, timestamp, key, namespace) = Some(false);
    }

    /// Whether a timer is to be set or deleted at the end of the call.
    fn changed(
        &mut self,
        queue: Queue,
        timestamp: i64,
        key: &[u8],
        namespace: &[u8],
    ) -> &mut Option<bool> {
        let owner = (key.to_vec(), namespace.to_vec());
        self.changes
            .entry(queue)
            .or_default()
            .entry((timestamp, owner))
            .or_default()
    }

    /// Tells the host what changed.
    pub(crate) fn hand_over(&mut self) {
        for (queue, changes) in &mut self.changes {
            if changes.is_empty() {
                continue;
            }
            let mut set = batch_of(*queue);
            let mut deleted = batch_of(*queue);
            for ((timestamp, (key, namespace)), is_set) in changes.drain() {
                let batch = if is_set == Some(true) {
                    &mut set
                } else {
                    &mut deleted
                };
                batch.timestamps.push(timestamp);
                batch.keys.push(&key);
                batch.namespaces.push(&namespace);
            }
            if !deleted.timestamps.is_empty() {
                host::timers_delete_many(&deleted);
            }
            if !set.timestamps.is_empty() {
                host::timers_set_many(&set);
            }
        }
    }

    /// Begins to run a batch of due timers.
    pub(crate) fn begin(&mut self, batch: &TimerBatch) {
        self.firing = Some(Firing {
            queue: Queue::of(batch.domain, batch.operator),
            horizon: batch.timestamps.last().copied().unwrap_or(i64::MIN),
            inserted: BTreeSet::new(),
            deleted: BTreeSet::new(),
        });
    }

    /// Whether one that was set meanwhile comes before `timestamp`: takes it.
    pub(crate) fn inserted_before(&mut self, timestamp: i64) -> Option<Due> {
        let firing = self.firing.as_mut()?;
        (firing.inserted.first()?.timestamp < timestamp).then(|| firing.inserted.pop_first())?
    }

    /// Whether the batch's timer `due` is to run: it was not deleted meanwhile.
    pub(crate) fn still_due(&mut self, due: &Due) -> bool {
        let Some(firing) = self.firing.as_mut() else {
            return true;
        };
        if !firing.deleted.is_empty() && firing.deleted.remove(due) {
            return false;
        }
        // Set again before it ran: that is this one.
        firing.inserted.remove(due);
        if due.timestamp == firing.horizon
            && let Some(changes) = self
                .changes
                .get_mut(&firing.queue)
                .filter(|c| !c.is_empty())
        {
            changes.remove(&(due.timestamp, (due.key.clone(), due.namespace.clone())));
        }
        true
    }

    /// Ends the batch.
    pub(crate) fn end(&mut self) {
        if let Some(firing) = self.firing.take() {
            debug_assert!(
                firing.inserted.is_empty(),
                "all before the horizon have run"
            );
        }
    }
}

fn batch_of(queue: Queue) -> TimerBatch {
    TimerBatch {
        domain: queue.domain(),
        operator: queue.operator,
        timestamps: Vec::new(),
        keys: empty(),
        namespaces: empty(),
    }
}

/// The timers of a batch, one by one.
pub(crate) fn due_of(batch: &TimerBatch) -> impl Iterator<Item = Due> {
    let mut keys = Entries::of(&batch.keys);
    let mut namespaces = Entries::of(&batch.namespaces);
    batch
        .timestamps
        .iter()
        .enumerate()
        .map(move |(i, timestamp)| Due {
            timestamp: *timestamp,
            key: keys.at(i).unwrap_or_default().to_vec(),
            namespace: namespaces.at(i).unwrap_or_default().to_vec(),
        })
}
