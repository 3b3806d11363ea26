//! Batches in frames: all counts, then all numbers, then all bytes.
//!
//! ```text
//! batch   := records u32 | column keys: ends u32, nulls u32, bytes u32 | column values: the same
//!            | headers u32
//!            | timestamps i64* | ends u32*, nulls u32* of keys | of values | bytes of keys | of values
//!            | header*
//! header  := record u32 | name bytes | present u8 | value bytes, if present
//! ```

use tidemill_types::{Batch, Column, Header};

use super::{
    FrameError,
    wire::{Reader, count, put_bytes, put_i64s, put_u32s},
};

/// The least that a header takes in a frame: it bounds what a count may make us allocate.
const HEADER_BYTES_MIN: usize = 9;

pub(super) fn put_batch(out: &mut Vec<u8>, batch: &Batch) {
    let Batch {
        timestamps,
        keys,
        values,
        headers,
    } = batch;
    out.reserve(64 + batch.byte_size());
    out.extend_from_slice(&count(timestamps.len()).to_le_bytes());
    for column in [keys, values] {
        for len in [column.ends.len(), column.nulls.len(), column.data.len()] {
            out.extend_from_slice(&count(len).to_le_bytes());
        }
    }
    out.extend_from_slice(&count(headers.len()).to_le_bytes());
    put_i64s(out, timestamps);
    for column in [keys, values] {
        put_u32s(out, &column.ends);
        put_u32s(out, &column.nulls);
    }
    out.extend_from_slice(&keys.data);
    out.extend_from_slice(&values.data);
    for header in headers {
        put_header(out, header);
    }
}

fn put_header(out: &mut Vec<u8>, header: &Header) {
    out.extend_from_slice(&header.record.to_le_bytes());
    put_bytes(out, header.name.as_bytes());
    out.push(u8::from(header.value.is_some()));
    if let Some(value) = &header.value {
        put_bytes(out, value);
    }
}

struct Counts {
    ends: usize,
    nulls: usize,
    bytes: usize,
}

pub(super) fn read_batch(reader: &mut Reader<'_>) -> Result<Batch, FrameError> {
    let records = reader.u32("records")? as usize;
    let of_keys = read_counts(reader)?;
    let of_values = read_counts(reader)?;
    let headers = reader.u32("headers")? as usize;
    let timestamps = reader.i64s(records, "timestamps")?;
    let mut keys = read_numbers(reader, &of_keys)?;
    let mut values = read_numbers(reader, &of_values)?;
    keys.data = reader.take(of_keys.bytes, "keys")?.to_vec();
    values.data = reader.take(of_values.bytes, "values")?.to_vec();
    let headers = read_headers(reader, headers)?;
    let batch = Batch {
        timestamps,
        keys,
        values,
        headers,
    };
    batch.validate()?;
    Ok(batch)
}

fn read_counts(reader: &mut Reader<'_>) -> Result<Counts, FrameError> {
    Ok(Counts {
        ends: reader.u32("column")? as usize,
        nulls: reader.u32("column")? as usize,
        bytes: reader.u32("column")? as usize,
    })
}

fn read_numbers(reader: &mut Reader<'_>, counts: &Counts) -> Result<Column, FrameError> {
    Ok(Column {
        data: Vec::new(),
        ends: reader.u32s(counts.ends, "ends")?,
        nulls: reader.u32s(counts.nulls, "nulls")?,
    })
}

fn read_headers(reader: &mut Reader<'_>, len: usize) -> Result<Vec<Header>, FrameError> {
    reader.at_least(len, HEADER_BYTES_MIN, "headers")?;
    let mut headers = Vec::with_capacity(len);
    for _ in 0..len {
        let record = reader.u32("header")?;
        let name = std::str::from_utf8(reader.bytes("header name")?)
            .ok()
            .ok_or(FrameError::Text {
                field: "header name",
            })?
            .to_owned();
        let value = match reader.bits("header", 1)? {
            0 => None,
            _ => Some(reader.bytes("header value")?.to_vec()),
        };
        headers.push(Header {
            record,
            name,
            value,
        });
    }
    Ok(headers)
}
