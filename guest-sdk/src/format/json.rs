//! JSON, one value a record.

mod fast;

use std::fmt;
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Result;
use crate::format::{Decode, Encode, RawRecord, RecordWriter};

/// Values of type `T` as JSON.
pub struct Json<T> {
    values: PhantomData<fn() -> T>,
}

impl<T> Json<T> {
    /// The format.
    #[must_use]
    pub fn new() -> Self {
        Self {
            values: PhantomData,
        }
    }
}

impl<T> Default for Json<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> fmt::Debug for Json<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Json")
    }
}

impl<T: DeserializeOwned + 'static> Decode for Json<T> {
    type Out = T;

    #[inline]
    fn decode(&mut self, record: RawRecord<'_>) -> Result<T> {
        let payload = record.payload()?;
        match fast::read(payload) {
            Some(value) => Ok(value),
            None => Ok(serde_json::from_slice(payload)?),
        }
    }

    fn describe(&self) -> String {
        "JSON".to_owned()
    }
}

impl<T: Serialize + 'static> Encode<T> for Json<T> {
    fn encode(&mut self, value: &T, record: &mut RecordWriter<'_>) -> Result<()> {
        Ok(serde_json::to_writer(record.value(), value)?)
    }

    fn describe(&self) -> String {
        "JSON".to_owned()
    }
}
