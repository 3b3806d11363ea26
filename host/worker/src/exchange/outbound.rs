//! A connection that this worker has dialled: records go out, credit comes in.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tidemill_protocol::frame::{FRAME_BYTES_MAX, Frame, HANDSHAKE_BYTES_MAX, Hello};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};

use super::{
    ChannelId, Element, ExchangeError,
    connection::{ConnectionError, FrameReader, Outbox, write_frame, write_frames},
    credit::Window,
};

/// How long a finished connection waits for the peer to have read everything.
const LINGER: Duration = Duration::from_secs(5);

#[derive(Debug)]
struct Channel {
    id: ChannelId,
    window: Arc<Window>,
    opened: bool,
}

#[derive(Debug, Default)]
struct State {
    next: u32,
    channels: HashMap<u32, Channel>,
    failure: Option<ExchangeError>,
}

/// The sending side of a connection.
#[derive(Debug)]
pub(super) struct Outbound {
    target: Arc<str>,
    outbox: Outbox,
    state: Mutex<State>,
}

impl Outbound {
    pub(super) fn new(target: &str) -> Self {
        Self {
            target: target.into(),
            outbox: Outbox::default(),
            state: Mutex::default(),
        }
    }

    /// The worker it leads to.
    pub(super) fn target(&self) -> &str {
        &self.target
    }

    /// Announces a channel; its window opens when the receiver is there. `None` if the connection
    /// has failed and another one is needed.
    pub(super) fn open(&self, id: ChannelId, window: &Arc<Window>) -> Option<u32> {
        let mut state = self.state.lock();
        if state.failure.is_some() {
            return None;
        }
        let number = state.next;
        state.next = state.next.checked_add(1)?;
        let channel = Channel {
            id,
            window: Arc::clone(window),
            opened: false,
        };
        state.channels.insert(number, channel);
        self.outbox.push(Frame::Open {
            channel: number,
            id,
        });
        Some(number)
    }

    /// Sends an element for which the window has given way.
    pub(super) fn send(&self, channel: u32, element: Element) {
        let frame = match element {
            Element::Batch(batch) => Frame::Data { channel, batch },
            Element::Watermark(watermark) => Frame::Watermark { channel, watermark },
            Element::WatermarkStatus { idle } => Frame::WatermarkStatus { channel, idle },
            Element::Barrier(barrier) => Frame::Barrier { channel, barrier },
            Element::EndOfInput => {
                self.state.lock().channels.remove(&channel);
                Frame::End { channel }
            }
        };
        self.outbox.push(frame);
    }

    /// Gives a channel up before its end.
    pub(super) fn close(&self, channel: u32, reason: &str) {
        if self.state.lock().channels.remove(&channel).is_some() {
            self.outbox.push(Frame::Close {
                channel,
                reason: reason.to_owned(),
            });
        }
    }

    /// Accepts nothing more, and ends the connection when everything is written.
    pub(super) fn finish(&self) {
        self.outbox.finish();
    }

    /// Dials and serves the connection until it ends.
    pub(super) async fn run(&self, hello: Hello, dial_timeout: Duration) -> ConnectionError {
        let (stream, frames) = match timeout(dial_timeout, dial(&self.target, hello)).await {
            Ok(Ok(dialled)) => dialled,
            Ok(Err(reason)) => return reason,
            Err(_) => return ConnectionError::Timeout(dial_timeout),
        };
        let (mut reader, mut writer) = stream.into_split();
        self.serve(&mut reader, &mut writer, frames).await
    }

    async fn serve(
        &self,
        reader: &mut (impl AsyncRead + Unpin),
        writer: &mut (impl AsyncWrite + Unpin),
        mut frames: FrameReader,
    ) -> ConnectionError {
        let read = async {
            loop {
                let frame = frames.next(reader, FRAME_BYTES_MAX).await?;
                self.handle(frame)?;
            }
        };
        tokio::pin!(read);
        let result: Result<(), ConnectionError> = tokio::select! {
            result = &mut read => result,
            result = write_frames(writer, &self.outbox) => match result {
                // Closing now, with credit unread, would take back what the peer has not received.
                Ok(()) => timeout(LINGER, read).await.unwrap_or(Err(ConnectionError::Shutdown)),
                failed => failed,
            },
        };
        result.err().unwrap_or(ConnectionError::Eof)
    }

    /// Every channel that is still open fails with the connection.
    pub(super) fn fail(&self, reason: &ConnectionError) {
        let failure = ExchangeError::PeerLost {
            address: Arc::clone(&self.target),
            reason: reason.to_string().into(),
        };
        let channels = {
            let mut state = self.state.lock();
            state.failure.get_or_insert_with(|| failure.clone());
            std::mem::take(&mut state.channels)
        };
        self.outbox.finish();
        for channel in channels.into_values() {
            drop(channel.window.close(failure.clone()));
        }
    }

    fn handle(&self, frame: Frame) -> Result<(), ConnectionError> {
        match frame {
            Frame::Opened { channel, capacity } => {
                if let Some(channel) = self.state.lock().channels.get_mut(&channel) {
                    channel.opened = true;
                    channel.window.open(capacity, None);
                }
                Ok(())
            }
            Frame::Credit {
                channel,
                bytes,
                controls,
            } => self.credit(channel, bytes, controls),
            Frame::Close { channel, reason } => {
                self.closed_by_peer(channel, reason.into());
                Ok(())
            }
            Frame::Goodbye { reason } => Err(ConnectionError::Goodbye(reason)),
            Frame::Hello(_)
            | Frame::Welcome { .. }
            | Frame::Open { .. }
            | Frame::Data { .. }
            | Frame::Watermark { .. }
            | Frame::WatermarkStatus { .. }
            | Frame::Barrier { .. }
            | Frame::End { .. } => Err(ConnectionError::violation(
                "a frame that only the other side sends",
            )),
        }
    }

    /// Credit of a channel that has ended meanwhile is of no interest.
    fn credit(&self, channel: u32, bytes: u32, controls: u32) -> Result<(), ConnectionError> {
        let window = self
            .state
            .lock()
            .channels
            .get(&channel)
            .map(|c| Arc::clone(&c.window));
        match window {
            Some(window) if !window.release(bytes, controls) => {
                Err(ConnectionError::violation("more credit than was used"))
            }
            _ => Ok(()),
        }
    }

    fn closed_by_peer(&self, number: u32, reason: Arc<str>) {
        let removed = self.state.lock().channels.remove(&number);
        if let Some(Channel {
            id: channel,
            window,
            opened,
        }) = removed
        {
            let failure = if opened {
                ExchangeError::ReceiverGone { channel, reason }
            } else {
                ExchangeError::Refused { channel, reason }
            };
            drop(window.close(failure));
            self.outbox.push(Frame::Close {
                channel: number,
                reason: "confirmed".to_owned(),
            });
        }
    }
}

/// Connects and introduces this worker.
async fn dial(target: &str, hello: Hello) -> Result<(TcpStream, FrameReader), ConnectionError> {
    let mut stream = TcpStream::connect(target).await?;
    stream.set_nodelay(true)?;
    write_frame(&mut stream, &Frame::Hello(hello)).await?;
    let mut frames = FrameReader::new();
    match frames.next(&mut stream, HANDSHAKE_BYTES_MAX).await? {
        Frame::Welcome { .. } => Ok((stream, frames)),
        Frame::Goodbye { reason } => Err(ConnectionError::Goodbye(reason)),
        _ => Err(ConnectionError::violation(
            "it did not answer with a welcome",
        )),
    }
}
