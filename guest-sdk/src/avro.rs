//! Values in Avro binary, through serde.
//!
//! What is written fits the schema that [`crate::Schema`] declares for the type:
//! integers are zigzag varints, text and bytes carry their length, a struct is its fields one after
//! another, an option is a union with null, an enum is its position (followed by its data, as a
//! union), and lists and maps are blocks of items that end with an empty one.

mod de;
mod ser;

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A value that cannot be written, or bytes that are not a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Error(String);

impl Error {
    fn new(message: impl fmt::Display) -> Self {
        Self(message.to_string())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

impl serde::ser::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message)
    }
}

impl serde::de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message)
    }
}

/// Appends a value.
pub(crate) fn write<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<(), Error> {
    value.serialize(ser::Writer { out })
}

/// Reads a value, which must take up all of `bytes`.
pub(crate) fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    let mut reader = de::Reader { rest: bytes };
    let value = T::deserialize(&mut reader)?;
    if reader.rest.is_empty() {
        Ok(value)
    } else {
        Err(Error::new(format!(
            "{} bytes are left after the value",
            reader.rest.len()
        )))
    }
}

/// A zigzag varint.
fn write_long(value: i64, out: &mut Vec<u8>) {
    let mut rest = (value.cast_unsigned() << 1) ^ (value >> 63).cast_unsigned();
    while rest >= 0x80 {
        out.push(rest.to_le_bytes()[0] | 0x80);
        rest >>= 7;
    }
    out.push(rest.to_le_bytes()[0]);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Shape {
        Empty,
        Circle(f64),
        Rectangle { width: u32, height: u32 },
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Everything {
        flag: bool,
        small: i8,
        large: i64,
        name: String,
        letter: char,
        maybe: Option<Option<u16>>,
        list: Vec<(String, i32)>,
        map: BTreeMap<u8, f32>,
        shapes: Vec<Shape>,
        unit: (),
    }

    #[test]
    fn what_is_written_is_read_again() {
        let value = Everything {
            flag: true,
            small: -3,
            large: i64::MIN,
            name: "päge".to_owned(),
            letter: 'ß',
            maybe: Some(Some(7)),
            list: vec![("a".to_owned(), -1), (String::new(), i32::MAX)],
            map: BTreeMap::from([(1, 0.5), (2, -1.5)]),
            shapes: vec![
                Shape::Empty,
                Shape::Circle(2.0),
                Shape::Rectangle {
                    width: 3,
                    height: 4,
                },
            ],
            unit: (),
        };
        let mut bytes = Vec::new();
        write(&value, &mut bytes).unwrap();
        assert_eq!(read::<Everything>(&bytes).unwrap(), value);
    }

    #[test]
    fn numbers_are_those_of_the_avro_specification() {
        for (value, expected) in [
            (0_i64, vec![0]),
            (-1, vec![1]),
            (1, vec![2]),
            (-64, vec![0x7f]),
            (64, vec![0x80, 1]),
        ] {
            let mut bytes = Vec::new();
            write(&value, &mut bytes).unwrap();
            assert_eq!(bytes, expected);
        }
    }

    #[test]
    fn a_number_beyond_avros_range_is_refused() {
        let error = write(&u64::MAX, &mut Vec::new()).unwrap_err().to_string();
        assert_eq!(
            error,
            "18446744073709551615 does not fit Avro's 64-bit signed long"
        );
    }

    #[test]
    fn damaged_bytes_are_an_error() {
        assert!(read::<String>(&[200, 1, b'x']).is_err());
        assert!(read::<Vec<u64>>(&[0xff; 12]).is_err());
        assert!(read::<bool>(&[2]).is_err());
        assert!(read::<i64>(&[0, 0]).is_err());
    }
}
