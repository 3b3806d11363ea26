//! Records in columns, as they cross the sandbox's boundary and the network.
//!
//! # Invariants of a checked batch
//!
//! 1. Every column that is present has one end per record, ends never decrease, and the last one
//!    is the length of the data.
//! 2. A column without ends is absent: all of its entries are null.
//! 3. Positions (of nulls and headers) are below the number of records and ascend.

use std::ops::Range;

use crate::NO_TIMESTAMP;

/// The largest batch that is accepted from anyone, in records.
pub const BATCH_RECORDS_MAX: usize = 1 << 20;
/// The largest batch that is accepted from anyone, in bytes.
pub const BATCH_BYTES_MAX: usize = 64 << 20;

/// Many byte strings in two flat lists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Column {
    /// All entries, one after the other.
    pub data: Vec<u8>,
    /// Where each entry ends.
    pub ends: Vec<u32>,
    /// Which entries are null, ascending.
    pub nulls: Vec<u32>,
}

/// One header of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Position of the record.
    pub record: u32,
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: Option<Vec<u8>>,
}

/// Records, column by column.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// Milliseconds since the epoch, or [`NO_TIMESTAMP`].
    pub timestamps: Vec<i64>,
    /// Keys; absent if the records have none.
    pub keys: Column,
    /// Payloads; a null is a tombstone.
    pub values: Column,
    /// Headers, sorted by record; usually none.
    pub headers: Vec<Header>,
}

/// Why columns from a guest or a peer are not acceptable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ColumnError {
    /// Ends decrease.
    #[error("the end of entry {entry} lies before the end of the one before it")]
    Decreasing {
        /// The first entry for which that is so.
        entry: usize,
    },
    /// The last end is not the end of the data.
    #[error("the entries end at byte {end}, the data at byte {len}")]
    Length {
        /// The last end.
        end: u32,
        /// The length of the data.
        len: usize,
    },
    /// A column has too many or too few entries.
    #[error("{column} has {entries} entries for {records} records")]
    Count {
        /// Which column.
        column: &'static str,
        /// Its entries.
        entries: usize,
        /// The records.
        records: usize,
    },
    /// A position is out of range or out of order.
    #[error("position {position} in {list} is out of range or out of order")]
    Position {
        /// Which list.
        list: &'static str,
        /// The position.
        position: u32,
    },
    /// The batch is too large.
    #[error(
        "a batch of {records} records and {bytes} bytes; at most {BATCH_RECORDS_MAX} and {BATCH_BYTES_MAX} are allowed"
    )]
    TooLarge {
        /// Its records.
        records: usize,
        /// Its bytes.
        bytes: usize,
    },
}

impl Column {
    /// The number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are no entries.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Entry `index`, empty if it is null.
    ///
    /// # Panics
    ///
    /// If there is no such entry.
    #[inline]
    #[must_use]
    pub fn bytes(&self, index: usize) -> &[u8] {
        let start = if index == 0 {
            0
        } else {
            self.ends[index - 1] as usize
        };
        &self.data[start..self.ends[index] as usize]
    }

    /// Entry `index`; `None` if it is null or the column is absent.
    #[inline]
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        if self.ends.is_empty() || self.is_null(index) {
            None
        } else {
            Some(self.bytes(index))
        }
    }

    /// Whether entry `index` is null.
    #[inline]
    #[must_use]
    pub fn is_null(&self, index: usize) -> bool {
        !self.nulls.is_empty()
            && u32::try_from(index).is_ok_and(|index| self.nulls.binary_search(&index).is_ok())
    }

    /// All entries in order.
    pub fn iter(&self) -> impl Iterator<Item = Option<&[u8]>> {
        (0..self.len()).map(|index| self.get(index))
    }

    /// Appends an entry.
    ///
    /// # Panics
    ///
    /// If the data passes 4 GiB; builders stop long before.
    #[inline]
    pub fn push(&mut self, entry: Option<&[u8]>) {
        match entry {
            Some(bytes) => self.data.extend_from_slice(bytes),
            None => self
                .nulls
                .push(u32::try_from(self.ends.len()).expect("fewer than 2^32 entries")),
        }
        self.ends
            .push(u32::try_from(self.data.len()).expect("less than 4 GiB"));
    }

    /// Checks a column that came from outside.
    ///
    /// # Errors
    ///
    /// [`ColumnError`] names the broken invariant.
    pub fn validate(&self) -> Result<(), ColumnError> {
        // Without leaving early, so that the compiler compares many at a time.
        let pairs = self.ends.iter().zip(self.ends.iter().skip(1));
        if pairs.fold(false, |decreasing, (previous, end)| {
            decreasing | (end < previous)
        }) {
            let entry = self
                .ends
                .windows(2)
                .position(|pair| pair[1] < pair[0])
                .map_or(0, |at| at + 1);
            return Err(ColumnError::Decreasing { entry });
        }
        let end = self.ends.last().copied().unwrap_or(0);
        if end as usize != self.data.len() {
            return Err(ColumnError::Length {
                end,
                len: self.data.len(),
            });
        }
        ascending("nulls", self.nulls.iter().copied(), self.ends.len(), true)
    }

    /// Appends all entries of another column.
    ///
    /// # Panics
    ///
    /// If the data passes 4 GiB; callers bound what they merge.
    pub fn append(&mut self, other: &Self) {
        let data = u32::try_from(self.data.len()).expect("less than 4 GiB");
        let entries = u32::try_from(self.ends.len()).expect("fewer than 2^32 entries");
        assert!(
            self.data.len() + other.data.len() <= u32::MAX as usize,
            "less than 4 GiB"
        );
        self.data.extend_from_slice(&other.data);
        self.ends.extend(other.ends.iter().map(|end| end + data));
        self.nulls
            .extend(other.nulls.iter().map(|null| null + entries));
    }

    /// The entries of a range, as a column of their own.
    ///
    /// # Panics
    ///
    /// If the range is not within the column.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Self {
        let offset = if range.start == 0 {
            0
        } else {
            self.ends[range.start - 1]
        };
        let last = if range.end == 0 {
            0
        } else {
            self.ends[range.end - 1]
        };
        let position = |index: usize| u32::try_from(index).expect("fewer than 2^32 entries");
        let nulls = self
            .nulls
            .partition_point(|null| *null < position(range.start))
            ..self
                .nulls
                .partition_point(|null| *null < position(range.end));
        Self {
            data: self.data[offset as usize..last as usize].to_vec(),
            ends: self.ends[range.clone()]
                .iter()
                .map(|end| end - offset)
                .collect(),
            nulls: self.nulls[nulls]
                .iter()
                .map(|null| null - position(range.start))
                .collect(),
        }
    }

    /// Makes the column present with `entries` nulls.
    fn fill_null(&mut self, entries: usize) {
        for _ in self.len()..entries {
            self.push(None);
        }
    }

    /// The bytes it takes, for limits.
    #[must_use]
    pub fn byte_size(&self) -> usize {
        self.data.len() + 4 * (self.ends.len() + self.nulls.len())
    }
}

fn ascending(
    list: &'static str,
    positions: impl Iterator<Item = u32>,
    len: usize,
    strictly: bool,
) -> Result<(), ColumnError> {
    let mut previous: Option<u32> = None;
    for position in positions {
        let in_order = previous.is_none_or(|p| p < position || (!strictly && p == position));
        if position as usize >= len || !in_order {
            return Err(ColumnError::Position { list, position });
        }
        previous = Some(position);
    }
    Ok(())
}

impl Batch {
    /// The number of records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.timestamps.len()
    }

    /// Whether there are no records.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.timestamps.is_empty()
    }

    /// The bytes it takes, for limits and credit.
    #[must_use]
    pub fn byte_size(&self) -> usize {
        8 * self.timestamps.len()
            + self.keys.byte_size()
            + self.values.byte_size()
            + self
                .headers
                .iter()
                .map(|h| 8 + h.name.len() + h.value.as_ref().map_or(0, Vec::len))
                .sum::<usize>()
    }

    /// Appends all records of another batch.
    ///
    /// # Panics
    ///
    /// If a column passes 4 GiB; callers bound what they merge.
    pub fn append(&mut self, other: Self) {
        if self.is_empty() {
            *self = other;
            return;
        }
        let records = self.len();
        let offset = u32::try_from(records).expect("fewer than 2^32 records");
        for (mine, theirs) in [
            (&mut self.keys, other.keys),
            (&mut self.values, other.values),
        ] {
            if mine.is_empty() && theirs.is_empty() {
                continue;
            }
            mine.fill_null(records);
            mine.append(&theirs);
            mine.fill_null(records + other.timestamps.len());
        }
        self.headers
            .extend(other.headers.into_iter().map(|h| Header {
                record: h.record + offset,
                ..h
            }));
        self.timestamps.extend_from_slice(&other.timestamps);
    }

    /// The records of a range, as a batch of their own.
    ///
    /// # Panics
    ///
    /// If the range is not within the batch.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Self {
        let column = |column: &Column| {
            if column.is_empty() {
                Column::default()
            } else {
                column.slice(range.clone())
            }
        };
        let within = |h: &&Header| range.contains(&(h.record as usize));
        let start = u32::try_from(range.start).expect("fewer than 2^32 records");
        Self {
            keys: column(&self.keys),
            values: column(&self.values),
            headers: self
                .headers
                .iter()
                .filter(within)
                .map(|h| Header {
                    record: h.record - start,
                    ..h.clone()
                })
                .collect(),
            timestamps: self.timestamps[range].to_vec(),
        }
    }

    /// Checks a batch that came from outside.
    ///
    /// # Errors
    ///
    /// [`ColumnError`] names the broken invariant.
    pub fn validate(&self) -> Result<(), ColumnError> {
        let records = self.len();
        let bytes = self.byte_size();
        if records > BATCH_RECORDS_MAX || bytes > BATCH_BYTES_MAX {
            return Err(ColumnError::TooLarge { records, bytes });
        }
        for (name, column) in [("keys", &self.keys), ("values", &self.values)] {
            column.validate()?;
            if !column.is_empty() && column.len() != records {
                return Err(ColumnError::Count {
                    column: name,
                    entries: column.len(),
                    records,
                });
            }
        }
        ascending(
            "headers",
            self.headers.iter().map(|h| h.record),
            records,
            false,
        )
    }
}

/// Builds a batch record by record.
#[derive(Debug, Default)]
pub struct BatchBuilder {
    batch: Batch,
}

impl BatchBuilder {
    /// An empty builder.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a record without headers. Keys are either given for all records or for none.
    pub fn push(&mut self, timestamp: i64, key: Option<&[u8]>, value: Option<&[u8]>) {
        let batch = &mut self.batch;
        if key.is_some() && batch.keys.is_empty() && !batch.timestamps.is_empty() {
            for _ in 0..batch.timestamps.len() {
                batch.keys.push(None);
            }
        }
        if key.is_some() || !batch.keys.is_empty() {
            batch.keys.push(key);
        }
        batch.values.push(value);
        batch.timestamps.push(timestamp);
    }

    /// Adds a header to the last record.
    ///
    /// # Panics
    ///
    /// If there is no record yet.
    pub fn header(&mut self, name: String, value: Option<Vec<u8>>) {
        let record = self
            .batch
            .timestamps
            .len()
            .checked_sub(1)
            .expect("a record to add it to");
        let record = u32::try_from(record).expect("fewer than 2^32 records");
        self.batch.headers.push(Header {
            record,
            name,
            value,
        });
    }

    /// Copies record `index` of another batch.
    pub fn push_from(&mut self, other: &Batch, index: usize) {
        let timestamp = other.timestamps.get(index).copied().unwrap_or(NO_TIMESTAMP);
        self.push(timestamp, other.keys.get(index), other.values.get(index));
        if !other.headers.is_empty() {
            let wanted = u32::try_from(index).expect("fewer than 2^32 records");
            let start = other.headers.partition_point(|h| h.record < wanted);
            for h in other.headers[start..]
                .iter()
                .take_while(|h| h.record == wanted)
            {
                self.header(h.name.clone(), h.value.clone());
            }
        }
    }

    /// The number of records so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.batch.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }

    /// The bytes so far (cheap: headers are not counted).
    #[must_use]
    pub fn byte_size(&self) -> usize {
        8 * self.batch.timestamps.len()
            + self.batch.keys.byte_size()
            + self.batch.values.byte_size()
    }

    /// The batch, leaving the builder empty.
    pub fn take(&mut self) -> Batch {
        std::mem::take(&mut self.batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_pushed_is_read_back() {
        let mut builder = BatchBuilder::new();
        builder.push(1, None, Some(b"a"));
        builder.push(2, Some(b"k"), None);
        builder.header("h".into(), None);
        let batch = builder.take();
        batch.validate().unwrap();
        assert_eq!(batch.keys.get(0), None);
        assert_eq!(batch.keys.get(1), Some(&b"k"[..]));
        assert_eq!(batch.values.get(0), Some(&b"a"[..]));
        assert_eq!(batch.values.get(1), None);
        let mut copy = BatchBuilder::new();
        copy.push_from(&batch, 1);
        assert_eq!(copy.take().headers.len(), 1);
    }

    #[test]
    fn slices_put_together_again_are_the_batch() {
        let mut builder = BatchBuilder::new();
        for n in 0..10i64 {
            let text = n.to_string().repeat(usize::try_from(n).unwrap());
            let key = (n % 3 != 0).then_some(text.as_bytes());
            builder.push(n, key, (n % 4 != 0).then_some(text.as_bytes()));
            if n % 5 == 0 {
                builder.header("h".into(), Some(vec![1]));
            }
        }
        let whole = builder.take();
        for cut in 0..=10 {
            let (mut left, right) = (whole.slice(0..cut), whole.slice(cut..10));
            left.validate().unwrap();
            right.validate().unwrap();
            left.append(right);
            assert_eq!(left, whole);
        }
    }

    #[test]
    fn columns_that_lie_are_refused() {
        let column = |data: &[u8], ends: &[u32], nulls: &[u32]| Column {
            data: data.to_vec(),
            ends: ends.to_vec(),
            nulls: nulls.to_vec(),
        };
        assert!(column(b"abc", &[2, 1, 3], &[]).validate().is_err());
        assert!(column(b"abc", &[1, 9], &[]).validate().is_err());
        assert!(column(b"abc", &[1], &[]).validate().is_err());
        assert!(column(b"abc", &[1, 3], &[2]).validate().is_err());
        assert!(column(b"abc", &[1, 3], &[1, 0]).validate().is_err());
        assert!(column(b"abc", &[1, 3], &[1, 1]).validate().is_err());
        column(b"abc", &[1, 3], &[0]).validate().unwrap();
        let batch = Batch {
            timestamps: vec![0; 3],
            values: column(b"a", &[1], &[]),
            ..Batch::default()
        };
        assert!(matches!(batch.validate(), Err(ColumnError::Count { .. })));
    }
}
