//! One channel of an input gate: its queue, and the account of what its sender is owed.

use std::{collections::VecDeque, sync::Arc};

use super::{CONTROLS_MAX, ChannelId, Element, ExchangeError, credit::Window, inbound::Inbound};

/// Who sends on a channel, and gets credit back.
#[derive(Debug, Clone)]
pub(super) enum Upstream {
    Local(Arc<Window>),
    Remote(Arc<Inbound>, u32),
}

impl Upstream {
    pub(super) fn credit(&self, credit: Credit) {
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

    pub(super) fn close(&self, id: ChannelId, reason: &Arc<str>) {
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

/// What is returned to a sender.
#[derive(Debug, Clone, Copy)]
pub(super) struct Credit {
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
pub(super) struct Lane {
    pub(super) id: ChannelId,
    pub(super) queue: VecDeque<Element>,
    pub(super) upstream: Option<Upstream>,
    /// Whether there ever was an upstream.
    pub(super) connected: bool,
    /// What was received and not yet returned as credit.
    owed_bytes: u64,
    owed_controls: u32,
    /// What was taken and not yet returned as credit.
    due_bytes: u32,
    due_controls: u32,
    pub(super) reading: Reading,
    pub(super) ended: bool,
}

/// Whether a lane is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// There is nothing in it.
    Idle,
    /// It is in the list of those that are ready.
    Ready,
    /// Not for now.
    Blocked,
}

impl Lane {
    pub(super) fn new(id: ChannelId) -> Self {
        Self {
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
        }
    }

    /// Takes the first element, whose cost becomes due.
    pub(super) fn take(&mut self) -> Option<Element> {
        let element = self.queue.pop_front()?;
        self.due_bytes += element.cost();
        self.due_controls += u32::from(element.is_control());
        Some(element)
    }

    /// Checks an element against the rules and accounts for it.
    pub(super) fn admit(&mut self, element: &Element, capacity: u32) -> Result<u32, PushError> {
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
    pub(super) fn merge_watermark(&mut self, element: &Element) -> bool {
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
    pub(super) fn settle(&mut self, capacity: u32) -> Option<(Upstream, Credit)> {
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
