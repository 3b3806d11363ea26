//! Ending a call that takes too long, or that nobody wants any more.
//!
//! Every instance has a [`Watch`]: it knows whether a call is running, for how long the guest
//! itself has been at it (waiting in `emit` does not count), and whether the call is to stop. One
//! [`Watchdog`] thread per runtime looks at all watches. How running Wasm is made to notice is the
//! business of two interchangeable mechanisms:
//!
//! * `page` (Linux): what can last (loops, functions that call others, calls of the host, bulk
//!   operations) begins with a load from a page that the watch takes away. Free while nothing
//!   happens.
//! * `epoch` (everywhere): each loop and function compares a counter. Costs a third in tight loops,
//!   and many long operations in a row, without a loop or call between them, are not interrupted.
//!
//! A guest that is suspended in an import notices neither; there the call's future is dropped.
//!
//! # Invariants
//!
//! 1. A page is taken away only between `begin` and `end` of a call, and given back in `end`, all
//!    under the watch's lock: a normal return that races with an interruption leaves no trace.
//! 2. A cancelled watch stays cancelled: no further call begins.

pub(crate) mod epoch;
#[cfg(target_os = "linux")]
pub(crate) mod page;
#[cfg(target_os = "linux")]
pub(crate) mod rewrite;
mod watchdog;

use std::{
    sync::Arc,
    task::{Context, Waker},
    time::Duration,
};

use parking_lot::Mutex;

use crate::clock::{Moment, now};

pub(crate) use watchdog::Watchdog;

/// How running guests are interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Interruption {
    /// By taking a page away (Linux only).
    Page,
    /// By Wasmtime's epochs.
    Epoch,
}

impl Default for Interruption {
    fn default() -> Self {
        if cfg!(all(
            target_os = "linux",
            any(target_arch = "x86_64", target_arch = "aarch64")
        )) {
            Self::Page
        } else {
            Self::Epoch
        }
    }
}

/// A page whose access can be taken from a guest.
pub(crate) trait Trapdoor: Send + Sync {
    /// Makes the next load from it trap, or not any more.
    fn set_open(&self, open: bool);
}

/// Why a call was stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The guest used up its time for one call.
    Deadline,
    /// Somebody asked.
    Cancelled(String),
}

/// What a call took and whether it was stopped.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The guest's own time.
    pub(crate) own: Duration,
    /// Set if the call was to be stopped, whether or not it noticed.
    pub(crate) stop: Option<Stop>,
}

/// The state of one instance's calls, shared with the watchdog and interrupt handles.
pub(crate) struct Watch {
    limit: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    running: Option<Running>,
    cancelled: Option<String>,
    stop: Option<Stop>,
    waker: Option<Waker>,
    trapdoors: Vec<Arc<dyn Trapdoor>>,
    open: bool,
}

struct Running {
    since: Moment,
    waited: Duration,
    waiting_since: Option<Moment>,
}

impl Running {
    fn own(&self, at: Moment) -> Duration {
        let until = self.waiting_since.unwrap_or(at);
        until
            .saturating_duration_since(self.since)
            .saturating_sub(self.waited)
    }
}

impl State {
    fn stop(&mut self, stop: Stop) -> Option<Waker> {
        if self.running.is_none() || self.stop.is_some() {
            return None;
        }
        self.stop = Some(stop);
        self.set_open(true);
        self.waker.take()
    }

    fn set_open(&mut self, open: bool) {
        if self.open != open {
            self.open = open;
            for trapdoor in &self.trapdoors {
                trapdoor.set_open(open);
            }
        }
    }
}

impl Watch {
    pub(crate) fn new(limit: Duration) -> Arc<Self> {
        Arc::new(Self {
            limit,
            state: Mutex::default(),
        })
    }

    pub(crate) const fn limit(&self) -> Duration {
        self.limit
    }

    /// A call begins.
    ///
    /// # Errors
    ///
    /// The reason, if the watch was cancelled.
    pub(crate) fn begin(&self) -> Result<(), String> {
        let mut state = self.state.lock();
        if let Some(reason) = &state.cancelled {
            return Err(reason.clone());
        }
        assert!(
            state.running.is_none(),
            "calls of one instance come one at a time"
        );
        state.running = Some(Running {
            since: now(),
            waited: Duration::ZERO,
            waiting_since: None,
        });
        Ok(())
    }

    /// The call has ended, one way or the other.
    pub(crate) fn end(&self) -> Ended {
        let mut state = self.state.lock();
        let own = state
            .running
            .take()
            .map_or(Duration::ZERO, |running| running.own(now()));
        state.set_open(false);
        state.waker = None;
        Ended {
            own,
            stop: state.stop.take(),
        }
    }

    /// The guest waits in an import until the returned value is dropped.
    pub(crate) fn wait(&self) -> Waiting<'_> {
        if let Some(running) = &mut self.state.lock().running {
            running.waiting_since = Some(now());
        }
        Waiting(self)
    }

    /// Stops the call if it has used up its time.
    pub(crate) fn check(&self, at: Moment) {
        let mut state = self.state.lock();
        let due = state
            .running
            .as_ref()
            .is_some_and(|r| r.waiting_since.is_none() && r.own(at) >= self.limit);
        let waker = if due {
            state.stop(Stop::Deadline)
        } else {
            None
        };
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Stops the call and refuses further ones.
    pub(crate) fn cancel(&self, reason: &str) {
        let mut state = self.state.lock();
        state.cancelled.get_or_insert_with(|| reason.to_owned());
        let waker = state.stop(Stop::Cancelled(reason.to_owned()));
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Whether the running call is to stop.
    pub(crate) fn is_stopped(&self) -> bool {
        self.state.lock().stop.is_some()
    }

    /// The same, and wakes the task when it becomes so.
    pub(crate) fn poll_stopped(&self, context: &Context<'_>) -> bool {
        let mut state = self.state.lock();
        if state.stop.is_none() {
            state.waker = Some(context.waker().clone());
        }
        state.stop.is_some()
    }

    /// Adds a page of the instance that is being created.
    pub(crate) fn add_trapdoor(&self, trapdoor: Arc<dyn Trapdoor>) {
        let mut state = self.state.lock();
        trapdoor.set_open(state.open);
        state.trapdoors.push(trapdoor);
    }
}

/// Keeps the time of a call from running while the guest waits.
pub(crate) struct Waiting<'a>(&'a Watch);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(running) = &mut self.0.state.lock().running
            && let Some(since) = running.waiting_since.take()
        {
            running.waited += now().saturating_duration_since(since);
        }
    }
}

/// Interrupts the calls of one guest from elsewhere, for example when its job is cancelled.
#[derive(Clone)]
pub struct InterruptHandle(pub(crate) Arc<Watch>);

impl InterruptHandle {
    /// Ends the running call with [`GuestError::Cancelled`](crate::GuestError::Cancelled), and
    /// every later one before it begins.
    pub fn interrupt(&self, reason: &str) {
        self.0.cancel(reason);
    }
}

impl std::fmt::Debug for InterruptHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("InterruptHandle")
    }
}
