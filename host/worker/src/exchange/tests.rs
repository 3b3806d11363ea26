//! What holds for every channel, within a process and over TCP; then what is particular to TCP.

#![expect(
    clippy::disallowed_methods,
    reason = "tests wait for the tasks they spawn"
)]

use std::{future::Future, net::SocketAddr, task::Poll, time::Duration};

use tidemill_protocol::frame::{Frame, Hello};
use tidemill_types::{Attempt, BatchBuilder, CheckpointId, JobId};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::*;

const CAPACITY: usize = 8 << 10;
const DEADLINE: Duration = Duration::from_secs(20);

/// Two workers, or one that talks to itself.
struct Pair {
    up: ExchangeService,
    down: ExchangeService,
}

impl Pair {
    async fn all() -> Vec<Self> {
        let local = service().await;
        vec![
            Self {
                up: local.clone(),
                down: local,
            },
            Self {
                up: service().await,
                down: service().await,
            },
        ]
    }

    async fn remote() -> Self {
        Self {
            up: service().await,
            down: service().await,
        }
    }

    fn sender(&self, id: ChannelId) -> ChannelSender {
        self.up
            .sender(id, &self.down.local_address().to_string(), CAPACITY)
    }

    fn gate(&self, ids: &[ChannelId]) -> InputGate {
        self.down.receivers(ids.to_vec(), CAPACITY)
    }
}

async fn service() -> ExchangeService {
    let config = ExchangeConfig {
        open_timeout: Duration::from_millis(1500),
        ..ExchangeConfig::default()
    };
    ExchangeService::bind_with("127.0.0.1:0", config)
        .await
        .unwrap()
}

fn channel(attempt: u32, from: u32) -> ChannelId {
    ChannelId {
        job: JobId::from_u128(77),
        attempt: Attempt(attempt),
        edge: 0,
        from,
        to: 0,
    }
}

/// A batch of about this many bytes.
fn batch(number: i64, bytes: usize) -> Element {
    let mut builder = BatchBuilder::new();
    builder.push(number, Some(b"key"), Some(&vec![7; bytes]));
    Element::Batch(builder.take())
}

fn barrier(checkpoint: u64) -> Element {
    Element::Barrier(Barrier {
        checkpoint: CheckpointId(checkpoint),
        timestamp_ms: 5,
        savepoint: false,
        stop: true,
        drain: false,
        location: "file:///tmp/checkpoints".into(),
    })
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.expect("in time")
}

async fn next(gate: &mut InputGate) -> (usize, Element) {
    within(gate.next()).await.unwrap()
}

/// Waits until a condition holds.
async fn until(mut condition: impl FnMut() -> bool) {
    within(async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Sends until the channel is full. Returns how many batches went out.
async fn fill(sender: &mut ChannelSender, bytes: usize) -> usize {
    within(sender.ready(&batch(0, bytes))).await.unwrap();
    let mut sent = 0;
    loop {
        match sender.try_send(batch(i64::try_from(sent).unwrap(), bytes)) {
            Ok(()) => sent += 1,
            Err(TrySendError::Full(_)) => return sent,
            Err(TrySendError::Closed(closed)) => panic!("{closed}"),
        }
    }
}

#[tokio::test]
async fn elements_arrive_in_order_and_once() {
    for pair in Pair::all().await {
        let mut sender = pair.sender(channel(0, 0));
        let mut gate = pair.gate(&[channel(0, 0)]);
        let sending = tokio::spawn(async move {
            for number in 0..500 {
                sender.send(batch(number, 700)).await.unwrap();
                sender.send(barrier(number.unsigned_abs())).await.unwrap();
                sender
                    .send(Element::WatermarkStatus {
                        idle: number % 2 == 0,
                    })
                    .await
                    .unwrap();
            }
            sender.send(Element::Watermark(i64::MAX)).await.unwrap();
            sender.send(Element::EndOfInput).await.unwrap();
            assert_eq!(
                sender.send(Element::EndOfInput).await,
                Err(Closed(ExchangeError::Ended))
            );
        });
        for number in 0..500 {
            assert_eq!(next(&mut gate).await, (0, batch(number, 700)));
            assert_eq!(next(&mut gate).await, (0, barrier(number.unsigned_abs())));
            let status = Element::WatermarkStatus {
                idle: number % 2 == 0,
            };
            assert_eq!(next(&mut gate).await, (0, status));
        }
        assert_eq!(next(&mut gate).await, (0, Element::Watermark(i64::MAX)));
        assert_eq!(next(&mut gate).await, (0, Element::EndOfInput));
        assert_eq!(within(gate.next()).await, Err(ExchangeError::Ended));
        sending.await.unwrap();
    }
}

#[tokio::test]
async fn either_end_may_come_first() {
    for pair in Pair::all().await {
        for (attempt, sender_first) in [(0, true), (1, false)] {
            let id = channel(attempt, 0);
            let (mut sender, mut gate);
            if sender_first {
                sender = pair.sender(id);
                assert!(futures::poll!(Box::pin(sender.send(batch(1, 1)))).is_pending());
                gate = pair.gate(&[id]);
            } else {
                gate = pair.gate(&[id]);
                sender = pair.sender(id);
            }
            within(sender.send(batch(2, 1))).await.unwrap();
            assert_eq!(next(&mut gate).await, (0, batch(2, 1)));
        }
    }
}

#[tokio::test]
async fn a_stalled_receiver_bounds_what_is_under_way() {
    for pair in Pair::all().await {
        let mut gate = pair.gate(&[channel(0, 0)]);
        let mut sender = pair.sender(channel(0, 0));
        let sent = fill(&mut sender, 1000).await;
        assert!(
            (5..=8).contains(&sent),
            "{sent} batches of about 1.3 kB in 8 KiB"
        );
        assert!(sender.queued_bytes() <= CAPACITY);
        until(|| gate.queued_elements() == sent).await;
        assert!(gate.queued_bytes() <= CAPACITY);
        for _ in 0..sent {
            next(&mut gate).await;
        }
        until(|| sender.queued_bytes() == 0).await;
        assert!(sender.has_credit());
    }
}

#[tokio::test]
async fn a_batch_larger_than_the_channel_passes_alone() {
    for pair in Pair::all().await {
        let mut gate = pair.gate(&[channel(0, 0)]);
        let mut sender = pair.sender(channel(0, 0));
        for number in 0..3 {
            within(sender.send(batch(number, 5 * CAPACITY)))
                .await
                .unwrap();
            let more = sender.try_send(batch(9, 1));
            assert!(matches!(more, Err(TrySendError::Full(_))));
            assert_eq!(next(&mut gate).await, (0, batch(number, 5 * CAPACITY)));
        }
    }
}

#[tokio::test]
async fn barriers_pass_a_full_channel_in_their_place() {
    for pair in Pair::all().await {
        let mut gate = pair.gate(&[channel(0, 0)]);
        let mut sender = pair.sender(channel(0, 0));
        let sent = fill(&mut sender, 1000).await;
        within(sender.send(barrier(1))).await.unwrap();
        for _ in 0..sent {
            assert!(matches!(next(&mut gate).await, (0, Element::Batch(_))));
        }
        assert_eq!(next(&mut gate).await, (0, barrier(1)));
    }
}

#[tokio::test]
async fn watermarks_that_wait_are_merged() {
    for pair in Pair::all().await {
        let mut gate = pair.gate(&[channel(0, 0)]);
        let mut sender = pair.sender(channel(0, 0));
        for watermark in 0..i64::from(CONTROLS_MAX) * 5 {
            within(sender.send(Element::Watermark(watermark)))
                .await
                .unwrap();
        }
        within(sender.send(barrier(1))).await.unwrap();
        let mut last = -1;
        let mut taken = 0;
        loop {
            match next(&mut gate).await {
                (0, Element::Watermark(watermark)) => {
                    assert!(watermark > last);
                    last = watermark;
                    taken += 1;
                }
                other => break assert_eq!(other, (0, barrier(1))),
            }
        }
        assert_eq!(last, i64::from(CONTROLS_MAX) * 5 - 1);
        assert!(taken < i64::from(CONTROLS_MAX));
    }
}

#[tokio::test]
async fn a_slow_channel_does_not_hold_up_its_neighbour() {
    for pair in Pair::all().await {
        let slow = pair.gate(&[channel(0, 0)]);
        let mut quick = pair.gate(&[channel(0, 1)]);
        let mut to_slow = pair.sender(channel(0, 0));
        let mut to_quick = pair.sender(channel(0, 1));
        fill(&mut to_slow, 1000).await;
        for number in 0..200 {
            within(to_quick.send(batch(number, 2000))).await.unwrap();
            assert_eq!(next(&mut quick).await, (0, batch(number, 2000)));
        }
        assert!(slow.queued_bytes() > 0);
    }
}

#[tokio::test]
async fn a_blocked_channel_waits_while_the_others_are_read() {
    for pair in Pair::all().await {
        let mut gate = pair.gate(&[channel(0, 0), channel(0, 1)]);
        let mut first = pair.sender(channel(0, 0));
        let mut second = pair.sender(channel(0, 1));
        within(first.send(barrier(1))).await.unwrap();
        assert_eq!(next(&mut gate).await, (0, barrier(1)));
        gate.block(0);
        let waiting = fill(&mut first, 1000).await;
        for number in 0..20 {
            within(second.send(batch(number, 1000))).await.unwrap();
            assert_eq!(next(&mut gate).await, (1, batch(number, 1000)));
        }
        assert_eq!(gate.try_next(), Ok(None));
        gate.unblock_all();
        for number in 0..waiting {
            let number = i64::try_from(number).unwrap();
            assert_eq!(next(&mut gate).await, (0, batch(number, 1000)));
        }
    }
}

#[tokio::test]
async fn channels_take_turns() {
    for pair in Pair::all().await {
        let mut gate = pair.gate(&[channel(0, 0), channel(0, 1)]);
        let mut busy = pair.sender(channel(0, 0));
        let mut calm = pair.sender(channel(0, 1));
        let sent = fill(&mut busy, 1000).await;
        within(calm.send(batch(99, 10))).await.unwrap();
        until(|| gate.queued_elements() == sent + 1).await;
        let turns = [next(&mut gate).await.0, next(&mut gate).await.0];
        assert!(turns.contains(&1));
    }
}

#[tokio::test]
async fn merging_takes_batches_only() {
    for pair in Pair::all().await {
        let mut gate = pair.gate(&[channel(0, 0), channel(0, 1)]);
        let mut first = pair.sender(channel(0, 0));
        let mut second = pair.sender(channel(0, 1));
        within(first.send(barrier(1))).await.unwrap();
        within(second.send(batch(1, 10))).await.unwrap();
        within(second.send(batch(2, 3000))).await.unwrap();
        until(|| gate.queued_elements() == 3).await;
        let Element::Batch(small) = batch(1, 10) else {
            panic!()
        };
        assert_eq!(gate.try_next_batch(1000), Ok(Some((1, small))));
        assert_eq!(gate.try_next_batch(1000), Ok(None));
        assert_eq!(next(&mut gate).await, (0, barrier(1)));
    }
}

#[tokio::test]
async fn waiting_for_an_element_may_be_given_up() {
    for pair in Pair::all().await {
        let mut gate = pair.gate(&[channel(0, 0)]);
        let mut sender = pair.sender(channel(0, 0));
        for number in 0..100 {
            assert!(futures::poll!(Box::pin(gate.next())).is_pending());
            within(sender.send(batch(number, 1))).await.unwrap();
            assert_eq!(next(&mut gate).await, (0, batch(number, 1)));
        }
    }
}

#[tokio::test]
async fn a_sender_that_goes_without_an_end_fails_the_gate() {
    for pair in Pair::all().await {
        let mut gate = pair.gate(&[channel(0, 0)]);
        let mut sender = pair.sender(channel(0, 0));
        within(sender.ready(&barrier(1))).await.unwrap();
        drop(sender);
        let failure = within(gate.next()).await.unwrap_err();
        assert!(
            matches!(failure, ExchangeError::SenderGone { .. }),
            "{failure}"
        );
        assert!(failure.is_consequence());
    }
}

#[tokio::test]
async fn a_receiver_that_goes_closes_its_senders() {
    for pair in Pair::all().await {
        let gate = pair.gate(&[channel(0, 0), channel(0, 1)]);
        let mut sender = pair.sender(channel(0, 0));
        let mut ended = pair.sender(channel(0, 1));
        within(ended.send(Element::EndOfInput)).await.unwrap();
        fill(&mut sender, 1000).await;
        drop(gate);
        let Closed(failure) = within(sender.send(batch(1, 1000))).await.unwrap_err();
        assert!(
            matches!(failure, ExchangeError::ReceiverGone { .. }),
            "{failure}"
        );
    }
}

#[tokio::test]
async fn a_released_attempt_is_closed_and_stays_out() {
    for pair in Pair::all().await {
        let mut gate = pair.gate(&[channel(3, 0)]);
        let mut sender = pair.sender(channel(3, 0));
        let mut waiting = pair.sender(channel(3, 1));
        fill(&mut sender, 1000).await;
        assert!(futures::poll!(Box::pin(waiting.send(batch(0, 1)))).is_pending());
        pair.down.release(JobId::from_u128(77), Attempt(3));
        assert!(matches!(
            within(gate.next()).await,
            Err(ExchangeError::Released { .. })
        ));
        within(sender.send(batch(0, 1000))).await.unwrap_err();
        within(waiting.send(batch(0, 1))).await.unwrap_err();
        for attempt in [3, 2] {
            let late = within(pair.sender(channel(attempt, 5)).send(batch(0, 1))).await;
            assert_eq!(late.unwrap_err().0.kind(), ErrorKind::Fenced);
        }
        let mut late_gate = pair.gate(&[channel(3, 6)]);
        assert!(matches!(
            within(late_gate.next()).await,
            Err(ExchangeError::Released { .. })
        ));
        let mut newer = pair.gate(&[channel(4, 0)]);
        within(pair.sender(channel(4, 0)).send(batch(1, 1)))
            .await
            .unwrap();
        // The sender above is gone already: that is what the gate says next or at once.
        within(newer.next()).await.ok();
    }
}

#[tokio::test]
async fn a_stale_attempt_is_refused_while_a_newer_one_runs() {
    for pair in Pair::all().await {
        let _newer = pair.gate(&[channel(4, 0)]);
        let mut stale = pair.sender(channel(3, 0));
        assert_eq!(
            within(stale.send(batch(0, 1))).await.unwrap_err().0.kind(),
            ErrorKind::Fenced
        );
    }
}

#[tokio::test]
async fn a_receiver_that_is_never_deployed_is_given_up() {
    for pair in Pair::all().await {
        let mut sender = pair.sender(channel(0, 0));
        let Closed(failure) = within(sender.send(batch(0, 1))).await.unwrap_err();
        assert!(
            failure.to_string().contains("not deployed within"),
            "{failure}"
        );
    }
}

#[tokio::test]
async fn one_end_cannot_be_claimed_twice() {
    for pair in Pair::all().await {
        let _gate = pair.gate(&[channel(0, 0)]);
        let mut second_gate = pair.gate(&[channel(0, 0)]);
        let failure = within(second_gate.next()).await;
        assert!(matches!(failure, Err(ExchangeError::Duplicate { .. })));
        let mut first = pair.sender(channel(0, 0));
        within(first.send(batch(0, 1))).await.unwrap();
        let mut second = pair.sender(channel(0, 0));
        within(second.send(batch(0, 1))).await.unwrap_err();
    }
}

#[tokio::test]
async fn what_was_sent_before_a_shutdown_arrives() {
    let pair = Pair::remote().await;
    let mut gate = pair.gate(&[channel(0, 0)]);
    let mut sender = pair.up.sender(
        channel(0, 0),
        &pair.down.local_address().to_string(),
        CAPACITY,
    );
    let sent = fill(&mut sender, 1000).await;
    within(sender.send(Element::EndOfInput)).await.unwrap();
    within(pair.up.shutdown()).await;
    for _ in 0..sent {
        assert!(matches!(next(&mut gate).await, (0, Element::Batch(_))));
    }
    assert_eq!(next(&mut gate).await, (0, Element::EndOfInput));
}

#[tokio::test]
async fn a_lost_worker_fails_both_ends_at_once_and_a_new_attempt_reconnects() {
    let Pair { up, down } = Pair::remote().await;
    let address = down.local_address();
    let mut gate = down.receivers(vec![channel(0, 0)], CAPACITY);
    let mut other_gate = down.receivers(vec![channel(0, 1)], CAPACITY);
    let mut sender = up.sender(channel(0, 0), &address.to_string(), CAPACITY);
    let mut ended = up.sender(channel(0, 1), &address.to_string(), CAPACITY);
    fill(&mut sender, 1000).await;
    within(ended.send(Element::EndOfInput)).await.unwrap();
    until(|| other_gate.queued_elements() == 1).await;
    drop(down);
    let Closed(failure) = within(sender.send(batch(0, 1000))).await.unwrap_err();
    assert!(
        matches!(failure, ExchangeError::PeerLost { .. }),
        "{failure}"
    );
    assert!(failure.to_string().contains(&address.to_string()));
    let failure = within(gate.next()).await.unwrap_err();
    assert!(
        matches!(failure, ExchangeError::PeerLost { .. }),
        "{failure}"
    );
    assert_eq!(next(&mut other_gate).await, (0, Element::EndOfInput));

    let reborn = ExchangeService::bind(&address.to_string()).await.unwrap();
    let mut gate = reborn.receivers(vec![channel(1, 0)], CAPACITY);
    let mut sender = up.sender(channel(1, 0), &address.to_string(), CAPACITY);
    within(sender.send(batch(5, 1))).await.unwrap();
    assert_eq!(next(&mut gate).await, (0, batch(5, 1)));
}

#[tokio::test]
async fn a_worker_that_cannot_be_reached_is_named() {
    let up = service().await;
    let gone = service().await.local_address().to_string();
    let mut sender = up.sender(channel(0, 0), &gone, CAPACITY);
    let failure = within(async {
        loop {
            match sender.send(batch(0, 1)).await {
                Ok(()) => {}
                Err(Closed(failure)) => break failure,
            }
        }
    })
    .await;
    assert!(
        matches!(failure, ExchangeError::PeerLost { .. }),
        "{failure}"
    );
    assert!(failure.to_string().contains(&gone));
}

#[tokio::test]
async fn a_worker_without_the_token_is_turned_away() {
    let config = ExchangeConfig {
        token: b"secret".to_vec(),
        ..ExchangeConfig::default()
    };
    let down = ExchangeService::bind_with("127.0.0.1:0", config)
        .await
        .unwrap();
    let up = service().await;
    let mut sender = up.sender(channel(0, 0), &down.local_address().to_string(), CAPACITY);
    let Closed(failure) = within(sender.send(batch(0, 1))).await.unwrap_err();
    assert!(failure.to_string().contains("token"), "{failure}");
}

/// A peer that follows no rules.
struct Rogue {
    stream: TcpStream,
}

impl Rogue {
    async fn connect(address: SocketAddr) -> Self {
        let mut rogue = Self {
            stream: TcpStream::connect(address).await.unwrap(),
        };
        let hello = Hello {
            worker: "rogue".into(),
            address: "rogue:1".into(),
            token: Vec::new(),
        };
        rogue.send(&Frame::Hello(hello)).await;
        rogue
    }

    async fn send(&mut self, frame: &Frame) {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        // The other side may have hung up already.
        self.stream.write_all(&bytes).await.ok();
    }

    /// Everything that is said until the connection is closed.
    async fn hears(mut self) -> String {
        let mut heard = Vec::new();
        within(self.stream.read_to_end(&mut heard)).await.ok();
        String::from_utf8_lossy(&heard).into_owned()
    }
}

#[tokio::test]
async fn a_peer_that_breaks_the_rules_is_told_and_fails_only_its_channels() {
    let down = service().await;
    let mut honest_gate = down.receivers(vec![channel(0, 1)], CAPACITY);
    let up = service().await;
    let mut honest = up.sender(channel(0, 1), &down.local_address().to_string(), CAPACITY);
    let Element::Batch(records) = batch(0, 2 * CAPACITY) else {
        panic!()
    };
    let data = Frame::Data {
        channel: 0,
        batch: records,
    };
    let end = Frame::End { channel: 0 };
    let cases = [
        (
            vec![data.clone(), data.clone()],
            "more bytes than there was credit for",
        ),
        (vec![end.clone(), end.clone()], "does not exist"),
        (vec![Frame::End { channel: 9 }], "does not exist"),
        (
            vec![Frame::Opened {
                channel: 0,
                capacity: 1,
            }],
            "only the other side",
        ),
    ];
    for (attempt, (frames, complaint)) in (0..).zip(cases) {
        let id = ChannelId {
            job: JobId::from_u128(5),
            ..channel(attempt, 0)
        };
        let mut gate = down.receivers(vec![id], CAPACITY);
        let mut rogue = Rogue::connect(down.local_address()).await;
        rogue.send(&Frame::Open { channel: 0, id }).await;
        for frame in &frames {
            rogue.send(frame).await;
        }
        let heard = rogue.hears().await;
        assert!(heard.contains(complaint), "{complaint}: {heard}");
        if frames[0] != end {
            let failure = within(async {
                loop {
                    if let Err(failure) = gate.next().await {
                        break failure;
                    }
                }
            })
            .await;
            assert!(
                matches!(failure, ExchangeError::PeerLost { .. }),
                "{failure}"
            );
        }
    }
    within(honest.send(batch(7, 1))).await.unwrap();
    assert_eq!(next(&mut honest_gate).await, (0, batch(7, 1)));
}

#[tokio::test]
async fn data_before_the_channel_is_opened_is_a_violation() {
    let down = service().await;
    let mut rogue = Rogue::connect(down.local_address()).await;
    rogue
        .send(&Frame::Open {
            channel: 0,
            id: channel(0, 0),
        })
        .await;
    rogue
        .send(&Frame::Data {
            channel: 0,
            batch: Batch::default(),
        })
        .await;
    assert!(
        rogue
            .hears()
            .await
            .contains("before its channel was opened")
    );
}

#[tokio::test]
async fn noise_at_the_data_port_closes_the_connection_and_nothing_else() {
    let pair = Pair::remote().await;
    let address = pair.down.local_address();
    let mut seed = 0x1234_5678_9abc_def1_u64;
    for round in 0..40 {
        let noise: Vec<u8> = (0..300)
            .map(|_| {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                seed.to_le_bytes()[3]
            })
            .collect();
        let mut stream = if round % 2 == 0 {
            TcpStream::connect(address).await.unwrap()
        } else {
            Rogue::connect(address).await.stream
        };
        stream.write_all(&noise).await.ok();
        stream.shutdown().await.ok();
        let mut rest = Vec::new();
        within(stream.read_to_end(&mut rest)).await.ok();
    }
    let mut gate = pair.gate(&[channel(0, 0)]);
    let mut sender = pair.sender(channel(0, 0));
    within(sender.send(batch(1, 1))).await.unwrap();
    assert_eq!(next(&mut gate).await, (0, batch(1, 1)));
}

#[tokio::test]
async fn many_channels_over_one_connection_keep_their_own_order() {
    for pair in Pair::all().await {
        let ids: Vec<_> = (0..32).map(|from| channel(0, from)).collect();
        let mut gate = pair.gate(&ids);
        for &id in &ids {
            let mut sender = pair.sender(id);
            tokio::spawn(async move {
                for number in 0..200 {
                    sender.send(batch(number, 500)).await.unwrap();
                }
                sender.send(Element::EndOfInput).await.unwrap();
            });
        }
        let mut seen = vec![0; ids.len()];
        let mut live = ids.len();
        while live > 0 {
            match next(&mut gate).await {
                (index, Element::Batch(batch)) => {
                    assert_eq!(batch.timestamps, [seen[index]]);
                    seen[index] += 1;
                }
                (index, Element::EndOfInput) => {
                    assert_eq!(seen[index], 200);
                    live -= 1;
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn ready_is_cancel_safe() {
    for pair in Pair::all().await {
        let mut gate = pair.gate(&[channel(0, 0)]);
        let mut sender = pair.sender(channel(0, 0));
        let sent = fill(&mut sender, 1000).await;
        let more = batch(99, 1000);
        assert!(matches!(
            futures::poll!(Box::pin(sender.ready(&more))),
            Poll::Pending
        ));
        for _ in 0..sent {
            next(&mut gate).await;
        }
        within(sender.ready(&more)).await.unwrap();
        sender.try_send(more.clone()).unwrap();
        assert_eq!(next(&mut gate).await, (0, more));
    }
}
