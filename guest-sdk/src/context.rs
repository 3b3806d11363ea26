//! What the operators of a chain share while one call of the host runs: the record at hand, the
//! ports, the counts, what was rejected, and timers.
//!
//! # Invariants
//!
//! 1. Operators are called one at a time, down the chain; `current` names the one that runs.
//! 2. After a failure the rest of the call is skipped as soon as its root notices.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::batch::{NONE, Port};
use crate::bindings::exports::tidemill::job::task::{OpenRequest, Progress, Rejected};
use crate::bindings::tidemill::job::types::Failure;
use crate::timers::Timers;

/// Stands for "no operator" and "no record".
pub(crate) const NOBODY: u32 = u32::MAX;

/// At most so many rejected records are described one by one in a call; a batch that is bad from
/// end to end needs no thousand messages, but the host must know of each record.
const MESSAGE_BYTES_MAX: usize = 512;

/// The operator that runs now, where the panic hook finds it.
static CURRENT: AtomicU32 = AtomicU32::new(NOBODY);

#[cfg(target_family = "wasm")]
pub(crate) fn current_operator() -> Option<u32> {
    let current = CURRENT.load(Ordering::Relaxed);
    (current != NOBODY).then_some(current)
}

/// Who this task is, and what is allowed to it.
#[derive(Debug, Clone)]
pub(crate) struct Opened {
    pub(crate) subtask: u32,
    pub(crate) parallelism: u32,
    pub(crate) cache_bytes: usize,
    pub(crate) restored: bool,
}

impl From<&OpenRequest> for Opened {
    fn from(request: &OpenRequest) -> Self {
        Self {
            subtask: request.subtask,
            parallelism: request.parallelism,
            cache_bytes: usize::try_from(request.cache_bytes).unwrap_or(usize::MAX),
            restored: request.restored,
        }
    }
}

/// Shared by the operators of a chain during a call.
#[derive(Debug)]
pub struct Context {
    pub(crate) opened: Opened,
    pub(crate) ports: Vec<Port>,
    /// The position in the batch of the record that is being handled.
    pub(crate) record: u32,
    pub(crate) split: u32,
    /// The watermark of the split at hand, if this chain makes watermarks.
    pub(crate) split_watermark: i64,
    /// The watermark of all inputs together.
    pub(crate) watermark: i64,
    pub(crate) timers: Timers,
    counts: Vec<u64>,
    rejected: Vec<Rejected>,
    failure: Option<Failure>,
}

impl Context {
    pub(crate) fn new(opened: Opened, ports: u32, operators: usize) -> Self {
        Self {
            opened,
            ports: (0..ports).map(Port::new).collect(),
            record: NOBODY,
            split: 0,
            split_watermark: NONE,
            watermark: NONE,
            timers: Timers::default(),
            counts: vec![0; operators * 2],
            rejected: Vec::new(),
            failure: None,
        }
    }

    /// Notes which operator runs, for the message of a panic.
    #[inline]
    pub(crate) fn enter(&mut self, operator: u32) {
        CURRENT.store(operator, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn port(&mut self, port: u32) -> &mut Port {
        &mut self.ports[port as usize]
    }

    /// Refuses the record at hand; where there is none (in a timer, say), the task fails.
    #[cold]
    pub(crate) fn reject(&mut self, operator: u32, message: String) {
        if self.record == NOBODY {
            self.fail(operator, message);
            return;
        }
        let mut message = message;
        if message.len() > MESSAGE_BYTES_MAX {
            let end = (0..=MESSAGE_BYTES_MAX)
                .rev()
                .find(|i| message.is_char_boundary(*i));
            message.truncate(end.unwrap_or(0));
            message.push('…');
        }
        let known = self
            .rejected
            .last()
            .is_some_and(|last| last.record == self.record);
        if !known {
            self.rejected.push(Rejected {
                record: self.record,
                operator,
                message,
            });
        }
    }

    /// Fails the task. The first failure is the one that counts.
    #[cold]
    pub(crate) fn fail(&mut self, operator: u32, message: String) {
        if self.failure.is_none() {
            self.failure = Some(Failure {
                operator: Some(operator),
                message,
            });
        }
    }

    #[inline]
    pub(crate) fn failed(&self) -> bool {
        self.failure.is_some()
    }

    /// Adds to an operator's counts for this call.
    pub(crate) fn count(&mut self, operator: u32, records_in: u64, records_out: u64) {
        let at = operator as usize * 2;
        self.counts[at] += records_in;
        self.counts[at + 1] += records_out;
    }

    /// Ends a call: hands timers to the host, sends out what is left, and sums up.
    pub(crate) fn finish(&mut self) -> Result<Progress, Failure> {
        CURRENT.store(NOBODY, Ordering::Relaxed);
        self.record = NOBODY;
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        self.timers.hand_over();
        for port in &mut self.ports {
            port.emit();
        }
        let none = vec![0; self.counts.len()];
        Ok(Progress {
            watermark: self.split_watermark,
            rejected: std::mem::take(&mut self.rejected),
            counts: std::mem::replace(&mut self.counts, none),
        })
    }
}
