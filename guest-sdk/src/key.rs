//! Keys: types with one canonical form in bytes, by which records are parted and state is found.
//!
//! # Invariants
//!
//! 1. Equal keys have equal bytes, different ones different bytes, whatever wrote them.
//! 2. The order of the bytes is the order of the keys.
//!
//! A string or a byte string alone is its own bytes. Within a tuple it must be told apart from what
//! follows: zero bytes are followed by 0xff, and it ends with 0x00 0x01.

use std::fmt;
use std::marker::PhantomData;

use crate::error::{Error, Result};
use crate::schema::Schema;

/// A type that streams can be parted by.
pub trait Key: Schema + Sized + 'static {
    /// Appends the key's bytes.
    fn write(&self, out: &mut Vec<u8>);

    /// Reads a key from bytes that are one.
    ///
    /// # Errors
    ///
    /// When they are none.
    fn read(bytes: &[u8]) -> Result<Self> {
        let mut rest = bytes;
        let key = Self::read_part(&mut rest)?;
        if rest.is_empty() {
            Ok(key)
        } else {
            Err(Error::new("bytes are left after a key"))
        }
    }

    /// The key's bytes, where the key already is in this form.
    fn raw(&self) -> Option<&[u8]> {
        None
    }

    /// Appends the key's bytes so that something can follow.
    fn write_part(&self, out: &mut Vec<u8>) {
        self.write(out);
    }

    /// Reads what [`Key::write_part`] wrote from the front of `rest`.
    ///
    /// # Errors
    ///
    /// When there is no key.
    fn read_part(rest: &mut &[u8]) -> Result<Self>;
}

macro_rules! integers {
    ($($type:ty, $flip:expr;)+) => {
        $(impl Key for $type {
            #[inline]
            fn write(&self, out: &mut Vec<u8>) {
                // The sign is flipped so that negative numbers come first.
                out.extend_from_slice(&(self ^ $flip).to_be_bytes());
            }

            fn read_part(rest: &mut &[u8]) -> Result<Self> {
                let (bytes, after) = rest.split_first_chunk().ok_or_else(too_short)?;
                *rest = after;
                Ok(Self::from_be_bytes(*bytes) ^ $flip)
            }
        })+
    };
}

integers! {
    u8, 0; u16, 0; u32, 0; u64, 0;
    i8, i8::MIN; i16, i16::MIN; i32, i32::MIN; i64, i64::MIN;
}

fn too_short() -> Error {
    Error::new("a key ends too early")
}

impl Key for bool {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }

    fn read_part(rest: &mut &[u8]) -> Result<Self> {
        Ok(u8::read_part(rest)? != 0)
    }
}

impl Key for String {
    #[inline]
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }

    fn read(bytes: &[u8]) -> Result<Self> {
        Ok(std::str::from_utf8(bytes)?.to_owned())
    }

    #[inline]
    fn raw(&self) -> Option<&[u8]> {
        Some(self.as_bytes())
    }

    fn write_part(&self, out: &mut Vec<u8>) {
        write_escaped(self.as_bytes(), out);
    }

    fn read_part(rest: &mut &[u8]) -> Result<Self> {
        Ok(Self::from_utf8(read_escaped(rest)?)?)
    }
}

/// A key that is a byte string.
#[derive(
    Debug,
    Clone,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    serde::Serialize,
    serde::Deserialize,
)]
pub struct Bytes(pub Vec<u8>);

impl Schema for Bytes {
    fn schema(_known: &mut crate::schema::Definitions) -> String {
        "\"bytes\"".to_owned()
    }
}

impl Key for Bytes {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
    }

    fn read(bytes: &[u8]) -> Result<Self> {
        Ok(Self(bytes.to_vec()))
    }

    fn raw(&self) -> Option<&[u8]> {
        Some(&self.0)
    }

    fn write_part(&self, out: &mut Vec<u8>) {
        write_escaped(&self.0, out);
    }

    fn read_part(rest: &mut &[u8]) -> Result<Self> {
        Ok(Self(read_escaped(rest)?))
    }
}

fn write_escaped(bytes: &[u8], out: &mut Vec<u8>) {
    for byte in bytes {
        out.push(*byte);
        if *byte == 0 {
            out.push(0xff);
        }
    }
    out.extend_from_slice(&[0, 1]);
}

fn read_escaped(rest: &mut &[u8]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        let (byte, after) = rest.split_first().ok_or_else(too_short)?;
        *rest = after;
        if *byte != 0 {
            bytes.push(*byte);
            continue;
        }
        let (escape, after) = rest.split_first().ok_or_else(too_short)?;
        *rest = after;
        if *escape == 1 {
            return Ok(bytes);
        }
        bytes.push(0);
    }
}

macro_rules! tuple {
    ($($type:ident $name:ident),+) => {
        impl<$($type: Key),+> Key for ($($type,)+) {
            fn write(&self, out: &mut Vec<u8>) {
                let ($($name,)+) = self;
                $($name.write_part(out);)+
            }

            fn read_part(rest: &mut &[u8]) -> Result<Self> {
                Ok(($($type::read_part(rest)?,)+))
            }
        }
    };
}

tuple!(A a);
tuple!(A a, B b);
tuple!(A a, B b, C c);
tuple!(A a, B b, C c, D d);

/// What a key can be borrowed as: the key itself, or `str` for a string.
pub trait AsKey {
    /// The key as a value of its own.
    type Key: Key;

    /// Appends the key's bytes.
    fn write_key(&self, out: &mut Vec<u8>);

    /// The key's bytes, where it already is in this form.
    fn raw_key(&self) -> Option<&[u8]>;
}

impl<K: Key> AsKey for K {
    type Key = K;

    #[inline]
    fn write_key(&self, out: &mut Vec<u8>) {
        self.write(out);
    }

    #[inline]
    fn raw_key(&self) -> Option<&[u8]> {
        self.raw()
    }
}

impl AsKey for str {
    type Key = String;

    #[inline]
    fn write_key(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }

    #[inline]
    fn raw_key(&self) -> Option<&[u8]> {
        Some(self.as_bytes())
    }
}

/// Reads the key of a value.
pub trait KeySelector<T>: 'static {
    /// The key.
    type Key: Key;

    /// Hands the key's bytes to `f`, copied to `scratch` if need be.
    #[doc(hidden)]
    fn with_bytes<R>(&self, value: &T, scratch: &mut Vec<u8>, f: impl FnOnce(&[u8]) -> R) -> R;
}

#[inline]
fn with_bytes<K: AsKey + ?Sized, R>(
    key: &K,
    scratch: &mut Vec<u8>,
    f: impl FnOnce(&[u8]) -> R,
) -> R {
    if let Some(raw) = key.raw_key() {
        return f(raw);
    }
    scratch.clear();
    key.write_key(scratch);
    f(scratch)
}

/// A key that is computed: see [`Stream::key_by`](crate::Stream::key_by).
pub struct KeyOf<F, K> {
    key: F,
    keys: PhantomData<fn() -> K>,
}

impl<F, K> KeyOf<F, K> {
    pub(crate) fn new(key: F) -> Self {
        Self {
            key,
            keys: PhantomData,
        }
    }
}

impl<T, K: Key, F: Fn(&T) -> K + 'static> KeySelector<T> for KeyOf<F, K> {
    type Key = K;

    #[inline]
    fn with_bytes<R>(&self, value: &T, scratch: &mut Vec<u8>, f: impl FnOnce(&[u8]) -> R) -> R {
        with_bytes(&(self.key)(value), scratch, f)
    }
}

/// A key that is a part of the value: see [`Stream::key_by_ref`](crate::Stream::key_by_ref).
pub struct KeyOfRef<F, K: ?Sized> {
    key: F,
    keys: PhantomData<fn() -> Box<K>>,
}

impl<F, K: ?Sized> KeyOfRef<F, K> {
    pub(crate) fn new(key: F) -> Self {
        Self {
            key,
            keys: PhantomData,
        }
    }
}

impl<T, K, F> KeySelector<T> for KeyOfRef<F, K>
where
    K: AsKey + ?Sized + 'static,
    F: Fn(&T) -> &K + 'static,
{
    type Key = K::Key;

    #[inline]
    fn with_bytes<R>(&self, value: &T, scratch: &mut Vec<u8>, f: impl FnOnce(&[u8]) -> R) -> R {
        with_bytes((self.key)(value), scratch, f)
    }
}

impl<F, K> fmt::Debug for KeyOf<F, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyOf")
    }
}

impl<F, K: ?Sized> fmt::Debug for KeyOfRef<F, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyOfRef")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes<K: Key>(key: &K) -> Vec<u8> {
        let mut out = Vec::new();
        key.write(&mut out);
        out
    }

    #[test]
    fn the_order_of_bytes_is_the_order_of_keys() {
        let numbers = [i64::MIN, -2, -1, 0, 1, i64::MAX];
        assert!(numbers.map(|n| bytes(&n)).is_sorted());
        let pairs = [
            ("", "b"),
            ("a", ""),
            ("a\0", "a"),
            ("a\0\u{1}", ""),
            ("a\u{1}", ""),
            ("b", ""),
        ];
        assert!(
            pairs
                .map(|(a, b)| bytes(&(a.to_owned(), b.to_owned())))
                .is_sorted()
        );
    }

    #[test]
    fn tuples_with_other_borders_have_other_bytes() {
        let one = bytes(&("ab".to_owned(), "c".to_owned()));
        let other = bytes(&("a".to_owned(), "bc".to_owned()));
        assert_ne!(one, other);
    }

    #[test]
    fn a_key_is_read_back() {
        let key = ("a\0b".to_owned(), -7_i32, true, Bytes(vec![0, 1, 0xff]));
        assert_eq!(
            <(String, i32, bool, Bytes)>::read(&bytes(&key)).unwrap(),
            key
        );
        assert!(u32::read(&[1, 2]).is_err());
    }
}
