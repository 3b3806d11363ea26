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
use tokio::task::coop::cooperative;

use super::{
    ChannelId, Element, ExchangeError,
    lane::{Credit, Lane, PushError, Reading, Upstream},
    registry::Registry,
};

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
        Self {
            capacity: u32::try_from(capacity).unwrap_or(u32::MAX).max(1),
            state: Mutex::new(State {
                lanes: ids.iter().map(|&id| Lane::new(id)).collect(),
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
        let element = lane.take().expect("only lanes with elements are ready");
        self.queued_bytes -= element.cost() as usize;
        let credit = lane.settle(capacity);
        if matches!(element, Element::EndOfInput) {
            self.live -= 1;
        }
        self.schedule(index);
        (index, element, credit)
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
        cooperative(poll_fn(|context| self.gate.poll_next(context))).await
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
