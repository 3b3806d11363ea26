//! Records as they are.

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::format::{Decode, Encode, RawRecord, RecordWriter};

/// Payloads as bytes, unread.
#[derive(Debug, Clone, Copy, Default)]
pub struct Raw;

impl Decode for Raw {
    type Out = Vec<u8>;

    fn decode(&mut self, record: RawRecord<'_>) -> Result<Vec<u8>> {
        Ok(record.payload()?.to_vec())
    }

    fn describe(&self) -> String {
        "bytes".to_owned()
    }
}

impl<T: AsRef<[u8]>> Encode<T> for Raw {
    fn encode(&mut self, value: &T, record: &mut RecordWriter<'_>) -> Result<()> {
        record.value().extend_from_slice(value.as_ref());
        Ok(())
    }

    fn describe(&self) -> String {
        "bytes".to_owned()
    }
}

/// A whole record, with key and headers: reads and writes itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Record {
    /// What the external system calls the key.
    pub key: Option<Vec<u8>>,
    /// The payload; none for a tombstone.
    pub value: Option<Vec<u8>>,
    /// Names and values, in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Record {
    /// The format that reads and writes whole records.
    #[must_use]
    pub fn format() -> WholeRecords {
        WholeRecords
    }
}

/// See [`Record::format`].
#[derive(Debug, Clone, Copy, Default)]
pub struct WholeRecords;

impl Decode for WholeRecords {
    type Out = Record;
    const WHOLE_RECORD: bool = true;

    fn decode(&mut self, record: RawRecord<'_>) -> Result<Record> {
        let headers = record.headers();
        Ok(Record {
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers: headers
                .map(|(name, v)| (name.to_owned(), v.map(<[u8]>::to_vec)))
                .collect(),
        })
    }

    fn describe(&self) -> String {
        "records".to_owned()
    }
}

impl Encode<Record> for WholeRecords {
    fn encode(&mut self, value: &Record, record: &mut RecordWriter<'_>) -> Result<()> {
        if let Some(key) = &value.key {
            record.set_key(key);
        }
        for (name, header) in &value.headers {
            record.add_header(name, header.as_deref());
        }
        match &value.value {
            Some(payload) => record.value().extend_from_slice(payload),
            None => record.set_tombstone(),
        }
        Ok(())
    }

    fn describe(&self) -> String {
        "records".to_owned()
    }
}
