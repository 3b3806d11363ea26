//! Writing.

use serde::ser::{
    SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant, Serializer,
};
use serde::{Serialize, ser};

use super::{Error, write_long};

pub(super) struct Writer<'a> {
    pub(super) out: &'a mut Vec<u8>,
}

/// What comes one after another: the fields of a struct, the items of a list.
pub(super) struct Parts<'a> {
    out: &'a mut Vec<u8>,
    /// Whether each item is a block of its own, since their number was not known.
    blocks: bool,
    /// Whether an empty block ends them.
    terminated: bool,
}

impl Parts<'_> {
    fn add<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        if self.blocks {
            write_long(1, self.out);
        }
        value.serialize(Writer { out: self.out })
    }

    fn done(self) {
        if self.terminated {
            write_long(0, self.out);
        }
    }
}

impl<'a> Writer<'a> {
    fn long(self, value: i64) -> Result<(), Error> {
        write_long(value, self.out);
        Ok(())
    }

    fn parts(self) -> Parts<'a> {
        Parts {
            out: self.out,
            blocks: false,
            terminated: false,
        }
    }

    fn variant(self, index: u32) -> Parts<'a> {
        write_long(i64::from(index), self.out);
        self.parts()
    }

    fn items(self, len: Option<usize>) -> Result<Parts<'a>, Error> {
        match len {
            Some(len) if len > 0 => write_long(i64::try_from(len).map_err(Error::new)?, self.out),
            // A block of no items would be the end already.
            _ => {}
        }
        Ok(Parts {
            out: self.out,
            blocks: len.is_none(),
            terminated: true,
        })
    }
}

impl<'a> Serializer for Writer<'a> {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Parts<'a>;
    type SerializeTuple = Parts<'a>;
    type SerializeTupleStruct = Parts<'a>;
    type SerializeTupleVariant = Parts<'a>;
    type SerializeMap = Parts<'a>;
    type SerializeStruct = Parts<'a>;
    type SerializeStructVariant = Parts<'a>;

    fn is_human_readable(&self) -> bool {
        false
    }

    fn serialize_bool(self, v: bool) -> Result<(), Error> {
        self.out.push(u8::from(v));
        Ok(())
    }

    fn serialize_i8(self, v: i8) -> Result<(), Error> {
        self.long(v.into())
    }

    fn serialize_i16(self, v: i16) -> Result<(), Error> {
        self.long(v.into())
    }

    fn serialize_i32(self, v: i32) -> Result<(), Error> {
        self.long(v.into())
    }

    fn serialize_i64(self, v: i64) -> Result<(), Error> {
        self.long(v)
    }

    fn serialize_u8(self, v: u8) -> Result<(), Error> {
        self.long(v.into())
    }

    fn serialize_u16(self, v: u16) -> Result<(), Error> {
        self.long(v.into())
    }

    fn serialize_u32(self, v: u32) -> Result<(), Error> {
        self.long(v.into())
    }

    fn serialize_u64(self, v: u64) -> Result<(), Error> {
        let long = i64::try_from(v)
            .map_err(|_error| Error::new(format!("{v} does not fit Avro's 64-bit signed long")))?;
        self.long(long)
    }

    fn serialize_f32(self, v: f32) -> Result<(), Error> {
        self.out.extend_from_slice(&v.to_le_bytes());
        Ok(())
    }

    fn serialize_f64(self, v: f64) -> Result<(), Error> {
        self.out.extend_from_slice(&v.to_le_bytes());
        Ok(())
    }

    fn serialize_char(self, v: char) -> Result<(), Error> {
        self.serialize_str(v.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, v: &str) -> Result<(), Error> {
        self.serialize_bytes(v.as_bytes())
    }

    fn serialize_bytes(self, v: &[u8]) -> Result<(), Error> {
        write_long(i64::try_from(v.len()).map_err(Error::new)?, self.out);
        self.out.extend_from_slice(v);
        Ok(())
    }

    fn serialize_none(self) -> Result<(), Error> {
        self.long(0)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Error> {
        write_long(1, self.out);
        value.serialize(Writer { out: self.out })
    }

    fn serialize_unit(self) -> Result<(), Error> {
        Ok(())
    }

    fn serialize_unit_struct(self, _name: &'static str) -> Result<(), Error> {
        Ok(())
    }

    fn serialize_unit_variant(
        self,
        _name: &'static str,
        index: u32,
        _variant: &'static str,
    ) -> Result<(), Error> {
        self.long(index.into())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        index: u32,
        _variant: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        self.variant(index).add(value)
    }

    fn serialize_seq(self, len: Option<usize>) -> Result<Parts<'a>, Error> {
        self.items(len)
    }

    fn serialize_tuple(self, _len: usize) -> Result<Parts<'a>, Error> {
        Ok(self.parts())
    }

    fn serialize_tuple_struct(self, _name: &'static str, _len: usize) -> Result<Parts<'a>, Error> {
        Ok(self.parts())
    }

    fn serialize_tuple_variant(
        self,
        _name: &'static str,
        index: u32,
        _variant: &'static str,
        _len: usize,
    ) -> Result<Parts<'a>, Error> {
        Ok(self.variant(index))
    }

    fn serialize_map(self, len: Option<usize>) -> Result<Parts<'a>, Error> {
        self.items(len)
    }

    fn serialize_struct(self, _name: &'static str, _len: usize) -> Result<Parts<'a>, Error> {
        Ok(self.parts())
    }

    fn serialize_struct_variant(
        self,
        _name: &'static str,
        index: u32,
        _variant: &'static str,
        _len: usize,
    ) -> Result<Parts<'a>, Error> {
        Ok(self.variant(index))
    }
}

/// All of serde's compound forms are parts one after another.
macro_rules! compound {
    ($($form:ident: $method:ident($($name:ident: $type:ty)?);)+) => {
        $(impl $form for Parts<'_> {
            type Ok = ();
            type Error = Error;

            fn $method<T: Serialize + ?Sized>(&mut self, $($name: $type,)? value: &T) -> Result<(), Error> {
                self.add(value)
            }

            fn end(self) -> Result<(), Error> {
                self.done();
                Ok(())
            }
        })+
    };
}

compound! {
    SerializeSeq: serialize_element();
    SerializeTuple: serialize_element();
    SerializeTupleStruct: serialize_field();
    SerializeTupleVariant: serialize_field();
    SerializeStruct: serialize_field(_name: &'static str);
    SerializeStructVariant: serialize_field(_name: &'static str);
}

impl SerializeMap for Parts<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Error> {
        self.add(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        value.serialize(Writer { out: self.out })
    }

    fn end(self) -> Result<(), Error> {
        self.done();
        Ok(())
    }
}

const _: () = {
    const fn is_error<E: ser::Error>() {}
    is_error::<Error>();
};
