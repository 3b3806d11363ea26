//! What every client of ours does: logs to tracing, remembers why brokers cannot be reached, and
//! asks for metadata in bounded time.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use rdkafka::{
    ClientConfig, ClientContext, Statistics, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer, ConsumerContext, StreamConsumer},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code},
    metadata::Metadata,
    producer::{BaseProducer, Producer as _},
};
use serde::Deserialize;
use tokio::{sync::Notify, time::Instant};
use tracing::{debug, error, info, warn};

use super::{
    errors,
    options::{SinkOptions, SourceOptions, Topics},
    producer::{Reports, Shared},
};
use crate::ConnectorError;

/// How long brokers may be silent, when a source opens and while it runs.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(30);
/// How long a look before the start of a job may take.
const PREFLIGHT: Duration = Duration::from_secs(5);
/// One request for metadata waits so long before we look at what else was said.
const SLICE: Duration = Duration::from_secs(2);
/// How many things a client says at most while it is asked.
const EVENTS_MAX: usize = 100;
/// A pause between requests.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a topic that was just created may be unknown to a broker.
const PROPAGATION: Duration = Duration::from_secs(2);

/// What librdkafka tells us on the side, for one client.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Why the last connection failed.
    trouble: Mutex<Option<String>>,
    /// The text of the last error that came with a code.
    reason: Mutex<Option<String>>,
    /// The ends of partitions, by topic and partition, from the statistics.
    ends: Mutex<HashMap<String, HashMap<i32, PartitionEnd>>>,
    /// Signalled when `ends` are new.
    pub(super) ends_arrived: Notify,
    pub(super) commits_succeeded: AtomicU64,
    pub(super) commits_failed: AtomicU64,
}

/// Where a partition ends, as far as the client has seen.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct PartitionEnd {
    /// The offset at which the end was last met; negative if it was not.
    pub(super) met: i64,
    /// The high watermark; negative if unknown.
    pub(super) high: i64,
}

impl Watch {
    /// The reason that came with the error that was just returned.
    pub(super) fn take_reason(&self) -> Option<String> {
        self.reason.lock().take()
    }

    /// Why brokers cannot be reached, if that is known.
    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.lock().clone()
    }

    pub(super) fn end(&self, topic: &str, partition: i32) -> Option<PartitionEnd> {
        self.ends.lock().get(topic)?.get(&partition).copied()
    }

    /// Whether the brokers refuse us, so that waiting is of no use.
    fn is_refused(&self) -> bool {
        const WORDS: [&str; 4] = [
            "authentication fail",
            "authentication error",
            "SSL handshake failed",
            "Invalid username or password",
        ];
        let trouble = self.trouble.lock();
        trouble
            .as_ref()
            .is_some_and(|text| WORDS.iter().any(|word| text.contains(word)))
    }
}

/// The callbacks of a client.
#[derive(Debug, Clone, Default)]
pub(super) struct Context {
    pub(super) watch: Arc<Watch>,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        match level {
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error => {
                if matches!(facility, "FAIL" | "ERROR") {
                    *self.watch.trouble.lock() = Some(without_prefix(text).to_owned());
                }
                warn!(facility, "kafka client: {text}");
            }
            RDKafkaLogLevel::Warning | RDKafkaLogLevel::Notice => {
                info!(facility, "kafka client: {text}");
            }
            RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
                debug!(facility, "kafka client: {text}");
            }
        }
    }

    fn stats_raw(&self, statistics: &[u8]) {
        match serde_json::from_slice::<Ends>(statistics) {
            Ok(ends) => {
                *self.watch.ends.lock() = ends.into_map();
                self.watch.ends_arrived.notify_one();
            }
            Err(error) => debug!(%error, "kafka client statistics cannot be read"),
        }
    }

    fn stats(&self, _: Statistics) {}

    fn error(&self, error: KafkaError, reason: &str) {
        *self.watch.reason.lock() = Some(reason.to_owned());
        if error.rdkafka_error_code() != Some(Code::PartitionEOF) {
            debug!(%error, reason, "kafka client error");
        }
    }
}

impl ConsumerContext for Context {
    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        match result {
            Ok(()) => self.watch.commits_succeeded.fetch_add(1, Ordering::Relaxed),
            Err(error) => {
                warn!(%error, "committing offsets to the group failed; positions are in the checkpoint");
                self.watch.commits_failed.fetch_add(1, Ordering::Relaxed)
            }
        };
    }
}

/// The statistics that we read.
#[derive(Debug, Deserialize)]
struct Ends {
    topics: HashMap<String, TopicEnds>,
}

#[derive(Debug, Deserialize)]
struct TopicEnds {
    partitions: HashMap<String, RawEnd>,
}

#[derive(Debug, Deserialize)]
struct RawEnd {
    eof_offset: i64,
    hi_offset: i64,
}

impl Ends {
    fn into_map(self) -> HashMap<String, HashMap<i32, PartitionEnd>> {
        let partitions = |topic: TopicEnds| {
            let end = |raw: RawEnd| PartitionEnd {
                met: raw.eof_offset,
                high: raw.hi_offset,
            };
            let ends = topic.partitions.into_iter();
            ends.filter_map(|(number, raw)| Some((number.parse().ok()?, end(raw))))
                .collect()
        };
        self.topics
            .into_iter()
            .map(|(name, topic)| (name, partitions(topic)))
            .collect()
    }
}

/// librdkafka puts `[thrd:…]: ` before what it says.
fn without_prefix(text: &str) -> &str {
    match text.split_once("]: ") {
        Some((prefix, rest)) if prefix.starts_with("[thrd:") => rest,
        _ => text,
    }
}

/// Anything that can ask for metadata.
pub(super) trait Asks: Send + Sync + 'static {
    fn ask(&self, topic: Option<&str>, timeout: Duration) -> KafkaResult<Metadata>;
    /// Lets the client say what it has to say (the reason of a failure, for one).
    fn serve(&self);
}

impl Asks for StreamConsumer<Context> {
    fn ask(&self, topic: Option<&str>, timeout: Duration) -> KafkaResult<Metadata> {
        self.fetch_metadata(topic, timeout)
    }

    /// Whoever reads its messages does that.
    fn serve(&self) {}
}

impl Asks for BaseConsumer<Context> {
    fn ask(&self, topic: Option<&str>, timeout: Duration) -> KafkaResult<Metadata> {
        self.fetch_metadata(topic, timeout)
    }

    /// There are no messages, as nothing is assigned.
    fn serve(&self) {
        (0..EVENTS_MAX)
            .take_while(|_| self.poll(Duration::ZERO).is_some())
            .for_each(drop);
    }
}

impl Asks for BaseProducer<Reports> {
    fn ask(&self, topic: Option<&str>, timeout: Duration) -> KafkaResult<Metadata> {
        self.client().fetch_metadata(topic, timeout)
    }

    fn serve(&self) {
        (0..EVENTS_MAX).for_each(|_| self.poll(Duration::ZERO));
    }
}

/// What a broker says of a topic.
struct TopicInfo {
    name: String,
    partitions: i32,
    error: Option<Code>,
}

fn topics_of(metadata: &Metadata) -> Vec<TopicInfo> {
    let info = |topic: &rdkafka::metadata::MetadataTopic| TopicInfo {
        name: topic.name().to_owned(),
        partitions: i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX),
        error: topic.error().map(Code::from),
    };
    metadata.topics().iter().map(info).collect()
}

/// Runs a blocking call of librdkafka.
pub(super) async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ConnectorError> {
    tokio::task::spawn_blocking(call)
        .await
        .map_err(|e| ConnectorError::failed(format!("kafka: a call did not end: {e}")))
}

/// Asks for metadata until there is an answer, at most for `patience`.
async fn metadata<A: Asks>(
    client: &Arc<A>,
    watch: &Watch,
    brokers: &str,
    topic: Option<&str>,
    patience: Duration,
) -> Result<Vec<TopicInfo>, ConnectorError> {
    let deadline = Instant::now() + patience;
    loop {
        let (asking, topic) = (Arc::clone(client), topic.map(str::to_owned));
        let left = deadline
            .saturating_duration_since(Instant::now())
            .min(SLICE);
        let ask = move || {
            let answer = asking
                .ask(topic.as_deref(), left)
                .map(|metadata| topics_of(&metadata));
            asking.serve();
            answer
        };
        let error = match blocking(ask).await? {
            Ok(topics) => return Ok(topics),
            Err(error) => error,
        };
        let refused = watch.is_refused();
        if refused || Instant::now() + PAUSE >= deadline {
            let why = watch.trouble().unwrap_or_else(|| {
                error
                    .rdkafka_error_code()
                    .map_or_else(|| error.to_string(), |code| code.to_string())
            });
            return Err(if refused {
                ConnectorError::invalid(format!(
                    "kafka: the brokers at {brokers} refuse the connection: {why}"
                ))
            } else {
                ConnectorError::unreachable(format!(
                    "kafka: no broker answers at {brokers} within {patience:?}: {why}; check `bootstrap.servers` and the brokers"
                ))
            });
        }
        tokio::time::sleep_until(Instant::now() + PAUSE).await;
    }
}

/// All partitions of the topics, as (topic, partition).
pub(super) async fn partitions<A: Asks>(
    client: Arc<A>,
    watch: Arc<Watch>,
    brokers: String,
    topics: Topics,
    patience: Duration,
) -> Result<Vec<(String, i32)>, ConnectorError> {
    let mut found = Vec::new();
    match topics {
        Topics::Names(names) => {
            for name in names {
                let count = partition_count(&client, &watch, &brokers, &name, patience).await?;
                found.extend((0..count).map(|partition| (name.clone(), partition)));
            }
        }
        Topics::Pattern(pattern) => {
            let topics = metadata(&client, &watch, &brokers, None, patience).await?;
            for topic in topics.iter().filter(|topic| pattern.is_match(&topic.name)) {
                found.extend((0..topic.partitions).map(|number| (topic.name.clone(), number)));
            }
        }
    }
    Ok(found)
}

/// The number of partitions of a topic, which must exist (or be created by asking for it).
async fn partition_count<A: Asks>(
    client: &Arc<A>,
    watch: &Watch,
    brokers: &str,
    name: &str,
    patience: Duration,
) -> Result<i32, ConnectorError> {
    let deadline = Instant::now() + patience.min(PROPAGATION);
    loop {
        let topics = metadata(client, watch, brokers, Some(name), patience).await?;
        let topic = topics.iter().find(|topic| topic.name == name);
        match topic.map(|topic| (topic.partitions, topic.error)) {
            Some((partitions, None)) if partitions > 0 => return Ok(partitions),
            Some((_, Some(Code::TopicAuthorizationFailed))) => {
                return Err(ConnectorError::invalid(format!(
                    "kafka: access to the topic \"{name}\" at {brokers} is denied; grant it or change the credentials"
                )));
            }
            _ if Instant::now() >= deadline => {
                return Err(ConnectorError::invalid(format!(
                    "kafka: the topic \"{name}\" does not exist at {brokers}; create it"
                )));
            }
            _ => tokio::time::sleep_until(Instant::now() + PAUSE).await,
        }
    }
}

fn brokers(client: &ClientConfig) -> String {
    let named = client
        .get("bootstrap.servers")
        .or_else(|| client.get("metadata.broker.list"));
    named.unwrap_or("?").to_owned()
}

impl SourceOptions {
    pub(super) fn brokers(&self) -> String {
        brokers(&self.client)
    }
}

impl SinkOptions {
    pub(super) fn brokers(&self) -> String {
        brokers(&self.client)
    }
}

impl Asks for Shared {
    fn ask(&self, topic: Option<&str>, timeout: Duration) -> KafkaResult<Metadata> {
        self.producer().client().fetch_metadata(topic, timeout)
    }

    /// Its own thread does that.
    fn serve(&self) {}
}

/// Makes a producer know the topic of a sink.
pub(super) async fn find_topic(
    producer: &Arc<Shared>,
    options: &SinkOptions,
) -> Result<(), ConnectorError> {
    let watch = producer.producer().context().watch();
    let brokers = options.brokers();
    partition_count(producer, &watch, &brokers, &options.topic, SILENCE_MAX)
        .await
        .map(drop)
}

/// Looks whether the topics of a source can be read.
pub(crate) async fn check_source(options: &SourceOptions) -> Result<(), ConnectorError> {
    let context = Context::default();
    let watch = Arc::clone(&context.watch);
    let consumer: BaseConsumer<Context> = options
        .client
        .create_with_context(context)
        .map_err(|e| errors::sort("kafka source: no client", &e, None))?;
    let consumer = Arc::new(consumer);
    let topics = options.topics.clone();
    let found = partitions(
        Arc::clone(&consumer),
        watch,
        options.brokers(),
        topics,
        PREFLIGHT,
    )
    .await;
    drop_elsewhere(consumer);
    let found = found?;
    if found.is_empty() {
        // Topics that match may be created later; the user should know what is there now.
        warn!("kafka source: no topic matches the pattern yet");
    }
    Ok(())
}

/// Looks whether the topic of a sink can be written; asking creates it where brokers do that.
pub(crate) async fn check_sink(options: &SinkOptions) -> Result<(), ConnectorError> {
    let context = Reports::default();
    let watch = context.watch();
    let producer: BaseProducer<Reports> = options
        .client
        .create_with_context(context)
        .map_err(|e| errors::sort("kafka sink: no client", &e, None))?;
    let producer = Arc::new(producer);
    let brokers = options.brokers();
    let found = partition_count(&producer, &watch, &brokers, &options.topic, PREFLIGHT).await;
    drop_elsewhere(producer);
    found.map(drop)
}

/// Drops a client, which may wait for its threads, where nobody waits for it.
pub(super) fn drop_elsewhere<T: Send + 'static>(client: T) {
    let dropping = std::thread::Builder::new().name("kafka-close".to_owned());
    if let Err(error) = dropping.spawn(move || drop(client)) {
        error!(%error, "no thread to close a kafka client");
    }
}
