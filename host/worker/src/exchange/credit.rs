//! A sender's window: how much of a channel's capacity is under way.

use std::{
    sync::Arc,
    task::{Context, Poll, Waker},
};

use parking_lot::Mutex;

use super::{CONTROLS_MAX, Element, ExchangeError, gate::Gate};

/// Where a channel within the process leads.
#[derive(Debug, Clone)]
pub(super) struct LocalRoute {
    pub(super) gate: Arc<Gate>,
    pub(super) index: usize,
}

/// What an element takes of a window.
#[derive(Debug, Clone, Copy)]
pub(super) enum Cost {
    Bytes(u32),
    Control,
}

impl Cost {
    pub(super) fn of(element: &Element) -> Self {
        if element.is_control() {
            Self::Control
        } else {
            Self::Bytes(element.cost())
        }
    }
}

#[derive(Debug)]
enum Phase {
    /// The receiver is not there yet.
    Pending,
    Open,
    Closed(ExchangeError),
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// Only of channels within the process, once open.
    route: Option<LocalRoute>,
    capacity: u64,
    bytes: u64,
    controls: u32,
    waker: Option<Waker>,
}

/// Shared by a sender and whatever returns credit to it.
///
/// # Invariants
///
/// 1. `bytes` is 0, at most `capacity`, or the cost of a single batch.
/// 2. A closed window stays closed, with its first reason.
#[derive(Debug)]
pub(super) struct Window {
    state: Mutex<State>,
}

impl Window {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            state: Mutex::new(State {
                phase: Phase::Pending,
                route: None,
                capacity: capacity as u64,
                bytes: 0,
                controls: 0,
                waker: None,
            }),
        }
    }

    /// The receiver is there and allows `capacity` bytes. Ignored unless the window is pending.
    pub(super) fn open(&self, capacity: u32, route: Option<LocalRoute>) {
        self.change(|state| {
            if matches!(state.phase, Phase::Pending) {
                state.phase = Phase::Open;
                state.capacity = state.capacity.min(u64::from(capacity));
                state.route = route;
            }
        });
    }

    /// Closes the window for good. Returns where it led if it was open within the process.
    pub(super) fn close(&self, reason: ExchangeError) -> Option<LocalRoute> {
        self.change(|state| {
            if !matches!(state.phase, Phase::Closed(_)) {
                state.phase = Phase::Closed(reason);
            }
            state.route.take()
        })
    }

    /// Returns credit. `false` if there was not so much under way.
    pub(super) fn release(&self, bytes: u32, controls: u32) -> bool {
        self.change(|state| {
            let left = state.bytes.checked_sub(bytes.into());
            let controls_left = state.controls.checked_sub(controls);
            let (Some(bytes), Some(controls)) = (left, controls_left) else {
                return false;
            };
            state.bytes = bytes;
            state.controls = controls;
            true
        })
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock();
        let result = change(&mut state);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        result
    }

    /// Takes `cost` out of the window if it is open and has room.
    pub(super) fn try_acquire(&self, cost: Cost) -> Result<bool, ExchangeError> {
        self.state.lock().acquire(cost)
    }

    /// The same, or waits for room.
    pub(super) fn poll_acquire(
        &self,
        cost: Cost,
        context: &Context<'_>,
    ) -> Poll<Result<(), ExchangeError>> {
        let mut state = self.state.lock();
        let acquired = state.acquire(cost);
        state.wait_unless(acquired, context)
    }

    /// Waits until there is room for `cost`, without taking it.
    pub(super) fn poll_room(
        &self,
        cost: Cost,
        context: &Context<'_>,
    ) -> Poll<Result<(), ExchangeError>> {
        let mut state = self.state.lock();
        let has_room = state.has_room(cost);
        state.wait_unless(has_room, context)
    }

    /// Waits until the window is no longer pending.
    pub(super) fn poll_open(&self, context: &Context<'_>) -> Poll<()> {
        let mut state = self.state.lock();
        if !matches!(state.phase, Phase::Pending) {
            return Poll::Ready(());
        }
        state.waker = Some(context.waker().clone());
        Poll::Pending
    }

    pub(super) fn is_pending(&self) -> bool {
        matches!(self.state.lock().phase, Phase::Pending)
    }

    pub(super) fn route(&self) -> Option<LocalRoute> {
        self.state.lock().route.clone()
    }

    /// Why it is closed, if it is.
    pub(super) fn failure(&self) -> Option<ExchangeError> {
        match &self.state.lock().phase {
            Phase::Closed(reason) => Some(reason.clone()),
            Phase::Pending | Phase::Open => None,
        }
    }

    /// Bytes under way.
    pub(super) fn bytes(&self) -> u64 {
        self.state.lock().bytes
    }

    /// Whether a batch could be sent now, if it is not too large.
    pub(super) fn has_credit(&self) -> bool {
        let state = self.state.lock();
        matches!(state.phase, Phase::Open) && state.bytes < state.capacity.max(1)
    }
}

impl State {
    fn has_room(&self, cost: Cost) -> Result<bool, ExchangeError> {
        match &self.phase {
            Phase::Pending => Ok(false),
            Phase::Closed(reason) => Err(reason.clone()),
            Phase::Open => Ok(match cost {
                Cost::Bytes(cost) => {
                    self.bytes == 0 || self.bytes + u64::from(cost) <= self.capacity
                }
                Cost::Control => self.controls < CONTROLS_MAX,
            }),
        }
    }

    fn acquire(&mut self, cost: Cost) -> Result<bool, ExchangeError> {
        let has_room = self.has_room(cost)?;
        if has_room {
            match cost {
                Cost::Bytes(cost) => self.bytes += u64::from(cost),
                Cost::Control => self.controls += 1,
            }
        }
        Ok(has_room)
    }

    fn wait_unless(
        &mut self,
        outcome: Result<bool, ExchangeError>,
        context: &Context<'_>,
    ) -> Poll<Result<(), ExchangeError>> {
        match outcome {
            Ok(true) => Poll::Ready(Ok(())),
            Err(reason) => Poll::Ready(Err(reason)),
            Ok(false) => {
                self.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}
