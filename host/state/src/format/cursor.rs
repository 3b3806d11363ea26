//! Bytes that are read from the front, none of them trusted.

use crate::StateError;

pub(super) fn corrupt(what: impl Into<String>) -> StateError {
    StateError::Corrupt(what.into())
}

/// Bytes that are read from the front.
pub(super) struct Cursor<'a> {
    pub(super) rest: &'a [u8],
    what: &'static str,
}

impl<'a> Cursor<'a> {
    pub(super) const fn new(rest: &'a [u8], what: &'static str) -> Self {
        Self { rest, what }
    }

    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], StateError> {
        let (taken, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or_else(|| corrupt(format!("{} ends in the middle", self.what)))?;
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], StateError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(super) fn u8(&mut self) -> Result<u8, StateError> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, StateError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, StateError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, StateError> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn i64(&mut self) -> Result<i64, StateError> {
        self.array().map(i64::from_le_bytes)
    }

    pub(super) fn short(&mut self) -> Result<&'a [u8], StateError> {
        let len = self.u16()? as usize;
        self.take(len)
    }

    pub(super) fn long(&mut self) -> Result<&'a [u8], StateError> {
        let len = self.u32()? as usize;
        self.take(len)
    }

    pub(super) fn text(&mut self) -> Result<String, StateError> {
        let bytes = self.long()?;
        let text = std::str::from_utf8(bytes).ok();
        text.map(str::to_owned)
            .ok_or_else(|| corrupt("a name is not UTF-8"))
    }

    pub(super) fn finish(&self) -> Result<(), StateError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(corrupt(format!(
                "{} has {} bytes too many",
                self.what,
                self.rest.len()
            )))
        }
    }
}
