//! Writing.

use tidemill_connectors::{Registry, Sink};
use tidemill_testkit::{Kafka, ReadRecord};
use tidemill_types::{BatchBuilder, CheckpointId, ConnectorConfig, NO_TIMESTAMP};

use crate::{sink, suite};

async fn open(registry: &Registry, config: &ConnectorConfig) -> Box<dyn Sink> {
    registry
        .open_sink(config, suite::sink_context(0, 1), Vec::new())
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_is_there_when_the_barrier_has_passed() {
    let kafka = Kafka::start().await.unwrap();
    kafka.create_topic("written", 1).await.unwrap();
    let mut writer = open(&Registry::standard(), &sink(&kafka, "written", &[])).await;
    let mut batch = BatchBuilder::new();
    batch.push(1_000, Some(b"key"), Some(b"value"));
    batch.header("h1".into(), Some(b"v".to_vec()));
    batch.header("h2".into(), None);
    batch.push(NO_TIMESTAMP, None, None);
    batch.push(3_000, Some(b""), Some(b""));
    writer.write(batch.take()).await.unwrap();
    assert_eq!(
        writer.prepare(CheckpointId(1)).await.unwrap(),
        Vec::<Vec<u8>>::new()
    );
    writer.commit(CheckpointId(1)).await.unwrap();
    let records = kafka.read_all("written").await.unwrap();
    assert_eq!(
        records[0],
        ReadRecord {
            partition: 0,
            offset: 0,
            timestamp: Some(1_000),
            key: Some(b"key".to_vec()),
            value: Some(b"value".to_vec()),
            headers: vec![("h1".into(), Some(b"v".to_vec())), ("h2".into(), None)],
        }
    );
    assert_eq!((&records[1].key, &records[1].value), (&None, &None));
    assert!(
        records[1]
            .timestamp
            .is_some_and(|ms| ms > 1_600_000_000_000),
        "the broker's clock"
    );
    assert_eq!(
        (records[2].key.as_deref(), records[2].value.as_deref()),
        (Some(&b""[..]), Some(&b""[..]))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn subtasks_share_a_producer_and_wait_for_their_own_records() {
    let kafka = Kafka::start().await.unwrap();
    kafka.create_topic("shared", 2).await.unwrap();
    let registry = Registry::standard();
    let config = sink(&kafka, "shared", &[]);
    let mut writers = vec![
        open(&registry, &config).await,
        open(&registry, &config).await,
    ];
    let value = vec![b'x'; 1_000];
    for round in 0..10 {
        for writer in &mut writers {
            let mut batch = BatchBuilder::new();
            (0..2_000).for_each(|_| batch.push(round, None, Some(&value)));
            writer.write(batch.take()).await.unwrap();
        }
    }
    for writer in &mut writers {
        writer.finish().await.unwrap();
        let delivered = writer
            .metrics()
            .into_iter()
            .find(|(n, _)| n == "numRecordsDelivered");
        assert_eq!(delivered.unwrap().1, 20_000.0);
    }
    assert_eq!(kafka.read_all("shared").await.unwrap().len(), 40_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_too_large_fails_the_sink() {
    let kafka = Kafka::start().await.unwrap();
    kafka
        .create_topic_with("small", 1, &[("max.message.bytes", "1000")])
        .await
        .unwrap();
    let mut writer = open(&Registry::standard(), &sink(&kafka, "small", &[])).await;
    let mut batch = BatchBuilder::new();
    batch.push(0, None, Some(&random_bytes(5_000)));
    writer.write(batch.take()).await.unwrap();
    let error = writer
        .prepare(CheckpointId(1))
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("a record for \"small\" was not delivered"),
        "{error}"
    );
    assert!(error.to_lowercase().contains("large"), "{error}");
}

/// Bytes that do not compress.
fn random_bytes(count: usize) -> Vec<u8> {
    let mut state = 1u64;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        state.to_le_bytes()[7]
    };
    (0..count).map(|_| next()).collect()
}
