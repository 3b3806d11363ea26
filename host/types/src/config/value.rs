//! Types of configuration values and their notation, which is Flink's.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A type that a key can have.
pub trait ConfigValue: Sized {
    /// Reads the notation.
    ///
    /// # Errors
    ///
    /// What was expected instead.
    fn parse(text: &str) -> Result<Self, String>;
}

macro_rules! numbers {
    ($($t:ty),*) => {$(
        impl ConfigValue for $t {
            fn parse(text: &str) -> Result<Self, String> {
                text.trim().parse().map_err(|_not_a_number| {
                    format!("expected a whole number from {} to {}", <$t>::MIN, <$t>::MAX)
                })
            }
        }
    )*};
}
numbers!(u16, u32, u64, usize, i32);

impl ConfigValue for bool {
    fn parse(text: &str) -> Result<Self, String> {
        match text.trim().to_ascii_lowercase().as_str() {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err("expected true or false".into()),
        }
    }
}

impl ConfigValue for f64 {
    fn parse(text: &str) -> Result<Self, String> {
        text.trim()
            .parse()
            .map_err(|_not_a_number| "expected a number".into())
    }
}

impl ConfigValue for String {
    fn parse(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }
}

/// Empty means unset.
impl<T: ConfigValue> ConfigValue for Option<T> {
    fn parse(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            Ok(None)
        } else {
            T::parse(text).map(Some)
        }
    }
}

impl ConfigValue for Duration {
    fn parse(text: &str) -> Result<Self, String> {
        parse_duration(text)
    }
}

/// Reads a duration: `500`, `500 ms`, `30s`, `5 min`, `1 h`, `2 d`. Without a unit: milliseconds.
///
/// # Errors
///
/// What was expected instead.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let expected =
        || "expected a duration such as \"500 ms\", \"30 s\", \"5 min\" or \"1 h\"".to_owned();
    let (number, unit) = split_unit(text);
    let number: u64 = number.parse().map_err(|_not_a_number| expected())?;
    let nanos: u64 = match unit.to_ascii_lowercase().as_str() {
        "ns" | "nano" | "nanosecond" | "nanoseconds" => 1,
        "us" | "µs" | "micro" | "microsecond" | "microseconds" => 1_000,
        "" | "ms" | "milli" | "millis" | "millisecond" | "milliseconds" => 1_000_000,
        "s" | "sec" | "second" | "seconds" => 1_000_000_000,
        "m" | "min" | "minute" | "minutes" => 60_000_000_000,
        "h" | "hour" | "hours" => 3_600_000_000_000,
        "d" | "day" | "days" => 86_400_000_000_000,
        _ => return Err(expected()),
    };
    let total = u128::from(number) * u128::from(nanos);
    u64::try_from(total)
        .map(Duration::from_nanos)
        .map_err(|_not_a_number| "the duration is longer than 500 years".into())
}

/// Writes a duration the way [`parse_duration`] reads it, in milliseconds.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    format!("{} ms", duration.as_millis())
}

/// A number of bytes: `64 kb`, `128mb`, `1 g`. Without a unit: bytes. Units are powers of 1024.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MemorySize(pub u64);

impl ConfigValue for MemorySize {
    fn parse(text: &str) -> Result<Self, String> {
        let expected = || "expected a size such as \"64 kb\", \"128 mb\" or \"1 gb\"".to_owned();
        let (number, unit) = split_unit(text);
        let number: u64 = number.parse().map_err(|_not_a_number| expected())?;
        let shift = match unit.to_ascii_lowercase().as_str() {
            "" | "b" | "bytes" => 0,
            "k" | "kb" | "kib" | "kibibytes" => 10,
            "m" | "mb" | "mib" | "mebibytes" => 20,
            "g" | "gb" | "gib" | "gibibytes" => 30,
            "t" | "tb" | "tib" | "tebibytes" => 40,
            _ => return Err(expected()),
        };
        number
            .checked_mul(1 << shift)
            .map(Self)
            .ok_or_else(|| "the size is out of range".into())
    }
}

fn split_unit(text: &str) -> (&str, &str) {
    let text = text.trim();
    let at = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    (&text[..at], text[at..].trim())
}

macro_rules! choices {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $first:literal $(| $other:literal)*,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        /// Upper and lower case, `-` and `_` mean the same.
        impl ConfigValue for $name {
            fn parse(text: &str) -> Result<Self, String> {
                match text.trim().to_ascii_lowercase().replace('_', "-").as_str() {
                    $($first $(| $other)* => Ok(Self::$variant),)*
                    _ => Err(concat!("expected one of:" $(, " ", $first)*).to_owned()),
                }
            }
        }
    };
}

choices! {
    /// What to do when a task fails.
    RestartStrategyKind {
        /// The job fails.
        None = "none" | "off" | "disable",
        /// A number of times, with a fixed delay.
        FixedDelay = "fixed-delay" | "fixeddelay",
        /// Any number of times, with a delay that grows.
        ExponentialDelay = "exponential-delay" | "exponentialdelay",
        /// As long as failures are rare enough.
        FailureRate = "failure-rate" | "failurerate",
    }
}

choices! {
    /// What a checkpoint promises.
    CheckpointMode {
        /// Barriers are aligned.
        ExactlyOnce = "exactly-once",
        /// Barriers are not waited for: records may be counted again after a restart.
        AtLeastOnce = "at-least-once",
    }
}

choices! {
    /// What happens to checkpoints when a job is cancelled.
    CheckpointRetention {
        /// They stay.
        RetainOnCancellation = "retain-on-cancellation",
        /// They are deleted; those of a job that failed stay.
        DeleteOnCancellation = "delete-on-cancellation",
        /// They are deleted however the job ends.
        NoExternalizedCheckpoints = "no-externalized-checkpoints",
    }
}

choices! {
    /// What happens to a record that an operator rejects.
    RejectedRecords {
        /// The job fails.
        Fail = "fail",
        /// It is left out and counted.
        Skip = "skip",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flinks_notations_are_read() {
        assert_eq!(parse_duration("1000"), Ok(Duration::from_secs(1)));
        assert_eq!(parse_duration("5 min"), Ok(Duration::from_secs(300)));
        assert_eq!(parse_duration("10s"), Ok(Duration::from_secs(10)));
        assert!(parse_duration("-1 s").is_err());
        assert!(parse_duration("99999999999999 d").is_err());
        assert_eq!(MemorySize::parse("64kb"), Ok(MemorySize(65_536)));
        assert_eq!(MemorySize::parse("1 g"), Ok(MemorySize(1 << 30)));
        assert!(MemorySize::parse("1 parsec").is_err());
    }
}
