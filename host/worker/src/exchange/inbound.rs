//! A connection that another worker has dialled: records come in, credit goes out.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use tidemill_protocol::frame::{FRAME_BYTES_MAX, Frame};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    ChannelId, Element, ExchangeError,
    connection::{ConnectionError, FrameReader, Outbox, write_frames},
    gate::Gate,
    lane::PushError,
    registry::{Registry, Waiting},
};

/// Channels that may be open on one connection at a time.
const CHANNELS_MAX: usize = 1 << 18;

/// Where the elements of a channel go.
#[derive(Debug)]
enum Route {
    /// The receiver is not there yet; nothing may be sent.
    Waiting(ChannelId),
    Open(Arc<Gate>, usize),
    /// Closed from here; what was under way is dropped until the peer confirms.
    Closed,
}

#[derive(Debug)]
struct State {
    routes: HashMap<u32, Route>,
    failure: Option<ExchangeError>,
}

/// The receiving side of a connection.
#[derive(Debug)]
pub(super) struct Inbound {
    peer: Arc<str>,
    outbox: Outbox,
    state: Mutex<State>,
}

impl Inbound {
    pub(super) fn new(peer: Arc<str>) -> Self {
        Self {
            peer,
            outbox: Outbox::default(),
            state: Mutex::new(State {
                routes: HashMap::new(),
                failure: None,
            }),
        }
    }

    /// Returns credit to the sender of a channel.
    pub(super) fn credit(&self, channel: u32, bytes: u32, controls: u32) {
        self.outbox.push(Frame::Credit {
            channel,
            bytes,
            controls,
        });
    }

    /// Lets a channel that has waited begin. Fails if its sender has gone meanwhile.
    pub(super) fn open_channel(
        &self,
        channel: u32,
        gate: &Arc<Gate>,
        index: usize,
    ) -> Result<(), ExchangeError> {
        let mut state = self.state.lock();
        match state.routes.get_mut(&channel) {
            Some(route @ Route::Waiting(_)) => {
                *route = Route::Open(Arc::clone(gate), index);
                drop(state);
                self.outbox.push(Frame::Opened {
                    channel,
                    capacity: gate.capacity(),
                });
                Ok(())
            }
            _ => Err(state
                .failure
                .clone()
                .unwrap_or_else(|| ExchangeError::PeerLost {
                    address: Arc::clone(&self.peer),
                    reason: "its task has ended early".into(),
                })),
        }
    }

    /// Ends a channel from this side.
    pub(super) fn close_channel(&self, channel: u32, reason: &Arc<str>) {
        let mut state = self.state.lock();
        let Some(route) = state.routes.get_mut(&channel) else {
            return;
        };
        *route = Route::Closed;
        drop(state);
        self.outbox.push(Frame::Close {
            channel,
            reason: reason.to_string(),
        });
    }

    /// Serves the connection until it ends, then fails every channel that was open on it.
    pub(super) async fn serve(
        self: &Arc<Self>,
        reader: &mut (impl AsyncRead + Unpin),
        writer: &mut (impl AsyncWrite + Unpin),
        mut frames: FrameReader,
        registry: &Registry,
    ) -> ConnectionError {
        let read = async {
            loop {
                let frame = frames.next(reader, FRAME_BYTES_MAX).await?;
                self.handle(frame, registry)?;
            }
        };
        let result: Result<(), ConnectionError> = tokio::select! {
            result = read => result,
            result = write_frames(writer, &self.outbox) => {
                result.and(Err(ConnectionError::violation("it does not read what it is sent")))
            }
        };
        result.err().unwrap_or(ConnectionError::Eof)
    }

    /// Every channel that is still open fails with the connection.
    pub(super) fn fail(self: &Arc<Self>, reason: &ConnectionError, registry: &Registry) {
        let failure = ExchangeError::PeerLost {
            address: Arc::clone(&self.peer),
            reason: reason.to_string().into(),
        };
        let routes = {
            let mut state = self.state.lock();
            state.failure.get_or_insert_with(|| failure.clone());
            std::mem::take(&mut state.routes)
        };
        self.outbox.finish();
        for route in routes.into_values() {
            match route {
                Route::Open(gate, index) => gate.fail_channel(index, failure.clone()),
                Route::Waiting(id) => registry.forget_remote_sender(id, self),
                Route::Closed => {}
            }
        }
    }

    fn handle(self: &Arc<Self>, frame: Frame, registry: &Registry) -> Result<(), ConnectionError> {
        let (channel, element) = match frame {
            Frame::Data { channel, batch } => (channel, Element::Batch(batch)),
            Frame::Watermark { channel, watermark } => (channel, Element::Watermark(watermark)),
            Frame::WatermarkStatus { channel, idle } => {
                (channel, Element::WatermarkStatus { idle })
            }
            Frame::Barrier { channel, barrier } => (channel, Element::Barrier(barrier)),
            Frame::End { channel } => (channel, Element::EndOfInput),
            Frame::Open { channel, id } => return self.announced(channel, id, registry),
            Frame::Close { channel, reason } => {
                self.closed_by_peer(channel, reason.into(), registry);
                return Ok(());
            }
            Frame::Goodbye { reason } => return Err(ConnectionError::Goodbye(reason)),
            Frame::Hello(_)
            | Frame::Welcome { .. }
            | Frame::Opened { .. }
            | Frame::Credit { .. } => {
                return Err(ConnectionError::violation(
                    "a frame that only the other side sends",
                ));
            }
        };
        self.receive(channel, element)
    }

    fn receive(&self, channel: u32, element: Element) -> Result<(), ConnectionError> {
        let route = {
            let mut state = self.state.lock();
            let route = match state.routes.get(&channel) {
                Some(Route::Open(gate, index)) => Ok(Some((Arc::clone(gate), *index))),
                Some(Route::Closed) => Ok(None),
                Some(Route::Waiting(_)) => Err("an element before its channel was opened"),
                None => Err("an element of a channel that does not exist"),
            };
            if matches!(element, Element::EndOfInput) {
                state.routes.remove(&channel);
            }
            route
        };
        let pushed = match route {
            Ok(Some((gate, index))) => gate.push(index, element),
            Ok(None) => Ok(()),
            Err(what) => Err(PushError::Violation(what)),
        };
        match pushed {
            Ok(()) | Err(PushError::Gone) => Ok(()),
            Err(PushError::Violation(what)) => Err(ConnectionError::violation(format!(
                "{what} (channel {channel})"
            ))),
        }
    }

    fn announced(
        self: &Arc<Self>,
        channel: u32,
        id: ChannelId,
        registry: &Registry,
    ) -> Result<(), ConnectionError> {
        {
            let mut state = self.state.lock();
            if state.routes.len() >= CHANNELS_MAX {
                return Err(ConnectionError::violation("too many channels"));
            }
            if state.routes.insert(channel, Route::Waiting(id)).is_some() {
                return Err(ConnectionError::violation("a channel number used twice"));
            }
        }
        registry.connect(id, Waiting::Remote(Arc::clone(self), channel));
        Ok(())
    }

    fn closed_by_peer(self: &Arc<Self>, channel: u32, reason: Arc<str>, registry: &Registry) {
        let route = self.state.lock().routes.remove(&channel);
        match route {
            Some(Route::Open(gate, index)) => gate.sender_gone(index, reason),
            Some(Route::Waiting(id)) => registry.forget_remote_sender(id, self),
            Some(Route::Closed) | None => {}
        }
    }
}
