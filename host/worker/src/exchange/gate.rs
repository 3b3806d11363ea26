//! The receiving end: the input channels of one subtask, merged fairly.

use std::{
    collections::VecDeque,
    fmt,
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use parking_lot::Mutex;
use tidemill_types::Batch;

use super::{
    CONTROLS_MAX, ChannelId, Element, ExchangeError, credit::Window, inbound::Inbound,
    registry::Registry,
};

/// Who sends on a channel, and gets credit back.
#[derive(Debug, Clone)]
pub(super) enum Upstream {
    Local(Arc<Window>),
    Remote(Arc<Inbound>, u32),
}

impl Upstream {
    fn credit(&self, credit: Credit) {
        match self {
            Self::Local(window) => {
                let owed = window.release(credit.bytes, credit.controls);
                debug_assert!(owed, "a gate returns what it was sent");
            }
            Self::Remote(inbound, channel) => {
                inbound.credit(*channel, credit.bytes, credit.controls);
            }
        }
    }

    fn close(&self, id: ChannelId, reason: &Arc<str>) {
        match self {
            Self::Local(window) => {
                let reason = Arc::clone(reason);
                drop(window.close(ExchangeError::ReceiverGone {
                    channel: id,
                    reason,
                }));
            }
            Self::Remote(inbound, channel) => inbound.close_channel(*channel, reason),
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Credit {
    bytes: u32,
    controls: u32,
}

/// Why an element was not accepted.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PushError {
    /// The task is gone, or has failed.
    Gone,
    /// The sender has broken the rules.
    Violation(&'static str),
}

#[derive(Debug)]
struct Lane {
    id: ChannelId,
    queue: VecDeque<Element>,
    upstream: Option<Upstream>,
    /// Whether there ever was an upstream.
    connected: bool,
    /// What was received and not yet returned as credit.
    owed_bytes: u64,
    owed_controls: u32,
    /// What was taken and not yet returned as credit.
    due_bytes: u32,
    due_controls: u32,
    reading: Reading,
    ended: bool,
}

/// Whether a lane is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// There is nothing in it.
    Idle,
    /// It is in the list of those that are ready.
    Ready,
    /// Not for now.
    Blocked,
}

#[derive(Debug)]
struct State {
    lanes: Vec<Lane>,
    /// Lanes that can be read, in the order of their turns.
    ready: VecDeque<usize>,
    /// Lanes whose end has not been taken.
    live: usize,
    queued_bytes: usize,
    failure: Option<ExchangeError>,
    waker: Option<Waker>,
}

/// The part of an input gate that senders and connections share.
#[derive(Debug)]
pub(super) struct Gate {
    capacity: u32,
    state: Mutex<State>,
}

impl Gate {
    pub(super) fn new(ids: &[ChannelId], capacity: usize) -> Self {
        let lane = |&id| Lane {
            id,
            queue: VecDeque::new(),
            upstream: None,
            connected: false,
            owed_bytes: 0,
            owed_controls: 0,
            due_bytes: 0,
            due_controls: 0,
            reading: Reading::Idle,
            ended: false,
        };
        Self {
            capacity: u32::try_from(capacity).unwrap_or(u32::MAX).max(1),
            state: Mutex::new(State {
                lanes: ids.iter().map(lane).collect(),
                ready: VecDeque::with_capacity(ids.len()),
                live: ids.len(),
                queued_bytes: 0,
                failure: None,
                waker: None,
            }),
        }
    }

    /// Bytes that may be under way on each channel.
    pub(super) fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Names who sends on a channel. `false` if somebody already does, or did.
    pub(super) fn connect(&self, index: usize, upstream: Upstream) -> bool {
        let mut state = self.state.lock();
        let lane = &mut state.lanes[index];
        if lane.connected {
            return false;
        }
        lane.connected = true;
        lane.upstream = Some(upstream);
        true
    }

    /// Appends an element to a channel.
    pub(super) fn push(&self, index: usize, element: Element) -> Result<(), PushError> {
        let mut state = self.state.lock();
        let credit = state.push(index, element, self.capacity)?;
        let waker = state.waker.take();
        drop(state);
        if let Some((upstream, credit)) = credit {
            upstream.credit(credit);
        }
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    /// The sender of a channel is gone; without an end before, the gate fails.
    pub(super) fn sender_gone(&self, index: usize, reason: Arc<str>) {
        let channel = self.state.lock().lanes[index].id;
        self.fail_channel(index, ExchangeError::SenderGone { channel, reason });
    }

    /// The channel has failed, and with it the gate, unless the channel had ended before.
    pub(super) fn fail_channel(&self, index: usize, failure: ExchangeError) {
        let ended = {
            let mut state = self.state.lock();
            let lane = &mut state.lanes[index];
            lane.upstream = None;
            lane.ended
        };
        if !ended {
            self.fail(failure);
        }
    }

    /// Fails the gate: what is queued is not delivered any more.
    pub(super) fn fail(&self, failure: ExchangeError) {
        let mut state = self.state.lock();
        state.failure.get_or_insert(failure);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Drops everything and tells all senders.
    pub(super) fn close(&self, failure: ExchangeError, reason: &str) {
        self.fail(failure);
        let reason: Arc<str> = reason.into();
        let mut upstreams = Vec::new();
        {
            let mut state = self.state.lock();
            state.ready.clear();
            state.queued_bytes = 0;
            for lane in &mut state.lanes {
                lane.queue = VecDeque::new();
                lane.reading = Reading::Idle;
                upstreams.extend(lane.upstream.take().map(|upstream| (lane.id, upstream)));
            }
        }
        for (id, upstream) in upstreams {
            upstream.close(id, &reason);
        }
    }

    fn poll_next(&self, context: &Context<'_>) -> Poll<Result<(usize, Element), ExchangeError>> {
        match self.take(Some(context), State::front_of_turn) {
            Ok(Some(taken)) => Poll::Ready(Ok(taken)),
            Ok(None) => Poll::Pending,
            Err(failure) => Poll::Ready(Err(failure)),
        }
    }

    fn take(
        &self,
        context: Option<&Context<'_>>,
        choose: impl FnOnce(&State) -> Option<usize>,
    ) -> Result<Option<(usize, Element)>, ExchangeError> {
        let mut state = self.state.lock();
        if let Some(failure) = &state.failure {
            return Err(failure.clone());
        }
        if let Some(turn) = choose(&state) {
            let (index, element, credit) = state.pop(turn, self.capacity);
            drop(state);
            if let Some((upstream, credit)) = credit {
                upstream.credit(credit);
            }
            return Ok(Some((index, element)));
        }
        if state.live == 0 {
            return Err(ExchangeError::Ended);
        }
        if let Some(context) = context {
            state.waker = Some(context.waker().clone());
        }
        Ok(None)
    }
}

impl State {
    fn push(
        &mut self,
        index: usize,
        element: Element,
        capacity: u32,
    ) -> Result<Option<(Upstream, Credit)>, PushError> {
        if self.failure.is_some() {
            return Err(PushError::Gone);
        }
        let lane = &mut self.lanes[index];
        let cost = lane.admit(&element, capacity)?;
        self.queued_bytes += cost as usize;
        if lane.merge_watermark(&element) {
            return Ok(lane.settle(capacity));
        }
        if matches!(element, Element::EndOfInput) {
            lane.ended = true;
            lane.upstream = None;
        }
        lane.queue.push_back(element);
        self.schedule(index);
        Ok(None)
    }

    fn schedule(&mut self, index: usize) {
        let lane = &mut self.lanes[index];
        if lane.reading == Reading::Idle && !lane.queue.is_empty() {
            lane.reading = Reading::Ready;
            self.ready.push_back(index);
        }
    }

    /// The position in `ready` of the lane whose turn it is.
    fn front_of_turn(&self) -> Option<usize> {
        (!self.ready.is_empty()).then_some(0)
    }

    /// The position in `ready` of the first lane that holds a batch of at most `bytes_max` next.
    fn first_batch(&self, bytes_max: usize) -> Option<usize> {
        self.ready
            .iter()
            .position(|&index| match self.lanes[index].queue.front() {
                Some(Element::Batch(batch)) => batch.byte_size() <= bytes_max,
                _ => false,
            })
    }

    /// Takes the first element of the lane at `turn` in `ready`.
    fn pop(&mut self, turn: usize, capacity: u32) -> (usize, Element, Option<(Upstream, Credit)>) {
        let index = self.ready.remove(turn).expect("a position in the list");
        let lane = &mut self.lanes[index];
        lane.reading = Reading::Idle;
        let element = lane
            .queue
            .pop_front()
            .expect("only lanes with elements are ready");
        let cost = element.cost();
        self.queued_bytes -= cost as usize;
        lane.due_bytes += cost;
        lane.due_controls += u32::from(element.is_control());
        let credit = lane.settle(capacity);
        if matches!(element, Element::EndOfInput) {
            self.live -= 1;
        }
        self.schedule(index);
        (index, element, credit)
    }
}

impl Lane {
    /// Checks an element against the rules and accounts for it.
    fn admit(&mut self, element: &Element, capacity: u32) -> Result<u32, PushError> {
        if self.ended {
            return Err(PushError::Violation(
                "an element after the end of its channel",
            ));
        }
        let cost = element.cost();
        if element.is_control() {
            if self.owed_controls >= CONTROLS_MAX {
                return Err(PushError::Violation(
                    "more watermarks and barriers than allowed",
                ));
            }
            self.owed_controls += 1;
        } else {
            let owed = self.owed_bytes + u64::from(cost);
            if self.owed_bytes > 0 && owed > u64::from(capacity) {
                return Err(PushError::Violation("more bytes than there was credit for"));
            }
            self.owed_bytes = owed;
        }
        Ok(cost)
    }

    /// Lets a watermark replace one that waits directly before it.
    fn merge_watermark(&mut self, element: &Element) -> bool {
        let Element::Watermark(newer) = element else {
            return false;
        };
        let Some(Element::Watermark(waiting)) = self.queue.back_mut() else {
            return false;
        };
        *waiting = *newer;
        self.due_controls += 1;
        true
    }

    /// The credit to return now, if it is worth a message: when a quarter of the capacity is due,
    /// or when nothing else will be taken that could carry it.
    fn settle(&mut self, capacity: u32) -> Option<(Upstream, Credit)> {
        let worth = self.queue.is_empty()
            || self.due_bytes >= capacity / 4
            || self.due_controls >= CONTROLS_MAX / 4;
        if !worth || (self.due_bytes == 0 && self.due_controls == 0) {
            return None;
        }
        let upstream = self.upstream.clone()?;
        let credit = Credit {
            bytes: self.due_bytes,
            controls: self.due_controls,
        };
        self.owed_bytes -= u64::from(credit.bytes);
        self.owed_controls -= credit.controls;
        self.due_bytes = 0;
        self.due_controls = 0;
        Some((upstream, credit))
    }
}

/// All input channels of a subtask. Dropping it tells senders that have not ended yet.
pub struct InputGate {
    gate: Arc<Gate>,
    registry: Arc<Registry>,
    ids: Vec<ChannelId>,
}

impl InputGate {
    pub(super) fn new(gate: Arc<Gate>, registry: Arc<Registry>, ids: Vec<ChannelId>) -> Self {
        Self {
            gate,
            registry,
            ids,
        }
    }

    /// The channels, by the numbers that [`next`](Self::next) returns.
    #[must_use]
    pub fn channels(&self) -> &[ChannelId] {
        &self.ids
    }

    /// The next element and the channel it came by, which is a position in the list that the gate
    /// was made with. Channels that have something take turns. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`ExchangeError`] as soon as one channel fails, even if others could be read;
    /// [`ExchangeError::Ended`] when every channel has ended.
    pub async fn next(&mut self) -> Result<(usize, Element), ExchangeError> {
        poll_fn(|context| self.gate.poll_next(context)).await
    }

    /// The next element, if there is one now.
    ///
    /// # Errors
    ///
    /// As [`next`](Self::next).
    pub fn try_next(&mut self) -> Result<Option<(usize, Element)>, ExchangeError> {
        self.gate.take(None, State::front_of_turn)
    }

    /// A further batch of at most `bytes_max`, if one is next on any channel: to merge small ones
    /// into one call without taking barriers and watermarks out of their places.
    ///
    /// # Errors
    ///
    /// As [`next`](Self::next).
    pub fn try_next_batch(
        &mut self,
        bytes_max: usize,
    ) -> Result<Option<(usize, Batch)>, ExchangeError> {
        let taken = self.gate.take(None, |state| state.first_batch(bytes_max))?;
        Ok(taken.and_then(|(index, element)| match element {
            Element::Batch(batch) => Some((index, batch)),
            Element::Watermark(_)
            | Element::WatermarkStatus { .. }
            | Element::Barrier(_)
            | Element::EndOfInput => None,
        }))
    }

    /// Stops reading a channel, whose sender will run out of credit.
    ///
    /// # Panics
    ///
    /// If there is no such channel.
    pub fn block(&mut self, channel: usize) {
        let mut state = self.gate.state.lock();
        let lane = &mut state.lanes[channel];
        let before = std::mem::replace(&mut lane.reading, Reading::Blocked);
        if before == Reading::Ready {
            state.ready.retain(|&index| index != channel);
        }
    }

    /// Reads all channels again.
    pub fn unblock_all(&mut self) {
        let mut state = self.gate.state.lock();
        for index in 0..state.lanes.len() {
            let lane = &mut state.lanes[index];
            if lane.reading == Reading::Blocked {
                lane.reading = Reading::Idle;
                state.schedule(index);
            }
        }
    }

    /// Bytes that have arrived and were not taken yet.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.gate.state.lock().queued_bytes
    }

    /// Elements that have arrived and were not taken yet.
    #[must_use]
    pub fn queued_elements(&self) -> usize {
        self.gate
            .state
            .lock()
            .lanes
            .iter()
            .map(|lane| lane.queue.len())
            .sum()
    }
}

impl fmt::Debug for InputGate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InputGate")
            .field("channels", &self.ids)
            .finish_non_exhaustive()
    }
}

impl Drop for InputGate {
    fn drop(&mut self) {
        self.registry.forget_receivers(&self.ids, &self.gate);
        if let Some(&channel) = self.ids.first() {
            self.gate.close(
                ExchangeError::Released { channel },
                "the receiving task has ended",
            );
        }
    }
}
