//! Where records come from and go to. A connector here is only its name and its options, in the
//! graph; what does the work runs in the host.

pub mod blackhole;
pub mod datagen;
pub mod file;
pub mod kafka;
pub mod print;

use std::fmt::Display;

use crate::bindings::exports::tidemill::job::planner::Connector as Planned;

/// A connector with its options.
#[derive(Debug, Clone)]
pub struct Connector {
    kind: &'static str,
    options: Vec<(String, String)>,
}

impl Connector {
    pub(crate) fn new(kind: &'static str) -> Self {
        Self {
            kind,
            options: Vec::new(),
        }
    }

    /// Sets an option; what was set before under the same key is replaced.
    pub(crate) fn set(&mut self, key: &str, value: impl Display) {
        let value = value.to_string();
        match self.options.iter_mut().find(|(known, _)| known == key) {
            Some((_, old)) => *old = value,
            None => self.options.push((key.to_owned(), value)),
        }
    }

    /// The connector for people: its kind and what it is about.
    pub(crate) fn describe(&self) -> String {
        let about = ["topics", "topic-pattern", "topic", "path", "format"];
        let found = self
            .options
            .iter()
            .find(|(key, _)| about.contains(&key.as_str()));
        match found {
            Some((_, value)) => format!("{}: {value}", self.kind),
            None => self.kind.to_owned(),
        }
    }

    pub(crate) fn into_inner(self) -> Planned {
        Planned {
            kind: self.kind.to_owned(),
            options: self.options,
        }
    }
}

/// Defines a connector's builder type.
macro_rules! builder {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone)]
        #[must_use]
        pub struct $name(crate::connectors::Connector);

        impl $name {
            /// Sets an option by its name, for those that have no function here.
            pub fn option(mut self, key: &str, value: impl std::fmt::Display) -> Self {
                self.0.set(key, value);
                self
            }
        }

        impl From<$name> for crate::connectors::Connector {
            fn from(builder: $name) -> Self {
                builder.0
            }
        }
    };
}

pub(crate) use builder;

/// A duration as an option's value.
pub(crate) fn duration(duration: std::time::Duration) -> String {
    format!("{} ms", duration.as_millis())
}
