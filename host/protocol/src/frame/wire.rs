//! Reading numbers, texts and lists from untrusted bytes.

use super::{FrameError, TEXT_BYTES_MAX};

/// What is left of a frame.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next `len` bytes. Checked before anything is allocated for them.
    pub(super) fn take(&mut self, len: usize, field: &'static str) -> Result<&'a [u8], FrameError> {
        let (head, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or(FrameError::Truncated { field })?;
        self.rest = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], FrameError> {
        let (head, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(FrameError::Truncated { field })?;
        self.rest = rest;
        Ok(*head)
    }

    pub(super) fn u8(&mut self, field: &'static str) -> Result<u8, FrameError> {
        self.array(field).map(u8::from_le_bytes)
    }

    pub(super) fn u16(&mut self, field: &'static str) -> Result<u16, FrameError> {
        self.array(field).map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self, field: &'static str) -> Result<u32, FrameError> {
        self.array(field).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, field: &'static str) -> Result<u64, FrameError> {
        self.array(field).map(u64::from_le_bytes)
    }

    pub(super) fn i64(&mut self, field: &'static str) -> Result<i64, FrameError> {
        self.array(field).map(i64::from_le_bytes)
    }

    pub(super) fn u128(&mut self, field: &'static str) -> Result<u128, FrameError> {
        self.array(field).map(u128::from_le_bytes)
    }

    /// A byte in which only the bits of `known` may be set.
    pub(super) fn bits(&mut self, field: &'static str, known: u8) -> Result<u8, FrameError> {
        let bits = self.u8(field)?;
        if bits & !known != 0 {
            return Err(FrameError::Unknown {
                field,
                value: bits.into(),
            });
        }
        Ok(bits)
    }

    /// A length and as many bytes.
    pub(super) fn bytes(&mut self, field: &'static str) -> Result<&'a [u8], FrameError> {
        let len = self.u32(field)? as usize;
        self.take(len, field)
    }

    /// Text of limited length.
    pub(super) fn text(&mut self, field: &'static str) -> Result<&'a str, FrameError> {
        let bytes = self.bytes(field)?;
        if bytes.len() > TEXT_BYTES_MAX {
            return Err(FrameError::Text { field });
        }
        std::str::from_utf8(bytes)
            .ok()
            .ok_or(FrameError::Text { field })
    }

    pub(super) fn u32s(&mut self, len: usize, field: &'static str) -> Result<Vec<u32>, FrameError> {
        let bytes = self.take(list_bytes(len, 4, field)?, field)?;
        Ok(bytes
            .as_chunks::<4>()
            .0
            .iter()
            .map(|chunk| u32::from_le_bytes(*chunk))
            .collect())
    }

    pub(super) fn i64s(&mut self, len: usize, field: &'static str) -> Result<Vec<i64>, FrameError> {
        let bytes = self.take(list_bytes(len, 8, field)?, field)?;
        Ok(bytes
            .as_chunks::<8>()
            .0
            .iter()
            .map(|chunk| i64::from_le_bytes(*chunk))
            .collect())
    }

    /// Checks that `len` items of at least `size` bytes each can follow.
    pub(super) fn at_least(
        &self,
        len: usize,
        size: usize,
        field: &'static str,
    ) -> Result<(), FrameError> {
        if list_bytes(len, size, field)? > self.rest.len() {
            return Err(FrameError::Truncated { field });
        }
        Ok(())
    }

    /// Checks that nothing is left.
    pub(super) fn finish(&self) -> Result<(), FrameError> {
        match self.rest.len() {
            0 => Ok(()),
            bytes => Err(FrameError::Trailing { bytes }),
        }
    }
}

fn list_bytes(len: usize, size: usize, field: &'static str) -> Result<usize, FrameError> {
    len.checked_mul(size).ok_or(FrameError::Truncated { field })
}

/// A length and the bytes.
///
/// # Panics
///
/// If there are 4 GiB of them.
pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&count(bytes.len()).to_le_bytes());
    out.extend_from_slice(bytes);
}

pub(super) fn put_u32s(out: &mut Vec<u8>, numbers: &[u32]) {
    out.reserve(4 * numbers.len());
    out.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
}

pub(super) fn put_i64s(out: &mut Vec<u8>, numbers: &[i64]) {
    out.reserve(8 * numbers.len());
    out.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
}

/// A count in a frame.
///
/// # Panics
///
/// If it does not fit; batches are limited long before.
pub(super) fn count(len: usize) -> u32 {
    u32::try_from(len).expect("batches are limited to far less than 4 GiB")
}
