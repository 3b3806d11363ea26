//! Timers in columns, as they cross the sandbox's boundary.

use serde::{Deserialize, Serialize};

use crate::{
    Column, ColumnError,
    batch::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX},
};

/// Which clock a timer goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TimeDomain {
    /// The watermark.
    EventTime,
    /// The worker's clock.
    ProcessingTime,
}

/// Timers of one operator, column by column. A timer is identified by all of its parts together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimerBatch {
    /// The clock they go by.
    pub domain: TimeDomain,
    /// The operator that owns them: its position in the vertex.
    pub operator: u32,
    /// Due times in milliseconds since the epoch.
    pub timestamps: Vec<i64>,
    /// The keys they belong to.
    pub keys: Column,
    /// What the operator wants back with the timer, such as the window. May be absent.
    pub namespaces: Column,
}

impl TimerBatch {
    /// No timers yet.
    #[must_use]
    pub fn new(domain: TimeDomain, operator: u32) -> Self {
        Self {
            domain,
            operator,
            timestamps: Vec::new(),
            keys: Column::default(),
            namespaces: Column::default(),
        }
    }

    /// The number of timers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.timestamps.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.timestamps.is_empty()
    }

    /// Appends a timer. An empty namespace is the same as none.
    pub fn push(&mut self, timestamp: i64, key: &[u8], namespace: &[u8]) {
        self.timestamps.push(timestamp);
        self.keys.push(Some(key));
        self.namespaces.push(Some(namespace));
    }

    /// The namespace of timer `index`: empty if it is null or the column is absent.
    #[must_use]
    pub fn namespace(&self, index: usize) -> &[u8] {
        self.namespaces.get(index).unwrap_or_default()
    }

    /// Checks timers that came from outside: a key for each of them, a namespace for each or for
    /// none.
    ///
    /// # Errors
    ///
    /// [`ColumnError`] names the broken invariant.
    pub fn validate(&self) -> Result<(), ColumnError> {
        let records = self.len();
        let bytes = 8 * records + self.keys.byte_size() + self.namespaces.byte_size();
        if records > BATCH_RECORDS_MAX || bytes > BATCH_BYTES_MAX {
            return Err(ColumnError::TooLarge { records, bytes });
        }
        self.keys.validate()?;
        self.namespaces.validate()?;
        if self.keys.len() != records {
            let entries = self.keys.len();
            return Err(ColumnError::Count {
                column: "keys",
                entries,
                records,
            });
        }
        if !self.namespaces.is_empty() && self.namespaces.len() != records {
            let entries = self.namespaces.len();
            return Err(ColumnError::Count {
                column: "namespaces",
                entries,
                records,
            });
        }
        if let Some(&position) = self.keys.nulls.first() {
            return Err(ColumnError::Position {
                list: "nulls of keys",
                position,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_timer_has_a_key() {
        let mut timers = TimerBatch::new(TimeDomain::EventTime, 0);
        timers.push(5, b"k", b"");
        timers.validate().unwrap();
        timers.timestamps.push(6);
        assert!(matches!(
            timers.validate(),
            Err(ColumnError::Count { column: "keys", .. })
        ));
        timers.keys.push(None);
        assert!(timers.validate().is_err());
    }
}
