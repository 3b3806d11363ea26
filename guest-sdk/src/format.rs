//! How bytes become values at a source, and values become bytes at a sink.

mod encoded;
mod json;
mod raw;
mod text;

use std::fmt;

use crate::bindings::tidemill::job::types::Header;
use crate::error::{Error, Result};

pub(crate) use encoded::Discarded;
pub use encoded::{Encoded, Sink};
pub use json::Json;
pub use raw::{Raw, Record};
pub use text::Text;

/// A record as a source brings it.
#[derive(Debug, Clone, Copy)]
pub struct RawRecord<'a> {
    /// What the external system calls the key.
    pub key: Option<&'a [u8]>,
    /// The payload; none for a tombstone.
    pub value: Option<&'a [u8]>,
    /// Milliseconds since the epoch, if the source knows a time.
    pub timestamp: Option<i64>,
    pub(crate) headers: &'a [Header],
}

impl<'a> RawRecord<'a> {
    /// The record's headers, in order.
    pub fn headers(&self) -> impl Iterator<Item = (&'a str, Option<&'a [u8]>)> {
        self.headers
            .iter()
            .map(|header| (header.name.as_str(), header.value.as_deref()))
    }

    /// The payload of a record that must have one.
    ///
    /// # Errors
    ///
    /// For a tombstone.
    #[inline]
    pub fn payload(&self) -> Result<&'a [u8]> {
        self.value.ok_or_else(tombstone)
    }
}

#[cold]
fn tombstone() -> Error {
    Error::new("the record has no value (a tombstone)")
}

/// Reads values from records.
pub trait Decode: 'static {
    /// What is read.
    type Out: 'static;

    /// Whether the key and the headers are of interest. What is not is not brought along.
    const WHOLE_RECORD: bool = false;

    /// Reads the value of a record.
    ///
    /// # Errors
    ///
    /// When it cannot be read; the record is then rejected.
    fn decode(&mut self, record: RawRecord<'_>) -> Result<Self::Out>;

    /// What the format is called in a plan.
    fn describe(&self) -> String;
}

/// A function that reads values from whole records, as a format.
#[must_use]
pub fn decode_with<T, F>(f: F) -> impl Decode<Out = T>
where
    T: 'static,
    F: FnMut(RawRecord<'_>) -> Result<T> + 'static,
{
    DecodeWith(f)
}

struct DecodeWith<F>(F);

impl<T: 'static, F: FnMut(RawRecord<'_>) -> Result<T> + 'static> Decode for DecodeWith<F> {
    type Out = T;
    const WHOLE_RECORD: bool = true;

    fn decode(&mut self, record: RawRecord<'_>) -> Result<T> {
        (self.0)(record)
    }

    fn describe(&self) -> String {
        "function".to_owned()
    }
}

/// Where a format writes the record of a value.
pub struct RecordWriter<'a> {
    pub(crate) value: &'a mut Vec<u8>,
    pub(crate) key: &'a mut Vec<u8>,
    pub(crate) has_key: &'a mut bool,
    pub(crate) headers: &'a mut Vec<(String, Option<Vec<u8>>)>,
    pub(crate) tombstone: &'a mut bool,
}

impl RecordWriter<'_> {
    /// The end of the payload, to append to.
    pub fn value(&mut self) -> &mut Vec<u8> {
        self.value
    }

    /// Gives the record a key for the external system.
    pub fn set_key(&mut self, key: &[u8]) {
        *self.has_key = true;
        self.key.clear();
        self.key.extend_from_slice(key);
    }

    /// Gives the record a header.
    pub fn add_header(&mut self, name: &str, value: Option<&[u8]>) {
        self.headers
            .push((name.to_owned(), value.map(<[u8]>::to_vec)));
    }

    /// Makes the record a tombstone: what was written as its payload does not count.
    pub fn set_tombstone(&mut self) {
        *self.tombstone = true;
    }
}

impl fmt::Debug for RecordWriter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordWriter")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

/// Writes values as records.
pub trait Encode<T>: 'static {
    /// Writes the record of a value.
    ///
    /// # Errors
    ///
    /// When it cannot be written; what was being handled is then rejected.
    fn encode(&mut self, value: &T, record: &mut RecordWriter<'_>) -> Result<()>;

    /// What the format is called in a plan.
    fn describe(&self) -> String;
}
