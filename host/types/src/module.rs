//! What an uploaded module is: its bytes, known by their hash.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::ids::InvalidId;

/// The SHA-256 of a module's bytes, as they were uploaded.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModuleHash([u8; 32]);

impl ModuleHash {
    /// The hash with these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes of the hash.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for ModuleHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ModuleHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ModuleHash {
    type Err = InvalidId;

    fn from_str(s: &str) -> Result<Self, InvalidId> {
        let invalid = || InvalidId::new("module hash", s, "64 hexadecimal digits");
        if s.len() != 64 || !s.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(invalid());
        }
        let mut bytes = [0; 32];
        for (byte, digits) in bytes.iter_mut().zip(s.as_bytes().chunks(2)) {
            let digits = str::from_utf8(digits).map_err(|_not_text| invalid())?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_not_hex| invalid())?;
        }
        Ok(Self(bytes))
    }
}

impl Serialize for ModuleHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ModuleHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_survive_text() {
        let hash = ModuleHash::from_bytes(std::array::from_fn(|i| u8::try_from(i * 7).unwrap()));
        assert_eq!(hash.to_string().parse::<ModuleHash>().unwrap(), hash);
        assert!("../../../etc".parse::<ModuleHash>().is_err());
        assert!("+1".repeat(32).parse::<ModuleHash>().is_err());
    }
}
