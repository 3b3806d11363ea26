//! Operations that take a while: a request starts one and gets an id, later requests ask how it
//! goes. Results are kept for `rest.async.store-duration`.

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;
use serde_json::Value;
use tidemill_types::JobId;

use crate::clock::{Clock, millis};

/// The most operations that are remembered; the oldest ended ones go first.
const OPERATIONS_MAX: usize = 10_000;

/// How an operation ended: what the API shows as `operation`, or why it failed.
pub(crate) type Outcome = Result<Value, String>;

/// Names an operation: whose it is, and the id that the request was given or brought along.
pub(crate) type OperationKey = (JobId, u128);

#[derive(Debug)]
struct Operation {
    /// None while it lasts.
    ended: Option<(i64, Outcome)>,
}

/// All operations.
#[derive(Debug)]
pub(crate) struct Operations {
    clock: Clock,
    keep_ms: i64,
    entries: Mutex<HashMap<OperationKey, Operation>>,
}

/// There are too many operations.
#[derive(Debug, thiserror::Error)]
#[error("too many operations are under way; try again later")]
pub(crate) struct Full;

impl Operations {
    pub(crate) fn new(clock: Clock, keep: Duration) -> Self {
        Self {
            clock,
            keep_ms: millis(keep),
            entries: Mutex::default(),
        }
    }

    /// Notes that an operation has begun; `false` if there is one of that name already, since a
    /// client repeats a request whose answer it has not seen.
    pub(crate) fn begin(&self, key: OperationKey) -> Result<bool, Full> {
        let mut entries = self.entries.lock();
        let oldest = self.clock.now_ms().saturating_sub(self.keep_ms);
        entries.retain(|_, operation| operation.ended.as_ref().is_none_or(|(at, _)| *at >= oldest));
        if entries.contains_key(&key) {
            return Ok(false);
        }
        if entries.len() >= OPERATIONS_MAX {
            return Err(Full);
        }
        entries.insert(key, Operation { ended: None });
        Ok(true)
    }

    /// Notes how an operation ended.
    pub(crate) fn end(&self, key: OperationKey, outcome: Outcome) {
        if let Some(operation) = self.entries.lock().get_mut(&key) {
            operation.ended = Some((self.clock.now_ms(), outcome));
        }
    }

    /// How an operation ended, or `None` in it while it lasts; nothing if there is none.
    pub(crate) fn get(&self, key: OperationKey) -> Option<Option<Outcome>> {
        let entries = self.entries.lock();
        entries
            .get(&key)
            .map(|operation| operation.ended.as_ref().map(|(_, outcome)| outcome.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_request_begins_nothing_new() {
        let operations = Operations::new(Clock::system(), Duration::from_secs(60));
        let key = (JobId::from_u128(1), 7);
        assert!(operations.begin(key).unwrap());
        assert!(!operations.begin(key).unwrap());
        assert_eq!(operations.get(key), Some(None));
        operations.end(key, Ok(Value::from(3)));
        assert_eq!(operations.get(key), Some(Some(Ok(Value::from(3)))));
        assert_eq!(operations.get((JobId::from_u128(2), 7)), None);
    }
}
