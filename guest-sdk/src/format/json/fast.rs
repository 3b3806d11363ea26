//! A fast path for JSON as machines write it.
//!
//! It reads what is plain (objects, lists, whole numbers, text without escapes) and gives up on
//! everything else, including every error; `serde_json` then reads the record from its beginning.
//!
//! # Invariant
//!
//! What this accepts, `serde_json` accepts with the same value. It may give up on anything.

use serde::Deserializer;
use serde::de::value::BorrowedStrDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, EnumAccess, MapAccess, SeqAccess, VariantAccess,
    Visitor,
};

/// Deeper records are left to `serde_json`, which has a limit of its own beyond this one.
const DEPTH_MAX: u32 = 64;

/// Reads a value, unless there is something that this does not read.
#[inline]
pub(super) fn read<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let mut reader = Reader {
        bytes,
        at: 0,
        depth: 0,
    };
    let value = T::deserialize(&mut reader).ok()?;
    match reader.peek() {
        None => Some(value),
        Some(_) => None,
    }
}

/// Given up, for whatever reason.
#[derive(Debug)]
pub(super) struct GivenUp;

impl std::fmt::Display for GivenUp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("given up")
    }
}

impl std::error::Error for GivenUp {}

impl de::Error for GivenUp {
    fn custom<T: std::fmt::Display>(_message: T) -> Self {
        Self
    }

    fn invalid_type(_unexpected: de::Unexpected<'_>, _expected: &dyn de::Expected) -> Self {
        Self
    }

    fn unknown_field(_field: &str, _expected: &'static [&'static str]) -> Self {
        Self
    }

    fn missing_field(_field: &'static str) -> Self {
        Self
    }
}

type Result<T> = std::result::Result<T, GivenUp>;

struct Reader<'de> {
    bytes: &'de [u8],
    at: usize,
    depth: u32,
}

impl<'de> Reader<'de> {
    /// The next byte that is not white space.
    #[inline(always)]
    fn peek(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        if byte > b' ' {
            Some(byte)
        } else {
            self.peek_after_space()
        }
    }

    #[cold]
    #[inline(never)]
    fn peek_after_space(&mut self) -> Option<u8> {
        loop {
            let byte = *self.bytes.get(self.at)?;
            if !matches!(byte, b' ' | b'\n' | b'\t' | b'\r') {
                return Some(byte);
            }
            self.at += 1;
        }
    }

    #[inline(always)]
    fn expect(&mut self, expected: u8) -> Result<()> {
        if self.peek() != Some(expected) {
            return Err(GivenUp);
        }
        self.at += 1;
        Ok(())
    }

    fn expect_all(&mut self, word: &[u8]) -> Result<()> {
        self.peek();
        if !self.bytes[self.at..].starts_with(word) {
            return Err(GivenUp);
        }
        self.at += word.len();
        Ok(())
    }

    /// Text without escapes, between quotes.
    #[inline(always)]
    fn text(&mut self) -> Result<&'de str> {
        self.expect(b'"')?;
        let (bytes, start) = (self.bytes, self.at);
        let mut at = start;
        let mut high = 0;
        loop {
            let word = word_at(bytes, at);
            let special = special_bytes(word);
            if special != 0 {
                // All bits below the first mark are those of the text.
                high |= word & (special - 1) & !special;
                at += (special.trailing_zeros() / 8) as usize;
                break;
            }
            high |= word;
            at += 8;
        }
        if bytes.get(at) != Some(&b'"') {
            return Err(GivenUp);
        }
        self.at = at + 1;
        let text = &bytes[start..at];
        if high & HIGH_BITS == 0 {
            Ok(ascii(text))
        } else {
            utf8(text)
        }
    }

    #[inline]
    fn number<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value> {
        let negative = self.peek() == Some(b'-');
        let start = self.at;
        self.at += usize::from(negative);
        let digits = self.at;
        let mut value = 0_u64;
        loop {
            let (part, count) = leading_digits(word_at(self.bytes, self.at));
            value = value.wrapping_mul(POWERS_OF_TEN[count]).wrapping_add(part);
            self.at += count;
            if count < 8 {
                break;
            }
        }
        let len = self.at - digits;
        if matches!(self.bytes.get(self.at), Some(b'.' | b'e' | b'E')) {
            return self.fraction(start, visitor);
        }
        // Nineteen digits fit; a number that begins with zero is one digit; minus zero is special.
        let leading_zero = len > 1 && self.bytes[digits] == b'0';
        if len == 0 || len > 18 || leading_zero || (negative && value == 0) {
            return Err(GivenUp);
        }
        if negative {
            visitor.visit_i64(-value.cast_signed())
        } else {
            visitor.visit_u64(value)
        }
    }

    /// What has a fraction or an exponent is read by `serde_json`, to the same bit.
    fn fraction<V: Visitor<'de>>(&mut self, start: usize, visitor: V) -> Result<V::Value> {
        let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
        let len = self.bytes[start..]
            .iter()
            .take_while(|byte| is_part(byte))
            .count();
        self.at = start + len;
        let number = &self.bytes[start..self.at];
        visitor.visit_f64(serde_json::from_slice(number).map_err(|_error| GivenUp)?)
    }

    fn nested<R>(&mut self, f: impl FnOnce(&mut Self) -> Result<R>) -> Result<R> {
        if self.depth == DEPTH_MAX {
            return Err(GivenUp);
        }
        self.depth += 1;
        let done = f(self);
        self.depth -= 1;
        done
    }

    fn list<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value> {
        self.expect(b'[')?;
        let value = self.nested(|reader| {
            visitor.visit_seq(Items {
                reader,
                first: true,
            })
        })?;
        self.expect(b']')?;
        Ok(value)
    }

    #[inline]
    fn object<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value> {
        self.expect(b'{')?;
        let value = self.nested(|reader| {
            visitor.visit_map(Items {
                reader,
                first: true,
            })
        })?;
        self.expect(b'}')?;
        Ok(value)
    }
}

/// The highest bit of each byte.
const HIGH_BITS: u64 = 0x8080_8080_8080_8080;
/// The lowest bit of each byte.
const LOW_BITS: u64 = 0x0101_0101_0101_0101;

/// Marks the highest bit of the first byte that is a quote, a backslash or a control character
/// (and perhaps of later bytes, which does not matter).
#[inline]
fn special_bytes(word: u64) -> u64 {
    let zero_in = |word: u64| word.wrapping_sub(LOW_BITS) & !word;
    let quote = zero_in(word ^ (LOW_BITS * b'"' as u64));
    let backslash = zero_in(word ^ (LOW_BITS * b'\\' as u64));
    let control = word.wrapping_sub(LOW_BITS * 0x20) & !word;
    (quote | backslash | control) & HIGH_BITS
}

/// Eight bytes from `at` on, the first in the lowest place; behind the end are zeros, which are
/// part of no text and no number.
#[inline(always)]
fn word_at(bytes: &[u8], at: usize) -> u64 {
    match bytes.get(at..at + 8).map(<[u8; 8]>::try_from) {
        Some(Ok(chunk)) => u64::from_le_bytes(chunk),
        _ => last_word(bytes, at),
    }
}

/// As [`word_at`] for fewer than eight bytes.
#[inline]
fn last_word(bytes: &[u8], at: usize) -> u64 {
    let left = bytes.len().saturating_sub(at).min(7);
    match bytes.last_chunk::<8>() {
        // Shifted in two steps, since nothing may be left.
        Some(chunk) => (u64::from_le_bytes(*chunk) >> (8 * (7 - left))) >> 8,
        None => tiny_word(&bytes[bytes.len() - left..]),
    }
}

const POWERS_OF_TEN: [u64; 9] = [
    1,
    10,
    100,
    1_000,
    10_000,
    100_000,
    1_000_000,
    10_000_000,
    100_000_000,
];

/// The number that a word's leading digits make, and how many they are.
#[inline(always)]
fn leading_digits(word: u64) -> (u64, usize) {
    let digits = word.wrapping_sub(LOW_BITS * 0x30);
    // What is above '9' reaches the highest bit by the addition, what is below '0' by the
    // subtraction; only the first mark counts.
    let others = (word.wrapping_add(LOW_BITS * 0x46) | digits) & HIGH_BITS;
    let count = (others.trailing_zeros() / 8) as usize;
    if count == 0 {
        return (0, 0);
    }
    // As eight digits, the first ones zero; then put together by twos, fours and eights.
    let eight = digits << (8 * (8 - count));
    let pairs = eight.wrapping_mul(10).wrapping_add(eight >> 8);
    let high = (pairs & 0x0000_00ff_0000_00ff).wrapping_mul(0x000f_4240_0000_0064);
    let low = ((pairs >> 16) & 0x0000_00ff_0000_00ff).wrapping_mul(0x0000_2710_0000_0001);
    (high.wrapping_add(low) >> 32, count)
}

/// A copy of the text. Short ones, which most are, are copied word by word: in Wasm a copy of
/// unknown length is a call out of the sandbox. The words are put together before they are written,
/// since reading across two fresh writes makes a processor wait for both.
#[inline]
fn own(text: &str) -> String {
    let bytes = text.as_bytes();
    let len = bytes.len();
    let (mut low, mut high) = (0, 0);
    if let (Some(first), Some(last)) = (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        if len > 16 {
            return text.to_owned();
        }
        low = u64::from_le_bytes(*first);
        high = u64::from_le_bytes(*last).unbounded_shr(bits(16 - len));
    } else if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        // Where the two overlap they are the same.
        let last = u64::from(u32::from_le_bytes(*last)) << bits(len - 4);
        low = u64::from(u32::from_le_bytes(*first)) | last;
    } else {
        for byte in bytes.iter().rev() {
            low = low << 8 | u64::from(*byte);
        }
    }
    let mut own = Vec::with_capacity(16);
    own.extend_from_slice(&low.to_le_bytes());
    own.extend_from_slice(&high.to_le_bytes());
    own.truncate(len);
    unchecked(own)
}

/// So many bytes, in bits; at most 16 bytes.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "at most 16")]
fn bits(bytes: usize) -> u32 {
    bytes as u32 * 8
}

#[inline(always)]
#[expect(unsafe_code, reason = "a copy of text is text")]
fn unchecked(text: Vec<u8>) -> String {
    debug_assert!(std::str::from_utf8(&text).is_ok());
    // SAFETY: the bytes are those of a `str`.
    unsafe { String::from_utf8_unchecked(text) }
}

#[cold]
#[inline(never)]
fn tiny_word(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |word, byte| (word << 8) | u64::from(*byte))
}

#[cold]
#[inline(never)]
fn utf8(text: &[u8]) -> Result<&str> {
    std::str::from_utf8(text).map_err(|_error| GivenUp)
}

#[inline(always)]
#[expect(
    unsafe_code,
    reason = "text was seen to be ASCII while its end was looked for"
)]
fn ascii(text: &[u8]) -> &str {
    debug_assert!(text.is_ascii());
    // SAFETY: all bytes are below 0x80.
    unsafe { std::str::from_utf8_unchecked(text) }
}

/// The items of a list or the entries of an object.
struct Items<'a, 'de> {
    reader: &'a mut Reader<'de>,
    first: bool,
}

impl<'de> Items<'_, 'de> {
    /// Whether another item follows; goes past the comma before it.
    #[inline]
    fn more(&mut self, end: u8) -> Result<bool> {
        let next = self.reader.peek();
        if std::mem::take(&mut self.first) {
            return Ok(next != Some(end));
        }
        match next {
            Some(b',') => {
                self.reader.at += 1;
                Ok(true)
            }
            Some(byte) if byte == end => Ok(false),
            _ => Err(GivenUp),
        }
    }
}

impl<'de> SeqAccess<'de> for Items<'_, 'de> {
    type Error = GivenUp;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>> {
        if self.more(b']')? {
            seed.deserialize(&mut *self.reader).map(Some)
        } else {
            Ok(None)
        }
    }
}

impl<'de> MapAccess<'de> for Items<'_, 'de> {
    type Error = GivenUp;

    #[inline]
    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>> {
        if !self.more(b'}')? {
            return Ok(None);
        }
        let key = self.reader.text()?;
        seed.deserialize(BorrowedStrDeserializer::new(key))
            .map(Some)
    }

    #[inline]
    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value> {
        self.reader.expect(b':')?;
        seed.deserialize(&mut *self.reader)
    }
}

/// The name of a variant without data.
impl<'de> EnumAccess<'de> for &mut Reader<'de> {
    type Error = GivenUp;
    type Variant = UnitOnly;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, UnitOnly)> {
        let name = self.text()?;
        Ok((
            seed.deserialize(BorrowedStrDeserializer::new(name))?,
            UnitOnly,
        ))
    }
}

struct UnitOnly;

impl<'de> VariantAccess<'de> for UnitOnly {
    type Error = GivenUp;

    fn unit_variant(self) -> Result<()> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _seed: T) -> Result<T::Value> {
        Err(GivenUp)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, _visitor: V) -> Result<V::Value> {
        Err(GivenUp)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value> {
        Err(GivenUp)
    }
}

macro_rules! read_as {
    ($($method:ident => |$reader:ident, $visitor:ident| $read:expr;)+) => {
        $(#[inline]
        fn $method<V: Visitor<'de>>(self, $visitor: V) -> Result<V::Value> {
            let $reader = self;
            $read
        })+
    };
}

impl<'de> Deserializer<'de> for &mut Reader<'de> {
    type Error = GivenUp;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.peek() {
            Some(b'{') => self.object(visitor),
            Some(b'[') => self.list(visitor),
            Some(b'"') => visitor.visit_borrowed_str(self.text()?),
            Some(b'-' | b'0'..=b'9') => self.number(visitor),
            Some(b't' | b'f') => self.deserialize_bool(visitor),
            Some(b'n') => self.deserialize_unit(visitor),
            _ => Err(GivenUp),
        }
    }

    read_as! {
        deserialize_i8 => |reader, visitor| reader.number(visitor);
        deserialize_i16 => |reader, visitor| reader.number(visitor);
        deserialize_i32 => |reader, visitor| reader.number(visitor);
        deserialize_i64 => |reader, visitor| reader.number(visitor);
        deserialize_u8 => |reader, visitor| reader.number(visitor);
        deserialize_u16 => |reader, visitor| reader.number(visitor);
        deserialize_u32 => |reader, visitor| reader.number(visitor);
        deserialize_u64 => |reader, visitor| reader.number(visitor);
        deserialize_f32 => |reader, visitor| reader.number(visitor);
        deserialize_f64 => |reader, visitor| reader.number(visitor);
        deserialize_char => |reader, visitor| visitor.visit_borrowed_str(reader.text()?);
        deserialize_str => |reader, visitor| visitor.visit_borrowed_str(reader.text()?);
        deserialize_string => |reader, visitor| visitor.visit_string(own(reader.text()?));
        deserialize_seq => |reader, visitor| reader.list(visitor);
        deserialize_map => |reader, visitor| reader.object(visitor);
        deserialize_ignored_any => |reader, visitor| reader.deserialize_any(visitor);
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        if self.peek() == Some(b't') {
            self.expect_all(b"true")?;
            return visitor.visit_bool(true);
        }
        self.expect_all(b"false")?;
        visitor.visit_bool(false)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        if self.peek() == Some(b'n') {
            self.expect_all(b"null")?;
            return visitor.visit_none();
        }
        visitor.visit_some(self)
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.expect_all(b"null")?;
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value> {
        // Names with a dollar are arrangements between serde_json and its own types.
        if name.starts_with('$') {
            return Err(GivenUp);
        }
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value> {
        self.list(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _len: usize,
        visitor: V,
    ) -> Result<V::Value> {
        self.list(visitor)
    }

    #[inline]
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        if name.starts_with('$') {
            return Err(GivenUp);
        }
        self.object(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        visitor.visit_enum(self)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value> {
        Err(GivenUp)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value> {
        Err(GivenUp)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value> {
        Err(GivenUp)
    }
}

#[cfg(test)]
mod tests;
