//! The arguments a job was submitted with: `--key value`, `--key=value` and `--flag`.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Display;
use std::str::FromStr;

use crate::error::{Error, Result};

/// A job's arguments.
///
/// ```
/// # use tidemill::Args;
/// let args = Args::parse(&["--rate", "100", "--topic=clicks", "--verbose"])?;
/// assert_eq!(args.required("topic")?, "clicks");
/// assert_eq!(args.parsed::<u64>("rate")?, Some(100));
/// assert!(args.flag("verbose")?);
/// # Ok::<(), tidemill::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct Args {
    given: Vec<(String, Option<String>)>,
    /// What the job has asked for so far: what an error message can offer.
    asked: RefCell<BTreeSet<String>>,
}

impl Args {
    /// Reads arguments. A key's value is the next argument unless that is a key itself; when a key
    /// is given more than once, the last one counts.
    ///
    /// # Errors
    ///
    /// When an argument stands where a key must.
    pub fn parse<S: AsRef<str>>(args: &[S]) -> Result<Self> {
        let mut given = Vec::new();
        let mut rest = args.iter().map(AsRef::as_ref).peekable();
        while let Some(arg) = rest.next() {
            let Some(key) = key_of(arg) else {
                return Err(Error::new(format!(
                    "unexpected argument `{arg}`: arguments are given as `--key value`, `--key=value` or `--flag`"
                )));
            };
            if let Some((key, value)) = key.split_once('=') {
                given.push((key.to_owned(), Some(value.to_owned())));
                continue;
            }
            let value = rest.next_if(|next| key_of(next).is_none());
            given.push((key.to_owned(), value.map(str::to_owned)));
        }
        Ok(Self {
            given,
            asked: RefCell::default(),
        })
    }

    /// The value of `--key`, if it was given with one.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.find(key).and_then(Option::as_deref)
    }

    /// The value of `--key`, or `default`.
    #[must_use]
    pub fn get_or<'a>(&'a self, key: &str, default: &'a str) -> &'a str {
        self.get(key).unwrap_or(default)
    }

    /// The value of `--key`.
    ///
    /// # Errors
    ///
    /// When it was not given.
    pub fn required(&self, key: &str) -> Result<&str> {
        match self.find(key) {
            Some(Some(value)) => Ok(value),
            Some(None) => Err(Error::new(format!("argument --{key} needs a value"))),
            None => Err(Error::new(format!(
                "missing required argument --{key}; this job takes: {}",
                self.asked_list()
            ))),
        }
    }

    /// Whether `--key` was given, alone or with the value `true`.
    ///
    /// # Errors
    ///
    /// When it was given with another value than `true` or `false`.
    pub fn flag(&self, key: &str) -> Result<bool> {
        match self.find(key) {
            None => Ok(false),
            Some(None) => Ok(true),
            Some(Some(value)) => value.parse().map_err(|_error| {
                Error::new(format!(
                    "argument --{key} is a flag: `{value}` is neither true nor false"
                ))
            }),
        }
    }

    /// The value of `--key` as a number or another type that can be read from text.
    ///
    /// # Errors
    ///
    /// When it was given and cannot be read.
    pub fn parsed<T>(&self, key: &str) -> Result<Option<T>>
    where
        T: FromStr,
        T::Err: Display,
    {
        let Some(given) = self.find(key) else {
            return Ok(None);
        };
        let Some(value) = given else {
            return Err(Error::new(format!("argument --{key} needs a value")));
        };
        let parsed = value.parse().map_err(|error| {
            Error::new(format!("argument --{key} cannot be `{value}`: {error}"))
        })?;
        Ok(Some(parsed))
    }

    /// Arguments that were given and that the job never asked for.
    pub(crate) fn unused(&self) -> Vec<&str> {
        let asked = self.asked.borrow();
        self.given
            .iter()
            .map(|(key, _)| key.as_str())
            .filter(|key| !asked.contains(*key))
            .collect()
    }

    pub(crate) fn asked_list(&self) -> String {
        let asked = self.asked.borrow();
        asked
            .iter()
            .map(|key| format!("--{key}"))
            .collect::<Vec<_>>()
            .join(", ")
    }

    fn find(&self, key: &str) -> Option<&Option<String>> {
        self.asked.borrow_mut().insert(key.to_owned());
        self.given
            .iter()
            .rev()
            .find(|(given, _)| given == key)
            .map(|(_, value)| value)
    }
}

/// The key that an argument names, if it names one: `--key`, or `-key` when no number follows.
fn key_of(arg: &str) -> Option<&str> {
    let key = match arg.strip_prefix("--") {
        Some(key) => key,
        None => arg
            .strip_prefix('-')
            .filter(|key| key.starts_with(|c: char| c.is_alphabetic()))?,
    };
    (!key.is_empty() && !key.starts_with('=')).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_before_another_key_has_no_value() {
        let args = Args::parse(&["--checkpointing", "--event-time", "--n", "-5"]).unwrap();
        assert!(args.flag("checkpointing").unwrap());
        assert!(args.flag("event-time").unwrap());
        assert_eq!(args.parsed::<i64>("n").unwrap(), Some(-5));
    }

    #[test]
    fn a_missing_argument_names_what_the_job_takes() {
        let args = Args::parse::<&str>(&[]).unwrap();
        assert_eq!(args.get("rate"), None);
        let error = args.required("input-topic").unwrap_err().to_string();
        assert_eq!(
            error,
            "missing required argument --input-topic; this job takes: --input-topic, --rate"
        );
    }

    #[test]
    fn a_number_that_is_none_names_argument_and_value() {
        let args = Args::parse(&["--n=ten"]).unwrap();
        let error = args.parsed::<u32>("n").unwrap_err().to_string();
        assert_eq!(
            error,
            "argument --n cannot be `ten`: invalid digit found in string"
        );
    }

    #[test]
    fn arguments_nobody_asked_for_are_known() {
        let args = Args::parse(&["--topic", "x", "--tpoic", "y"]).unwrap();
        assert_eq!(args.get("topic"), Some("x"));
        assert_eq!(args.unused(), ["tpoic"]);
    }
}
