//! What is encoded is decoded; whatever else arrives is refused.

use tidemill_types::BatchBuilder;

use super::*;

fn batch() -> Batch {
    let mut builder = BatchBuilder::new();
    builder.push(1, Some(b"k"), Some(b"value"));
    builder.push(i64::MIN, None, None);
    builder.header("name".into(), Some(b"x".to_vec()));
    builder.header("other".into(), None);
    builder.push(3, Some(b""), Some(b""));
    builder.take()
}

fn frames() -> Vec<Frame> {
    let id = ChannelId {
        job: JobId::from_u128(7 << 100 | 5),
        attempt: Attempt(3),
        edge: 1,
        from: 2,
        to: 4,
    };
    let barrier = Barrier {
        checkpoint: CheckpointId(9),
        timestamp_ms: -1,
        savepoint: true,
        stop: false,
        drain: true,
        location: "file:///checkpoints".into(),
    };
    vec![
        Frame::Hello(Hello {
            worker: "w".into(),
            address: "h:1".into(),
            token: vec![1, 2],
        }),
        Frame::Welcome { worker: "v".into() },
        Frame::Goodbye {
            reason: "enough".into(),
        },
        Frame::Open { channel: 8, id },
        Frame::Opened {
            channel: 8,
            capacity: 1 << 17,
        },
        Frame::Credit {
            channel: 8,
            bytes: 5,
            controls: 6,
        },
        Frame::Close {
            channel: 8,
            reason: String::new(),
        },
        Frame::Data {
            channel: 8,
            batch: batch(),
        },
        Frame::Data {
            channel: 8,
            batch: Batch::default(),
        },
        Frame::Watermark {
            channel: 8,
            watermark: i64::MAX,
        },
        Frame::WatermarkStatus {
            channel: 8,
            idle: true,
        },
        Frame::Barrier {
            channel: 8,
            barrier,
        },
        Frame::End { channel: 8 },
    ]
}

fn encoded(frame: &Frame) -> Vec<u8> {
    let mut out = Vec::new();
    frame.encode(&mut out);
    out
}

/// xorshift: enough to shake a decoder with.
fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[test]
fn every_frame_survives_the_wire() {
    for frame in frames() {
        let bytes = encoded(&frame);
        let len = frame_length(&bytes, FRAME_BYTES_MAX).unwrap().unwrap();
        assert_eq!(len, bytes.len() - PREFIX_BYTES);
        assert_eq!(Frame::decode(&bytes[PREFIX_BYTES..]).unwrap(), frame);
    }
}

#[test]
fn a_frame_cut_short_or_extended_is_refused() {
    for frame in frames() {
        let mut bytes = encoded(&frame).split_off(PREFIX_BYTES);
        for len in 0..bytes.len() {
            Frame::decode(&bytes[..len]).unwrap_err();
        }
        bytes.push(0);
        Frame::decode(&bytes).unwrap_err();
    }
}

#[test]
fn a_length_out_of_bounds_is_refused_before_anything_is_read() {
    assert_eq!(frame_length(&[1, 0, 0], 100), Ok(None));
    assert!(matches!(
        frame_length(&[101, 0, 0, 0], 100),
        Err(FrameError::TooLong { .. })
    ));
    assert!(matches!(
        frame_length(&[7, 0, 0, 0], 100),
        Err(FrameError::Truncated { .. })
    ));
}

#[test]
fn another_protocol_or_version_is_named() {
    let hello = Frame::Hello(Hello {
        worker: "w".into(),
        address: "a".into(),
        token: vec![],
    });
    let bytes = encoded(&hello).split_off(PREFIX_BYTES);
    let mut other = bytes.clone();
    other[HEAD_BYTES] ^= 1;
    assert!(matches!(
        Frame::decode(&other),
        Err(FrameError::Version { .. })
    ));
    let mut newer = bytes;
    newer[HEAD_BYTES + 4] = 200;
    assert!(
        Frame::decode(&newer)
            .unwrap_err()
            .to_string()
            .contains("version 200")
    );
}

#[test]
fn counts_that_promise_more_than_there_is_allocate_nothing() {
    for position in 0..8 {
        let mut bytes = encoded(&Frame::Data {
            channel: 1,
            batch: batch(),
        })
        .split_off(PREFIX_BYTES);
        let at = HEAD_BYTES + 4 * position;
        bytes[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        Frame::decode(&bytes).unwrap_err();
    }
}

#[test]
fn random_bytes_never_panic() {
    let mut seed = 0x9e37_79b9_7f4a_7c15;
    for _ in 0..50_000 {
        let len = usize::try_from(random(&mut seed) % 200).unwrap();
        let mut bytes: Vec<u8> = (0..len)
            .map(|_| random(&mut seed).to_le_bytes()[0])
            .collect();
        if len > 4 {
            bytes[0] %= 14;
            bytes[1..4].fill(0);
        }
        drop(Frame::decode(&bytes));
        drop(frame_length(&bytes, FRAME_BYTES_MAX));
    }
}

#[test]
fn flipped_bits_never_panic_and_never_pass_as_an_invalid_batch() {
    let mut seed = 0x2545_f491_4f6c_dd1d;
    let good: Vec<_> = frames()
        .iter()
        .map(|f| encoded(f).split_off(PREFIX_BYTES))
        .collect();
    for _ in 0..50_000 {
        let mut bytes = good[random(&mut seed).to_le_bytes()[1] as usize % good.len()].clone();
        for _ in 0..=random(&mut seed) % 3 {
            let at = usize::try_from(random(&mut seed) % bytes.len() as u64).unwrap();
            bytes[at] ^= 1 << (random(&mut seed) % 8);
        }
        if let Ok(Frame::Data { batch, .. }) = Frame::decode(&bytes) {
            batch.validate().unwrap();
        }
    }
}
