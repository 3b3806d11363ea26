//! Writing clicks to a Kafka topic, at a rate, never far ahead of the results.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer},
};
use tokio::time::Instant;

use crate::{Clicks, WINDOW_MS};

/// How often the generator wakes up.
const TICK: Duration = Duration::from_millis(10);
/// How many windows it may be ahead of the results: some 2 MiB of events.
const WINDOWS_AHEAD_MAX: u64 = 8;
/// How long creating a topic may take, a broker that does not answer included.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the last events may take to be acknowledged.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(30);

/// What to generate, and where to.
#[derive(Debug, Clone)]
pub struct GeneratorConfig {
    /// The brokers.
    pub bootstrap_servers: String,
    /// The topic.
    pub topic: String,
    /// Its partitions.
    pub partitions: i32,
    /// The events.
    pub clicks: Clicks,
    /// How many windows, if there is an end.
    pub windows: Option<u64>,
    /// Events per second.
    pub rate: u64,
}

/// How far generator and results are.
#[derive(Debug, Default)]
pub struct Progress {
    /// Events written.
    pub generated: AtomicU64,
    /// Windows whose results are complete.
    pub windows_done: AtomicU64,
}

/// Why generating stops early.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Kafka does not take events.
    #[error("cannot write to topic \"{topic}\" at {servers}: {source}")]
    Kafka {
        /// The topic.
        topic: String,
        /// The brokers.
        servers: String,
        /// What it says.
        source: KafkaError,
    },
}

/// Creates topics that do not exist.
///
/// # Errors
///
/// [`Error::Kafka`].
pub async fn create_topics(servers: &str, topics: &[&str], partitions: i32) -> Result<(), Error> {
    let failed = |topic: &str, source| Error::Kafka {
        topic: topic.to_owned(),
        servers: servers.to_owned(),
        source,
    };
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", servers)
        .create()
        .map_err(|e| failed(topics.first().unwrap_or(&""), e))?;
    for topic in topics {
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        let options = AdminOptions::new()
            .request_timeout(Some(ADMIN_TIMEOUT))
            .operation_timeout(Some(ADMIN_TIMEOUT));
        let results = admin
            .create_topics([&new], &options)
            .await
            .map_err(|e| failed(topic, e))?;
        for result in results {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((_, code)) => return Err(failed(topic, KafkaError::AdminOp(code))),
            }
        }
    }
    Ok(())
}

/// Writes clicks until the configured end, or for ever. After the last window follow a few events
/// that close it.
///
/// # Errors
///
/// [`Error::Kafka`].
pub async fn generate(config: &GeneratorConfig, progress: &Progress) -> Result<(), Error> {
    let failed = |source| Error::Kafka {
        topic: config.topic.clone(),
        servers: config.bootstrap_servers.clone(),
        source,
    };
    let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
        .set("bootstrap.servers", &config.bootstrap_servers)
        .set("enable.idempotence", "true")
        .set("linger.ms", "5")
        .create()
        .map_err(failed)?;
    let end = config.windows.map_or(u64::MAX, Clicks::in_windows);
    let mut ticks = tokio::time::interval(TICK);
    let start = Instant::now();
    let mut index = 0;
    let mut held_back = Duration::ZERO;
    while index < end {
        let tick = ticks.tick().await;
        let done = progress.windows_done.load(Relaxed);
        if Clicks::window_of(index) > done + WINDOWS_AHEAD_MAX {
            held_back += TICK;
            continue;
        }
        let elapsed = tick.duration_since(start).saturating_sub(held_back);
        let due = due(elapsed, config.rate).min(end);
        while index < due {
            send(&producer, config, index, partition(config, index))
                .await
                .map_err(failed)?;
            index += 1;
        }
        progress.generated.store(index, Relaxed);
    }
    // One event per partition, a window later, moves every partition's watermark past the end.
    let closing = end + Clicks::in_windows(1);
    for partition in 0..config.partitions {
        send(&producer, config, closing, partition)
            .await
            .map_err(failed)?;
    }
    let flushed = tokio::task::spawn_blocking(move || producer.flush(FLUSH_TIMEOUT)).await;
    flushed.unwrap_or(Err(KafkaError::Canceled)).map_err(failed)
}

fn due(elapsed: Duration, rate: u64) -> u64 {
    let events = elapsed.as_nanos() * u128::from(rate) / 1_000_000_000;
    u64::try_from(events).unwrap_or(u64::MAX)
}

/// Each partition gets all pages, in order of time.
fn partition(config: &GeneratorConfig, index: u64) -> i32 {
    let partitions = u64::try_from(config.partitions).unwrap_or(1).max(1);
    let pages = crate::PAGES.len() as u64;
    i32::try_from(index / pages % partitions).unwrap_or(0)
}

async fn send(
    producer: &ThreadedProducer<DefaultProducerContext>,
    config: &GeneratorConfig,
    index: u64,
    partition: i32,
) -> Result<(), KafkaError> {
    let click = config.clicks.get(index);
    debug_assert!(
        click.timestamp >= config.clicks.start_ms,
        "{WINDOW_MS} ms windows ascend"
    );
    let json = click.to_json();
    let mut record = BaseRecord::<(), str>::to(&config.topic)
        .partition(partition)
        .timestamp(click.timestamp)
        .payload(&json);
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), again)) => {
                record = again;
                tokio::time::sleep(TICK).await;
            }
            Err((error, _)) => return Err(error),
        }
    }
}
