//! Measurements: `cargo test --release --test kafka -- --ignored --nocapture cost`.

use tidemill_connectors::Registry;
use tidemill_testkit::Kafka;
use tidemill_types::{BatchBuilder, CheckpointId};
use tokio::time::Instant;

use crate::{BOUNDED, sink, source, suite};

const RECORDS: usize = 1_000_000;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
#[expect(clippy::print_stdout, reason = "a measurement")]
async fn cost_of_records_and_of_opening() {
    let kafka = Kafka::start().await.unwrap();
    kafka.create_topic("cost", 2).await.unwrap();
    let registry = Registry::standard();
    let start = Instant::now();
    let config = sink(&kafka, "cost", &[]);
    let mut writer = registry
        .open_sink(&config, suite::sink_context(0, 1), Vec::new())
        .await
        .unwrap();
    println!("sink opened: {:?}", start.elapsed());
    let mut builder = BatchBuilder::new();
    builder.push(1, None, Some(b"first"));
    writer.write(builder.take()).await.unwrap();
    writer.prepare(CheckpointId(1)).await.unwrap();
    println!("first record acknowledged: {:?}", start.elapsed());
    let start = Instant::now();
    for _ in 0..RECORDS / 1_000 {
        (0..1_000).for_each(|_| {
            builder.push(1, None, Some(b"{\"timestamp\":1234567,\"page\":\"/help\"}"));
        });
        writer.write(builder.take()).await.unwrap();
    }
    writer.prepare(CheckpointId(2)).await.unwrap();
    println!(
        "written: {} ns a record",
        start.elapsed().as_nanos() / RECORDS as u128
    );

    let start = Instant::now();
    let mut reader = suite::open_one(&source(&kafka, "cost", &[BOUNDED])).await;
    println!("source opened: {:?}", start.elapsed());
    let mut given = suite::Given::default();
    given
        .read(&mut reader, 1_000, |given| !given.values.is_empty())
        .await
        .unwrap();
    println!("first batch: {:?}", start.elapsed());
    let start = Instant::now();
    let mut records = given.values.len();
    let mut batches = 0;
    while records <= RECORDS {
        let budget = tidemill_connectors::BatchBudget {
            records: 4_096,
            bytes: 1 << 20,
        };
        if let tidemill_connectors::SourceEvent::Batch { batch, .. } =
            reader.next(budget).await.unwrap()
        {
            records += batch.len();
            batches += 1;
        }
    }
    let elapsed = start.elapsed();
    println!(
        "read: {} ns a record, {batches} batches",
        elapsed.as_nanos() / RECORDS as u128
    );
}
