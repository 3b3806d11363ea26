//! Configuration: Flink's keys, checked once, read through typed keys afterwards.
//!
//! A key that nobody knows is refused with the nearest known one; a Flink key that has no meaning
//! here (JVM memory and the like) is accepted and reported, so that existing files work.
//!
//! ```
//! use tidemill_types::config::{Config, keys};
//!
//! let mut config = Config::default();
//! config.set("taskmanager.numberOfTaskSlots", "2").unwrap();
//! assert_eq!(config.get(&keys::SLOTS), 2);
//! assert!(config.set("taskmanager.numberOfTaskSlot", "2").is_err());
//! ```

pub mod keys;
mod value;

use std::{collections::BTreeMap, marker::PhantomData};

pub use value::{
    CheckpointMode, CheckpointRetention, ConfigValue, MemorySize, RejectedRecords,
    RestartStrategyKind, format_duration, parse_duration,
};

/// A typed key.
#[derive(Debug)]
pub struct Key<T> {
    /// As users write it.
    pub name: &'static str,
    /// Used when nothing is set, in the same notation.
    pub default: &'static str,
    kind: PhantomData<fn() -> T>,
}

impl<T> Key<T> {
    const fn new(name: &'static str, default: &'static str) -> Self {
        Self {
            name,
            default,
            kind: PhantomData,
        }
    }
}

/// What documentation and checks need to know of a key, whatever its type.
#[derive(Debug, Clone, Copy)]
pub struct KeyInfo {
    /// As users write it.
    pub name: &'static str,
    /// Used when nothing is set.
    pub default: &'static str,
    /// What it means, with units.
    pub doc: &'static str,
    /// Whether a job may set it for itself.
    pub per_job: bool,
    check: fn(&str) -> Result<(), String>,
}

/// Why a setting is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Nobody knows the key.
    #[error("unknown configuration key \"{key}\"{}", nearest.as_ref().map(|n| format!("; did you mean \"{n}\"?")).unwrap_or_default())]
    UnknownKey {
        /// What was written.
        key: String,
        /// The known key most like it.
        nearest: Option<String>,
    },
    /// The value is not of the key's type.
    #[error("\"{value}\" is not a valid value of {key}: {reason}")]
    InvalidValue {
        /// The key.
        key: String,
        /// What was written.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The key belongs to the cluster.
    #[error("{key} is a setting of the cluster; a job cannot change it")]
    NotPerJob {
        /// The key.
        key: String,
    },
    /// The file is not in the expected form.
    #[error("line {line}: expected \"key: value\", found \"{text}\"")]
    Syntax {
        /// From 1.
        line: usize,
        /// What stands there, shortened.
        text: String,
    },
}

/// Whether a key does anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyStatus {
    /// It is read.
    Effective,
    /// It is one of Flink's that has no meaning here.
    WithoutMeaning,
}

/// Checked settings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    values: BTreeMap<String, String>,
}

impl Config {
    /// Reads a file of `key: value` lines; nested keys by indentation, as in Flink's `config.yaml`.
    ///
    /// Returns the settings and the keys that have no meaning here.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], of the first line that is wrong.
    pub fn parse(text: &str) -> Result<(Self, Vec<String>), ConfigError> {
        let mut config = Self::default();
        let mut ignored = Vec::new();
        let mut path: Vec<(usize, String)> = Vec::new();
        for (number, raw) in text.lines().enumerate() {
            let line = strip_comment(raw);
            if line.trim().is_empty() || line.trim() == "---" {
                continue;
            }
            let indent = line.len() - line.trim_start().len();
            let syntax = || ConfigError::Syntax {
                line: number + 1,
                text: raw.trim().chars().take(80).collect(),
            };
            let (key, value) = line.trim().split_once(':').ok_or_else(syntax)?;
            if key.is_empty() || key.starts_with('-') || key.contains(char::is_whitespace) {
                return Err(syntax());
            }
            path.retain(|(depth, _)| *depth < indent);
            let value = unquote(value.trim());
            if value.is_empty() {
                path.push((indent, key.to_owned()));
                continue;
            }
            let prefix: String = path.iter().map(|(_, part)| format!("{part}.")).collect();
            let key = format!("{prefix}{key}");
            if config.set(&key, value)? == KeyStatus::WithoutMeaning {
                ignored.push(key);
            }
        }
        Ok((config, ignored))
    }

    /// Sets a key.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] when the key is unknown or the value is not of its type.
    pub fn set(&mut self, key: &str, value: &str) -> Result<KeyStatus, ConfigError> {
        if let Some(info) = keys::find(key) {
            (info.check)(value).map_err(|reason| ConfigError::InvalidValue {
                key: key.to_owned(),
                value: value.chars().take(200).collect(),
                reason,
            })?;
            self.values.insert(info.name.to_owned(), value.to_owned());
            return Ok(KeyStatus::Effective);
        }
        if keys::is_open_ended(key) {
            self.values.insert(key.to_owned(), value.to_owned());
            return Ok(KeyStatus::Effective);
        }
        if keys::is_without_meaning(key) {
            return Ok(KeyStatus::WithoutMeaning);
        }
        Err(ConfigError::UnknownKey {
            key: key.chars().take(200).collect(),
            nearest: keys::nearest(key),
        })
    }

    /// Sets a key on behalf of a job, which may not touch the cluster's own.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], also when the key belongs to the cluster.
    pub fn set_for_job(&mut self, key: &str, value: &str) -> Result<KeyStatus, ConfigError> {
        match keys::find(key) {
            Some(info) if !info.per_job => Err(ConfigError::NotPerJob {
                key: key.to_owned(),
            }),
            None if keys::is_open_ended(key) => Err(ConfigError::NotPerJob {
                key: key.to_owned(),
            }),
            _ => self.set(key, value),
        }
    }

    /// The value of a key, or its default.
    ///
    /// # Panics
    ///
    /// Never for values that went through [`Config::set`]; a default that does not parse is a bug.
    #[must_use]
    pub fn get<T: ConfigValue>(&self, key: &Key<T>) -> T {
        let text = self
            .values
            .get(key.name)
            .map_or(key.default, String::as_str);
        T::parse(text).expect("values are checked when they are set")
    }

    /// The text of a key, if it is set.
    #[must_use]
    pub fn raw(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// All keys that are set.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }

    /// All settings with a prefix, as object stores want them.
    #[must_use]
    pub fn with_prefix(&self, prefix: &str) -> BTreeMap<String, String> {
        self.iter()
            .filter(|(key, _)| key.starts_with(prefix))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    }

    /// This configuration with another's settings on top.
    #[must_use]
    pub fn overlaid_with(&self, other: &Self) -> Self {
        let mut values = self.values.clone();
        values.extend(other.values.clone());
        Self { values }
    }
}

fn strip_comment(line: &str) -> &str {
    if line.trim_start().starts_with('#') {
        return "";
    }
    line.find(" #").map_or(line, |at| &line[..at]).trim_end()
}

fn unquote(value: &str) -> &str {
    for quote in ['"', '\''] {
        if value.len() >= 2 && value.starts_with(quote) && value.ends_with(quote) {
            return &value[1..value.len() - 1];
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn flat_and_nested_files_mean_the_same() {
        let flat =
            "taskmanager.numberOfTaskSlots: 4\nexecution.checkpointing.interval: 2 s # often\n";
        let nested = "taskmanager:\n  numberOfTaskSlots: 4\nexecution:\n  checkpointing:\n    interval: '2 s'\n";
        assert_eq!(Config::parse(flat).unwrap(), Config::parse(nested).unwrap());
        let (config, _) = Config::parse(flat).unwrap();
        assert_eq!(
            config.get(&keys::CHECKPOINT_INTERVAL),
            Duration::from_secs(2)
        );
    }

    #[test]
    fn an_unknown_key_names_the_nearest() {
        let error = Config::parse("execution.checkpointing.intervall: 1 s").unwrap_err();
        assert!(
            error
                .to_string()
                .contains("\"execution.checkpointing.interval\""),
            "{error}"
        );
    }

    #[test]
    fn jvm_keys_are_accepted_and_reported() {
        let (_, ignored) =
            Config::parse("jobmanager.memory.process.size: 1600m\nenv.java.opts: -X").unwrap();
        assert_eq!(ignored, ["jobmanager.memory.process.size", "env.java.opts"]);
    }

    #[test]
    fn values_are_checked_when_set() {
        let mut config = Config::default();
        assert!(config.set("taskmanager.numberOfTaskSlots", "many").is_err());
        assert!(
            config
                .set("execution.checkpointing.interval", "1 fortnight")
                .is_err()
        );
        assert!(config.set_for_job("rest.port", "1").is_err());
        config.set_for_job("parallelism.default", "3").unwrap();
    }

    #[test]
    fn every_default_parses() {
        for info in keys::ALL {
            assert_eq!((info.check)(info.default), Ok(()), "{}", info.name);
        }
    }
}
