//! Asking brokers in bounded time what topics and partitions they have.

use std::{sync::Arc, time::Duration};

use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer as _, StreamConsumer},
    error::{KafkaResult, RDKafkaErrorCode as Code},
    metadata::Metadata,
    producer::{BaseProducer, Producer as _},
};
use tokio::time::Instant;
use tracing::warn;

use super::{
    client::{Context, Watch, blocking, drop_elsewhere},
    errors,
    options::{SinkOptions, SourceOptions, Topics},
    producer::{Reports, Shared},
};
use crate::ConnectorError;

/// How long brokers may be silent, when a connector opens and while it runs.
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
