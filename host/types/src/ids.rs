//! Newtypes for everything that is named or numbered.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// An id was not written as it must be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} \"{value}\" is not {expected}")]
pub struct InvalidId {
    /// Which kind of id.
    pub what: &'static str,
    /// What was given, shortened.
    pub value: String,
    /// What would have been right.
    pub expected: &'static str,
}

impl InvalidId {
    pub(crate) fn new(what: &'static str, value: &str, expected: &'static str) -> Self {
        Self {
            what,
            value: value.chars().take(64).collect(),
            expected,
        }
    }
}

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u128);

        impl $name {
            /// The id with these bits.
            #[must_use]
            pub const fn from_u128(bits: u128) -> Self {
                Self(bits)
            }

            /// A new random id.
            #[must_use]
            pub fn random() -> Self {
                Self(uuid::Uuid::new_v4().as_u128())
            }

            /// The id that always belongs to `name`.
            #[must_use]
            pub fn from_name(name: &str) -> Self {
                Self(xxhash_rust::xxh3::xxh3_128(name.as_bytes()))
            }

            /// The bits of the id.
            #[must_use]
            pub const fn as_u128(self) -> u128 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(s: &str) -> Result<Self, InvalidId> {
                let invalid = || InvalidId::new($what, s, "32 hexadecimal digits");
                if s.len() != 32 || !s.bytes().all(|b| b.is_ascii_hexdigit()) {
                    return Err(invalid());
                }
                u128::from_str_radix(s, 16).map(Self).map_err(|_| invalid())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    };
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($repr:ty)) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $repr);

        impl $name {
            /// The one after this.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

macro_rules! text {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    };
}

hex_id!(
    /// A job, from submission to its last state.
    JobId,
    "job id"
);
hex_id!(
    /// A vertex of a job graph; derived from its uid, so that it survives upgrades.
    VertexId,
    "vertex id"
);

number!(
    /// How many times a job has been deployed, from 0.
    Attempt(u32)
);
number!(
    /// Checkpoints and savepoints of a job, in one sequence from 1.
    CheckpointId(u64)
);
number!(
    /// The term of a coordinator. Messages of an older one are refused.
    CoordinatorEpoch(u64)
);
number!(
    /// A parallel instance of a task, from 0.
    SubtaskIndex(u32)
);

text!(
    /// Who owns something.
    TenantId
);
text!(
    /// An uploaded module: `<uuid>_<file name>`, as Flink names uploaded jars.
    ModuleId
);
text!(
    /// A worker process: `host:port-xxxxxx`, new at every start.
    WorkerId
);

impl TenantId {
    /// The tenant of a cluster without configured tenants.
    #[must_use]
    pub fn default_tenant() -> Self {
        Self("default".to_owned())
    }
}

fn is_file_name(s: &str) -> bool {
    !s.is_empty()
        && s.len() <= 255
        && !s.starts_with('.')
        && s.chars()
            .all(|c| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '+' | ' '))
}

impl FromStr for TenantId {
    type Err = InvalidId;

    fn from_str(s: &str) -> Result<Self, InvalidId> {
        let fine = !s.is_empty()
            && s.len() <= 63
            && s.bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if fine {
            Ok(Self(s.to_owned()))
        } else {
            Err(InvalidId::new("tenant", s, "1 to 63 of a-z, 0-9 and -"))
        }
    }
}

impl FromStr for ModuleId {
    type Err = InvalidId;

    fn from_str(s: &str) -> Result<Self, InvalidId> {
        if is_file_name(s) {
            Ok(Self(s.to_owned()))
        } else {
            Err(InvalidId::new(
                "module id",
                s,
                "the id of an uploaded module",
            ))
        }
    }
}

impl FromStr for WorkerId {
    type Err = InvalidId;

    fn from_str(s: &str) -> Result<Self, InvalidId> {
        let fine =
            !s.is_empty() && s.len() <= 255 && s.chars().all(|c| c.is_ascii_graphic() && c != '/');
        if fine {
            Ok(Self(s.to_owned()))
        } else {
            Err(InvalidId::new(
                "worker id",
                s,
                "1 to 255 printable characters without /",
            ))
        }
    }
}

/// One subtask of one attempt of one job: what a worker runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TaskId {
    /// The job.
    pub job: JobId,
    /// The attempt of the job.
    pub attempt: Attempt,
    /// Position of the vertex in the job graph.
    pub vertex: u32,
    /// The parallel instance.
    pub subtask: SubtaskIndex,
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}/{}#{}@{}",
            self.job, self.vertex, self.subtask, self.attempt
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_ids_survive_text() {
        let id = JobId::random();
        assert_eq!(id.to_string().parse::<JobId>().unwrap(), id);
    }

    #[test]
    fn malformed_ids_are_refused() {
        assert!("xyz".parse::<JobId>().is_err());
        assert!("+0000000000000000000000000000000".parse::<JobId>().is_err());
        assert!("../../etc/passwd".parse::<ModuleId>().is_err());
        assert!(".hidden".parse::<ModuleId>().is_err());
        assert!("Default".parse::<TenantId>().is_err());
    }
}
