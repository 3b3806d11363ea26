//! Reading a connector's options: each is asked for by name, what nobody asked for is an error.

use std::{collections::BTreeMap, time::Duration};

use tidemill_types::config::{ConfigValue as _, MemorySize, parse_duration};

use crate::ConnectorError;

/// The options of one connector while they are read.
///
/// Getters remember the names they were asked for; [`OptionReader::finish`] refuses what is left.
#[derive(Debug)]
pub struct OptionReader<'a> {
    connector: &'static str,
    options: &'a BTreeMap<String, String>,
    known: Vec<&'static str>,
    prefixes: Vec<&'static str>,
}

impl<'a> OptionReader<'a> {
    /// Options of `connector`, named as in `kafka source`.
    #[must_use]
    pub fn new(connector: &'static str, options: &'a BTreeMap<String, String>) -> Self {
        Self {
            connector,
            options,
            known: Vec::new(),
            prefixes: Vec::new(),
        }
    }

    /// The text of an option.
    pub fn text(&mut self, name: &'static str) -> Option<&'a str> {
        self.known.push(name);
        self.options.get(name).map(String::as_str)
    }

    /// The text of an option that must be there and not be empty.
    ///
    /// # Errors
    ///
    /// [`ConnectorError::Invalid`] if it is not.
    pub fn required(&mut self, name: &'static str) -> Result<&'a str, ConnectorError> {
        match self.text(name) {
            Some(value) if !value.is_empty() => Ok(value),
            _ => Err(self.invalid(&format!("the option `{name}` is missing; it must be set"))),
        }
    }

    /// An option read by `parse`, which returns `None` for what is not `expected`.
    ///
    /// # Errors
    ///
    /// [`ConnectorError::Invalid`] names the option, its value and what was expected.
    pub fn parsed<T>(
        &mut self,
        name: &'static str,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, ConnectorError> {
        let Some(value) = self.text(name) else {
            return Ok(None);
        };
        match parse(value.trim()) {
            Some(parsed) => Ok(Some(parsed)),
            None => Err(self.invalid(&format!("`{name}` is \"{value}\", not {expected}"))),
        }
    }

    /// A whole number.
    ///
    /// # Errors
    ///
    /// As [`OptionReader::parsed`].
    pub fn number(&mut self, name: &'static str) -> Result<Option<u64>, ConnectorError> {
        self.parsed(name, "a whole number", |v| v.parse().ok())
    }

    /// A whole number above zero.
    ///
    /// # Errors
    ///
    /// As [`OptionReader::parsed`].
    pub fn positive(&mut self, name: &'static str) -> Result<Option<u64>, ConnectorError> {
        self.parsed(name, "a whole number above 0", |v| {
            v.parse().ok().filter(|n| *n > 0)
        })
    }

    /// `true` or `false`.
    ///
    /// # Errors
    ///
    /// As [`OptionReader::parsed`].
    pub fn boolean(&mut self, name: &'static str) -> Result<Option<bool>, ConnectorError> {
        self.parsed(name, "true or false", |v| {
            v.to_ascii_lowercase().parse().ok()
        })
    }

    /// A duration such as `5 min` or `250 ms`; a plain number counts milliseconds.
    ///
    /// # Errors
    ///
    /// As [`OptionReader::parsed`].
    pub fn duration(&mut self, name: &'static str) -> Result<Option<Duration>, ConnectorError> {
        self.parsed(
            name,
            "a duration such as \"30 s\", \"5 min\" or \"100 ms\"",
            |v| parse_duration(v).ok(),
        )
    }

    /// A size such as `128 mb`; a plain number counts bytes.
    ///
    /// # Errors
    ///
    /// As [`OptionReader::parsed`].
    pub fn bytes(&mut self, name: &'static str) -> Result<Option<u64>, ConnectorError> {
        self.parsed(name, "a size such as \"128 mb\" or \"64 kb\"", |v| {
            MemorySize::parse(v).ok().map(|size| size.0)
        })
    }

    /// One of some words.
    ///
    /// # Errors
    ///
    /// As [`OptionReader::parsed`].
    pub fn choice<T: Copy>(
        &mut self,
        name: &'static str,
        choices: &[(&str, T)],
    ) -> Result<Option<T>, ConnectorError> {
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        self.parsed(name, &format!("one of {}", words.join(", ")), |v| {
            choices
                .iter()
                .find(|(word, _)| *word == v)
                .map(|(_, choice)| *choice)
        })
    }

    /// All options whose names begin with `prefix`, without it.
    pub fn with_prefix(&mut self, prefix: &'static str) -> BTreeMap<String, String> {
        self.prefixes.push(prefix);
        self.options
            .iter()
            .filter_map(|(name, value)| {
                Some((name.strip_prefix(prefix)?.to_owned(), value.clone()))
            })
            .collect()
    }

    /// An error about these options.
    #[must_use]
    pub fn invalid(&self, text: &str) -> ConnectorError {
        ConnectorError::invalid(format!("{}: {text}", self.connector))
    }

    /// Refuses options that were not asked for.
    ///
    /// # Errors
    ///
    /// [`ConnectorError::Invalid`] names the first and the nearest one that exists.
    pub fn finish(self) -> Result<(), ConnectorError> {
        let unknown = self.options.keys().find(|name| {
            !self.known.contains(&name.as_str())
                && !self.prefixes.iter().any(|prefix| name.starts_with(prefix))
        });
        let Some(name) = unknown else { return Ok(()) };
        let nearest = self
            .known
            .iter()
            .chain(&self.prefixes)
            .max_by(|a, b| strsim::jaro_winkler(a, name).total_cmp(&strsim::jaro_winkler(b, name)))
            .map_or_else(String::new, |nearest| {
                format!("; did you mean `{nearest}`?")
            });
        Err(self.invalid(&format!("there is no option `{name}`{nearest}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    #[test]
    fn an_unknown_option_is_refused_with_the_nearest_known_one() {
        let given = options(&[("topcs", "a"), ("properties.x", "1")]);
        let mut reader = OptionReader::new("kafka source", &given);
        assert_eq!(reader.text("topics"), None);
        assert_eq!(reader.with_prefix("properties.").len(), 1);
        let text = reader.finish().unwrap_err().to_string();
        assert_eq!(
            text,
            "kafka source: there is no option `topcs`; did you mean `topics`?"
        );
    }

    #[test]
    fn durations_and_sizes_have_units() {
        let given = options(&[
            ("a", "5 min"),
            ("b", "250"),
            ("c", "5 parsecs"),
            ("d", "2 mb"),
        ]);
        let mut reader = OptionReader::new("file sink", &given);
        assert_eq!(
            reader.duration("a").unwrap(),
            Some(Duration::from_secs(300))
        );
        assert_eq!(
            reader.duration("b").unwrap(),
            Some(Duration::from_millis(250))
        );
        assert!(reader.duration("c").is_err());
        assert_eq!(reader.bytes("d").unwrap(), Some(2 << 20));
    }

    #[test]
    fn a_bad_value_is_named_with_what_was_expected() {
        let given = options(&[("rate", "fast")]);
        let text = OptionReader::new("datagen", &given)
            .positive("rate")
            .unwrap_err()
            .to_string();
        assert_eq!(
            text,
            "datagen: `rate` is \"fast\", not a whole number above 0"
        );
    }
}
