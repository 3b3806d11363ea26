//! Building and reading the contract's columns and batches.

use crate::bindings::tidemill::job::types::{Batch, Column, Header};

/// "No timestamp", "no watermark yet": the smallest s64 (Flink's `Long.MIN_VALUE`).
pub(crate) const NONE: i64 = i64::MIN;

/// A batch is sent on when it holds this much, so that a flat-map that explodes uses bounded
/// memory and feels backpressure. Large enough for the crossing to cost nothing per record.
const EMIT_BYTES: usize = 64 * 1024;

/// The same limit in records, for records that carry next to nothing.
const EMIT_RECORDS: usize = 4096;

pub(crate) fn empty() -> Column {
    Column {
        data: Vec::new(),
        ends: Vec::new(),
        nulls: Vec::new(),
    }
}

/// An entry's end in a column.
///
/// Columns stay far below 4 GiB: a guest's whole memory is less.
pub(crate) fn end_of(data: &[u8]) -> u32 {
    u32::try_from(data.len()).expect("a column is smaller than a guest's memory")
}

pub(crate) trait ColumnExt {
    /// Appends an entry.
    fn push(&mut self, entry: &[u8]);
    /// Appends a null.
    fn push_null(&mut self);
    /// Empties the column and keeps its memory.
    fn reset(&mut self);
}

impl ColumnExt for Column {
    fn push(&mut self, entry: &[u8]) {
        self.data.extend_from_slice(entry);
        self.ends.push(end_of(&self.data));
    }

    fn push_null(&mut self) {
        self.nulls
            .push(u32::try_from(self.ends.len()).expect("fewer entries than bytes"));
        self.ends.push(end_of(&self.data));
    }

    fn reset(&mut self) {
        self.data.clear();
        self.ends.clear();
        self.nulls.clear();
    }
}

/// Walks a column's entries in order, knowing which are null.
#[derive(Debug)]
pub(crate) struct Entries<'a> {
    column: &'a Column,
    start: usize,
    next_null: usize,
}

impl<'a> Entries<'a> {
    pub(crate) fn of(column: &'a Column) -> Self {
        Self {
            column,
            start: 0,
            next_null: 0,
        }
    }

    /// Entry `i`; to be asked for 0, 1, 2 … An absent column gives nulls.
    #[inline]
    pub(crate) fn at(&mut self, i: usize) -> Option<&'a [u8]> {
        let end = *self.column.ends.get(i)? as usize;
        let entry = &self.column.data[self.start..end];
        self.start = end;
        if self
            .column
            .nulls
            .get(self.next_null)
            .is_some_and(|null| *null as usize == i)
        {
            self.next_null += 1;
            return None;
        }
        Some(entry)
    }
}

/// What is on its way out by one port.
#[derive(Debug)]
pub(crate) struct Port {
    index: u32,
    batch: Batch,
}

impl Port {
    pub(crate) fn new(index: u32) -> Self {
        let batch = Batch {
            timestamps: Vec::new(),
            keys: empty(),
            values: empty(),
            headers: Vec::new(),
        };
        Self { index, batch }
    }

    /// Appends a record whose value `write` puts at the end of a buffer.
    ///
    /// # Errors
    ///
    /// What `write` returns; the record is then not appended.
    #[inline]
    pub(crate) fn push_with<E>(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let data = &mut self.batch.values.data;
        let before = data.len();
        if let Err(error) = write(data) {
            data.truncate(before);
            return Err(error);
        }
        self.batch.values.ends.push(end_of(&self.batch.values.data));
        self.finish(timestamp, key);
        Ok(())
    }

    /// Appends a record; one without a value is a tombstone.
    pub(crate) fn push(&mut self, timestamp: i64, key: Option<&[u8]>, value: Option<&[u8]>) {
        match value {
            Some(value) => self.batch.values.push(value),
            None => self.batch.values.push_null(),
        }
        self.finish(timestamp, key);
    }

    /// Adds a header to the record that will be appended next.
    pub(crate) fn push_header(&mut self, name: String, value: Option<Vec<u8>>) {
        let record = u32::try_from(self.batch.timestamps.len()).expect("batches are small");
        self.batch.headers.push(Header {
            record,
            name,
            value,
        });
    }

    #[inline]
    fn finish(&mut self, timestamp: i64, key: Option<&[u8]>) {
        self.push_key(key);
        self.batch.timestamps.push(timestamp);
        let bytes = self.batch.values.data.len() + self.batch.keys.data.len();
        if bytes >= EMIT_BYTES || self.batch.timestamps.len() >= EMIT_RECORDS {
            self.emit();
        }
    }

    /// Appends a key. The column comes into being with the first key that is there.
    #[inline]
    fn push_key(&mut self, key: Option<&[u8]>) {
        let keys = &mut self.batch.keys;
        match key {
            Some(key) => {
                while keys.ends.len() < self.batch.timestamps.len() {
                    keys.push_null();
                }
                keys.push(key);
            }
            None if keys.ends.is_empty() => {}
            None => keys.push_null(),
        }
    }

    /// Sends out what there is.
    pub(crate) fn emit(&mut self) {
        if self.batch.timestamps.is_empty() {
            return;
        }
        crate::host::emit(self.index, &self.batch);
        self.batch.timestamps.clear();
        self.batch.keys.reset();
        self.batch.values.reset();
        self.batch.headers.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_come_late_leave_nulls_before_them() {
        let mut port = Port::new(0);
        for key in [None, Some(b"k".as_slice()), None] {
            port.push_with(0, key, |out| {
                out.push(7);
                Ok::<(), ()>(())
            })
            .unwrap();
        }
        assert_eq!(port.batch.keys.ends, [0, 1, 1]);
        assert_eq!(port.batch.keys.nulls, [0, 2]);
        let mut keys = Entries::of(&port.batch.keys);
        assert_eq!(
            [keys.at(0), keys.at(1), keys.at(2)],
            [None, Some(b"k".as_slice()), None]
        );
    }

    #[test]
    fn a_record_that_cannot_be_written_leaves_no_trace() {
        let mut port = Port::new(0);
        let failed = port.push_with(0, None, |out| {
            out.extend_from_slice(b"half");
            Err("broken")
        });
        assert_eq!(failed, Err("broken"));
        assert!(port.batch.values.data.is_empty() && port.batch.timestamps.is_empty());
    }
}
