//! Copying records between batches, column by column.

use std::ops::Range;

use tidemill_types::{Batch, Column, Header, KeyGroup};

/// The records of a batch, sorted by target. Its lists are reused from batch to batch.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    targets: Vec<u32>,
    /// Where the records of each target begin in `order`, and the end.
    starts: Vec<u32>,
    order: Vec<u32>,
}

impl Scratch {
    /// Sorts the records of `batch` by the owners of their key groups. Stable, by counting.
    pub(super) fn assign(&mut self, batch: &Batch, targets: usize, groups: u32, owners: &[u32]) {
        self.targets.clear();
        if batch.keys.is_empty() {
            let owner = owners[KeyGroup::of(&[], groups).0 as usize];
            self.targets.resize(batch.len(), owner);
        } else {
            let keys = (0..batch.len()).map(|record| batch.keys.bytes(record));
            self.targets
                .extend(keys.map(|key| owners[KeyGroup::of(key, groups).0 as usize]));
        }
        self.starts.clear();
        self.starts.resize(targets + 1, 0);
        for &target in &self.targets {
            self.starts[target as usize + 1] += 1;
        }
        for target in 0..targets {
            self.starts[target + 1] += self.starts[target];
        }
        self.order.clear();
        self.order.resize(batch.len(), 0);
        let mut next = self.starts.clone();
        for (record, &target) in (0_u32..).zip(&self.targets) {
            let place = &mut next[target as usize];
            self.order[*place as usize] = record;
            *place += 1;
        }
    }

    /// The records of a target, in order.
    pub(super) fn records_of(&self, target: usize) -> &[u32] {
        &self.order[self.starts[target] as usize..self.starts[target + 1] as usize]
    }

    /// The target of all records, if they have the same.
    pub(super) fn only_target(&self) -> Option<usize> {
        let target = *self.targets.first()? as usize;
        (self.records_of(target).len() == self.targets.len()).then_some(target)
    }
}

/// Appends the records at these positions, which ascend.
pub(super) fn append_records(to: &mut Batch, from: &Batch, records: &[u32]) {
    let before = to.len();
    to.timestamps.extend(
        records
            .iter()
            .map(|&record| from.timestamps[record as usize]),
    );
    append_entries(&mut to.keys, before, &from.keys, records);
    append_entries(&mut to.values, before, &from.values, records);
    if !from.headers.is_empty() {
        append_headers(to, from, before, records.iter().copied());
    }
}

/// Appends neighbouring records.
pub(super) fn append_run(to: &mut Batch, from: &Batch, run: Range<usize>) {
    let before = to.len();
    to.timestamps
        .extend_from_slice(&from.timestamps[run.clone()]);
    append_range(&mut to.keys, before, &from.keys, run.clone());
    append_range(&mut to.values, before, &from.values, run.clone());
    if !from.headers.is_empty() {
        append_headers(to, from, before, run.map(position));
    }
}

fn position(index: usize) -> u32 {
    u32::try_from(index).expect("a batch has far fewer than 2^32 records")
}

/// Makes two columns agree on being there. `false` if both are absent.
fn align(to: &mut Column, before: usize, from: &Column, added: usize) -> bool {
    if from.is_empty() {
        if !to.is_empty() {
            push_nulls(to, added);
        }
        return false;
    }
    if to.is_empty() {
        push_nulls(to, before);
    }
    true
}

fn push_nulls(column: &mut Column, count: usize) {
    let (first, end) = (column.ends.len(), position(column.data.len()));
    column.nulls.extend((first..first + count).map(position));
    column.ends.resize(first + count, end);
}

fn append_entries(to: &mut Column, before: usize, from: &Column, records: &[u32]) {
    if !align(to, before, from, records.len()) {
        return;
    }
    let first = to.ends.len();
    to.ends.reserve(records.len());
    for &record in records {
        let record = record as usize;
        let start = if record == 0 {
            0
        } else {
            from.ends[record - 1] as usize
        };
        append_bytes(
            &mut to.data,
            &from.data[start..],
            from.ends[record] as usize - start,
        );
        to.ends.push(position(to.data.len()));
    }
    if !from.nulls.is_empty() {
        let nulls = records
            .iter()
            .enumerate()
            .filter(|&(_, &r)| from.is_null(r as usize));
        to.nulls
            .extend(nulls.map(|(offset, _)| position(first + offset)));
    }
}

/// Appends the first `len` bytes of `from`. Short entries are copied in one piece of fixed size,
/// whose surplus is cut off again: several times as fast as a call that looks at the length.
#[inline]
fn append_bytes(to: &mut Vec<u8>, from: &[u8], len: usize) {
    let end = to.len() + len;
    match (from.first_chunk::<16>(), from.first_chunk::<64>()) {
        (Some(chunk), _) if len <= chunk.len() => to.extend_from_slice(chunk),
        (_, Some(chunk)) if len <= chunk.len() => to.extend_from_slice(chunk),
        _ => to.extend_from_slice(&from[..len]),
    }
    to.truncate(end);
}

fn append_range(to: &mut Column, before: usize, from: &Column, run: Range<usize>) {
    if !align(to, before, from, run.len()) {
        return;
    }
    let start = if run.start == 0 {
        0
    } else {
        from.ends[run.start - 1]
    };
    let ends = &from.ends[run.clone()];
    let end = ends.last().copied().unwrap_or(start);
    let (first, offset) = (to.ends.len(), position(to.data.len()));
    to.data
        .extend_from_slice(&from.data[start as usize..end as usize]);
    to.ends.extend(ends.iter().map(|end| end - start + offset));
    let nulls = from
        .nulls
        .partition_point(|&null| (null as usize) < run.start);
    let nulls = from.nulls[nulls..]
        .iter()
        .take_while(|&&null| (null as usize) < run.end);
    to.nulls
        .extend(nulls.map(|&null| position(null as usize - run.start + first)));
}

fn append_headers(to: &mut Batch, from: &Batch, before: usize, records: impl Iterator<Item = u32>) {
    let mut rest = from.headers.as_slice();
    for (offset, record) in records.enumerate() {
        rest = &rest[rest.partition_point(|header| header.record < record)..];
        let own = rest.iter().take_while(|header| header.record == record);
        to.headers.extend(own.map(|header| Header {
            record: position(before + offset),
            name: header.name.clone(),
            value: header.value.clone(),
        }));
    }
}
