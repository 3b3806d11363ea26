//! The sending end of a channel.

use std::{fmt, future::poll_fn, sync::Arc, time::Duration};

use tokio::{
    task::coop::consume_budget,
    time::{Instant, timeout_at},
};

use super::{
    ChannelId, Closed, Element, ExchangeError,
    credit::{Cost, LocalRoute, Window},
    lane::PushError,
    outbound::Outbound,
    registry::Registry,
};

/// How much longer than the receiving worker the sending one waits for a receiver. It is only needed
/// when that worker does not answer at all.
const OPEN_GRACE: Duration = Duration::from_secs(5);

/// How the elements get to the gate.
#[derive(Debug)]
pub(super) enum Link {
    Local(Arc<Registry>, Option<LocalRoute>),
    Remote(Arc<Outbound>, u32),
    /// There was never one; the window says why.
    None,
}

/// Why an element was not sent at once.
#[derive(Debug)]
pub enum TrySendError {
    /// There is no room now, or the receiver is not there yet. The element comes back.
    Full(Element),
    /// There will never be room.
    Closed(Closed),
}

/// The end of a channel that sends. Dropping it before [`Element::EndOfInput`] fails the receiver.
pub struct ChannelSender {
    id: ChannelId,
    window: Arc<Window>,
    link: Link,
    ended: bool,
    open_timeout: Duration,
    deadline: Instant,
}

impl ChannelSender {
    pub(super) fn new(
        id: ChannelId,
        window: Arc<Window>,
        link: Link,
        open_timeout: Duration,
    ) -> Self {
        let deadline = Instant::now() + open_timeout + OPEN_GRACE;
        Self {
            id,
            window,
            link,
            ended: false,
            open_timeout,
            deadline,
        }
    }

    /// The channel.
    #[must_use]
    pub fn id(&self) -> ChannelId {
        self.id
    }

    /// Sends an element, waiting until the receiver is there and has room.
    ///
    /// If the future is dropped while it waits, the element is lost; to wait and keep it, use
    /// [`ready`](Self::ready) and [`try_send`](Self::try_send).
    ///
    /// # Errors
    ///
    /// [`Closed`] if the channel has failed or ended.
    pub async fn send(&mut self, element: Element) -> Result<(), Closed> {
        // A task whose channels always have room must not keep its thread from the others.
        consume_budget().await;
        let cost = self.cost(&element)?;
        if !self.window.try_acquire(cost)? {
            self.opened().await;
            poll_fn(|context| self.window.poll_acquire(cost, context)).await?;
        }
        self.deliver(element)
    }

    /// Sends an element if there is room.
    ///
    /// # Errors
    ///
    /// [`TrySendError`] says whether trying again makes sense.
    #[expect(
        clippy::result_large_err,
        reason = "the element comes back as it was, without a copy"
    )]
    pub fn try_send(&mut self, element: Element) -> Result<(), TrySendError> {
        let cost = self.cost(&element).map_err(TrySendError::Closed)?;
        if !self
            .window
            .try_acquire(cost)
            .map_err(Closed)
            .map_err(TrySendError::Closed)?
        {
            return Err(TrySendError::Full(element));
        }
        self.deliver(element).map_err(TrySendError::Closed)
    }

    /// Waits until this element could be sent. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`Closed`] if the channel has failed or ended.
    pub async fn ready(&mut self, element: &Element) -> Result<(), Closed> {
        let cost = self.cost(element)?;
        self.opened().await;
        Ok(poll_fn(|context| self.window.poll_room(cost, context)).await?)
    }

    /// Whether there is any room for batches now.
    #[must_use]
    pub fn has_credit(&self) -> bool {
        self.window.has_credit()
    }

    /// Bytes sent for which credit has not come back.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        usize::try_from(self.window.bytes()).unwrap_or(usize::MAX)
    }

    /// Why the channel cannot be used any more, if so.
    #[must_use]
    pub fn failure(&self) -> Option<Closed> {
        self.window.failure().map(Closed)
    }

    fn cost(&self, element: &Element) -> Result<Cost, Closed> {
        if self.ended {
            Err(Closed(ExchangeError::Ended))
        } else {
            Ok(Cost::of(element))
        }
    }

    /// Waits for the receiver, but not for ever.
    async fn opened(&self) {
        if !self.window.is_pending() {
            return;
        }
        let opened = poll_fn(|context| self.window.poll_open(context));
        if timeout_at(self.deadline, opened).await.is_err() {
            let (channel, waited) = (self.id, self.open_timeout);
            self.window
                .close(ExchangeError::NotDeployed { channel, waited });
        }
    }

    fn deliver(&mut self, element: Element) -> Result<(), Closed> {
        let ends = matches!(element, Element::EndOfInput);
        match &mut self.link {
            Link::Local(_, route) => {
                if route.is_none() {
                    *route = self.window.route();
                }
                let pushed = match route {
                    Some(LocalRoute { gate, index }) => gate.push(*index, element),
                    None => Err(PushError::Gone),
                };
                if let Err(reason) = pushed {
                    return Err(self.not_accepted(&reason));
                }
            }
            Link::Remote(outbound, channel) => outbound.send(*channel, element),
            Link::None => return Err(self.not_accepted(&PushError::Gone)),
        }
        if ends {
            self.ended = true;
            // The two would otherwise keep each other alive.
            drop(self.window.close(ExchangeError::Ended));
        }
        Ok(())
    }

    fn not_accepted(&self, reason: &PushError) -> Closed {
        Closed(self.window.failure().unwrap_or_else(|| {
            let reason = match reason {
                PushError::Gone => "the receiving task has failed",
                PushError::Violation(what) => what,
            };
            ExchangeError::ReceiverGone {
                channel: self.id,
                reason: reason.into(),
            }
        }))
    }
}

impl fmt::Debug for ChannelSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelSender")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Drop for ChannelSender {
    fn drop(&mut self) {
        const REASON: &str = "the sending task has ended early";
        if self.ended {
            return;
        }
        match &self.link {
            // From here on the channel either is open, or will never be.
            Link::Local(registry, _) => registry.forget_local_sender(self.id, &self.window),
            Link::Remote(outbound, channel) => outbound.close(*channel, REASON),
            Link::None => {}
        }
        if let Some(LocalRoute { gate, index }) = self.window.close(ExchangeError::Ended) {
            gate.sender_gone(index, REASON.into());
        }
    }
}
