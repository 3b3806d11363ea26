//! UTF-8 text, one line a record.

use crate::error::Result;
use crate::format::{Decode, Encode, RawRecord, RecordWriter};

/// Lines of text.
#[derive(Debug, Clone, Copy, Default)]
pub struct Text;

impl Decode for Text {
    type Out = String;

    fn decode(&mut self, record: RawRecord<'_>) -> Result<String> {
        Ok(std::str::from_utf8(record.payload()?)?.to_owned())
    }

    fn describe(&self) -> String {
        "text".to_owned()
    }
}

impl<T: AsRef<str>> Encode<T> for Text {
    fn encode(&mut self, value: &T, record: &mut RecordWriter<'_>) -> Result<()> {
        record.value().extend_from_slice(value.as_ref().as_bytes());
        Ok(())
    }

    fn describe(&self) -> String {
        "text".to_owned()
    }
}
