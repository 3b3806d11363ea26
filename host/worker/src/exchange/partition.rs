//! Which target a record goes to, and gathering records per target.
//!
//! A [`Partitioner`] belongs to one upstream subtask and one edge; its targets are positions in the
//! list of channels of that edge. Records gather per target until a batch is worth sending
//! ([`READY_BYTES`] or [`READY_RECORDS`]); when to send less than that is the task's decision.
//!
//! - *forward*, *global*: whole batches, moved without a copy when they are large enough.
//! - *hash*: by key group. Targets are computed for all records first, then columns are copied
//!   target by target.
//! - *rebalance*, *rescale*: every batch is dealt out in equal runs of neighbouring records, the odd
//!   ones to the targets whose turn it is: after any number of batches no target is ahead of
//!   another by more than one record.
//! - *broadcast*: a copy for each.
//!
//! # Invariants
//!
//! 1. Records of one target keep their order.
//! 2. What is taken is valid, and accepted by any receiver: what comes in is appended to less than
//!    [`READY_BYTES`], or to nothing if it is near the limits of a batch itself.

mod scatter;

use std::collections::VecDeque;

use tidemill_types::{
    Batch, KeyGroup, ShipStrategy,
    batch::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX},
};

use super::ExchangeError;

/// Bytes from which on a target's batch is worth sending.
pub const READY_BYTES: usize = 32 << 10;
/// Records from which on a target's batch is worth sending.
pub const READY_RECORDS: usize = 4096;
/// Room for the record with which a batch becomes ready.
const ROOM_BYTES: usize = 1 << 10;

/// Gathers the records for one target.
#[derive(Debug, Default)]
struct Target {
    /// Complete batches, in order; they come before `open`.
    done: VecDeque<Batch>,
    open: Batch,
    /// Timestamps, bytes of keys and bytes of values of the last batch that was gathered here.
    last: [usize; 3],
}

impl Target {
    /// Moves what has gathered out of the way of what should not be appended to it.
    fn close(&mut self) {
        if !self.open.is_empty() {
            let batch = std::mem::take(&mut self.open);
            self.last = [batch.len(), batch.keys.data.len(), batch.values.data.len()];
            self.done.push_back(batch);
        }
    }

    /// The batch to gather in. A new one gets room for as much as the last one held, so that it
    /// need not grow step by step.
    fn open(&mut self) -> &mut Batch {
        if self.open.is_empty() {
            let [records, keys, values] = self.last;
            for (column, bytes) in [(&mut self.open.keys, keys), (&mut self.open.values, values)] {
                if bytes > 0 {
                    column.data.reserve(bytes.min(READY_BYTES) + ROOM_BYTES);
                    column.ends.reserve(records.min(READY_RECORDS));
                }
            }
            self.open.timestamps.reserve(records.min(READY_RECORDS));
        }
        &mut self.open
    }

    fn close_if_ready(&mut self) {
        if is_ready(&self.open) {
            self.close();
        }
    }

    fn append(&mut self, batch: Batch) {
        if is_ready(&batch) {
            self.close();
            self.done.push_back(batch);
        } else if self.open.is_empty() {
            self.open = batch;
        } else {
            scatter::append_run(&mut self.open, &batch, 0..batch.len());
            self.close_if_ready();
        }
    }
}

fn is_ready(batch: &Batch) -> bool {
    batch.len() >= READY_RECORDS || batch.byte_size() >= READY_BYTES
}

/// Distributes the records of a subtask over the channels of an edge.
#[derive(Debug)]
pub struct Partitioner {
    strategy: ShipStrategy,
    targets: Vec<Target>,
    max_parallelism: u32,
    /// The target of each key group.
    owners: Vec<u32>,
    /// Whose turn it is.
    turn: usize,
    /// Targets with complete batches, each once.
    ready: VecDeque<usize>,
    scratch: scatter::Scratch,
}

impl Partitioner {
    /// A partitioner for an edge with so many channels.
    ///
    /// # Panics
    ///
    /// If there are no channels, or more than key groups on an edge by hash.
    #[must_use]
    pub fn new(strategy: ShipStrategy, targets: usize, max_parallelism: u32) -> Self {
        assert!(targets > 0, "an edge leads somewhere");
        let parallelism = u32::try_from(targets).expect("channels of an edge are bounded");
        let owners = if strategy == ShipStrategy::Hash {
            assert!(
                parallelism <= max_parallelism,
                "{targets} targets, {max_parallelism} key groups"
            );
            (0..max_parallelism)
                .map(|group| KeyGroup(group).owner(parallelism, max_parallelism))
                .collect()
        } else {
            Vec::new()
        };
        Self {
            strategy,
            targets: (0..targets).map(|_| Target::default()).collect(),
            max_parallelism,
            owners,
            turn: 0,
            ready: VecDeque::new(),
            scratch: scatter::Scratch::default(),
        }
    }

    /// Takes in a batch from the guest.
    ///
    /// Call [`take_ready`](Self::take_ready) until there is nothing more before the next one: it is
    /// what bounds the memory.
    ///
    /// # Errors
    ///
    /// [`ExchangeError::InvalidBatch`]; nothing was taken in then.
    pub fn accumulate(&mut self, batch: Batch) -> Result<(), ExchangeError> {
        batch.validate()?;
        if batch.is_empty() {
            return Ok(());
        }
        let count = self.targets.len();
        match self.strategy {
            ShipStrategy::Forward | ShipStrategy::Global => self.append(0, batch),
            _ if count == 1 => self.append(0, batch),
            ShipStrategy::Broadcast => {
                for target in 1..count {
                    self.append(target, batch.clone());
                }
                self.append(0, batch);
            }
            ShipStrategy::Rebalance | ShipStrategy::Rescale => self.deal(&batch),
            ShipStrategy::Hash => self.scatter(batch),
        }
        Ok(())
    }

    /// A batch that is worth sending, and its target.
    pub fn take_ready(&mut self) -> Option<(usize, Batch)> {
        let target = *self.ready.front()?;
        let done = &mut self.targets[target].done;
        let batch = done
            .pop_front()
            .expect("a ready target has a complete batch");
        if done.is_empty() {
            self.ready.pop_front();
        }
        Some((target, batch))
    }

    /// What has gathered for one target, a batch at a time.
    ///
    /// # Panics
    ///
    /// If there is no such target.
    pub fn take(&mut self, target: usize) -> Option<Batch> {
        let it = &mut self.targets[target];
        it.close();
        let batch = it.done.pop_front();
        if it.done.is_empty() {
            self.ready.retain(|&ready| ready != target);
        }
        batch
    }

    /// Everything that has gathered, each target's batches in order.
    pub fn take_all(&mut self) -> Vec<(usize, Batch)> {
        self.ready.clear();
        let mut all = Vec::new();
        for (index, target) in self.targets.iter_mut().enumerate() {
            target.close();
            all.extend(target.done.drain(..).map(|batch| (index, batch)));
        }
        all
    }

    /// Whether nothing has gathered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.targets
            .iter()
            .all(|target| target.done.is_empty() && target.open.is_empty())
    }

    /// Bytes that have gathered.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        let batches = self
            .targets
            .iter()
            .flat_map(|t| t.done.iter().chain([&t.open]));
        batches.map(Batch::byte_size).sum()
    }

    fn append(&mut self, target: usize, batch: Batch) {
        self.targets[target].append(batch);
        self.note_ready(target);
    }

    fn note_ready(&mut self, target: usize) {
        if !self.targets[target].done.is_empty() && !self.ready.contains(&target) {
            self.ready.push_back(target);
        }
    }

    /// Deals a batch out in runs of neighbouring records.
    fn deal(&mut self, batch: &Batch) {
        let count = self.targets.len();
        let (share, odd) = (batch.len() / count, batch.len() % count);
        self.make_room(batch);
        let mut start = 0;
        for step in 0..count {
            let end = start + share + usize::from(step < odd);
            if start == end {
                break;
            }
            let target = (self.turn + step) % count;
            scatter::append_run(self.targets[target].open(), batch, start..end);
            self.targets[target].close_if_ready();
            self.note_ready(target);
            start = end;
        }
        self.turn = (self.turn + odd) % count;
    }

    fn scatter(&mut self, batch: Batch) {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.assign(
            &batch,
            self.targets.len(),
            self.max_parallelism,
            &self.owners,
        );
        if let Some(target) = scratch.only_target() {
            self.append(target, batch);
        } else {
            self.make_room(&batch);
            for target in 0..self.targets.len() {
                let records = scratch.records_of(target);
                if !records.is_empty() {
                    scatter::append_records(self.targets[target].open(), &batch, records);
                    self.targets[target].close_if_ready();
                    self.note_ready(target);
                }
            }
        }
        self.scratch = scratch;
    }

    /// Gathered records together with a batch near the limits would pass them.
    fn make_room(&mut self, batch: &Batch) {
        if batch.len() > BATCH_RECORDS_MAX / 2 || batch.byte_size() > BATCH_BYTES_MAX / 2 {
            for target in 0..self.targets.len() {
                self.targets[target].close();
                self.note_ready(target);
            }
        }
    }
}

#[cfg(test)]
mod tests;
