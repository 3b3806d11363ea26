//! A real Kafka broker, and reading and writing its topics in tests.

mod broker;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use parking_lot::Mutex;
use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer as _},
    message::{Header, Headers as _, OwnedHeaders},
    producer::{FutureProducer, FutureRecord},
    util::Timeout,
};

use self::broker::Broker;

const PATIENCE: Duration = Duration::from_secs(30);

/// A record to be produced.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// Unset: the producer chooses.
    pub partition: Option<i32>,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Unset: now.
    pub timestamp: Option<i64>,
    /// Headers.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Record {
    /// A record with a value only.
    #[must_use]
    pub fn value(value: impl Into<Vec<u8>>) -> Self {
        Self {
            value: Some(value.into()),
            ..Self::default()
        }
    }

    /// The same in a partition.
    #[must_use]
    pub fn in_partition(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }
}

/// A record that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadRecord {
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Its timestamp.
    pub timestamp: Option<i64>,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Option<Vec<u8>>,
    /// Its headers.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl ReadRecord {
    /// The value as text; empty if there is none.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(self.value.as_deref().unwrap_or_default()).into_owned()
    }
}

/// A running broker.
#[derive(Debug, Clone)]
pub struct Kafka {
    broker: Arc<Mutex<Broker>>,
    bootstrap: String,
}

impl Kafka {
    /// The broker that all tests of this process share, started on first use.
    ///
    /// # Errors
    ///
    /// When it cannot be fetched or does not come up.
    pub async fn start() -> anyhow::Result<Self> {
        static SHARED: tokio::sync::OnceCell<Kafka> = tokio::sync::OnceCell::const_new();
        SHARED.get_or_try_init(Self::start_own).await.cloned()
    }

    /// A broker of one's own, which may be stopped and restarted.
    ///
    /// # Errors
    ///
    /// When it cannot be fetched or does not come up.
    pub async fn start_own() -> anyhow::Result<Self> {
        let broker = tokio::task::spawn_blocking(Broker::start).await??;
        let kafka = Self {
            bootstrap: broker.bootstrap(),
            broker: Arc::new(Mutex::new(broker)),
        };
        kafka.wait_until_ready().await?;
        Ok(kafka)
    }

    /// `host:port` of the broker.
    #[must_use]
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    async fn wait_until_ready(&self) -> anyhow::Result<()> {
        let consumer: Arc<BaseConsumer> = Arc::new(self.client().create()?);
        crate::wait_until(PATIENCE, "the broker to answer", || {
            let consumer = Arc::clone(&consumer);
            let ask = move || {
                consumer
                    .fetch_metadata(None, Duration::from_secs(1))
                    .is_ok()
            };
            async move { tokio::task::spawn_blocking(ask).await.unwrap_or(false) }
        })
        .await
    }

    async fn with_broker(
        &self,
        action: impl FnOnce(&mut Broker) -> anyhow::Result<()> + Send + 'static,
    ) -> anyhow::Result<()> {
        let broker = Arc::clone(&self.broker);
        tokio::task::spawn_blocking(move || action(&mut broker.lock())).await?
    }

    /// Stops the broker cleanly and starts it again on the same port with the same data.
    ///
    /// # Errors
    ///
    /// When it does not come up again.
    pub async fn restart(&self) -> anyhow::Result<()> {
        self.stop().await?;
        self.start_again().await
    }

    /// Stops the broker cleanly.
    ///
    /// # Errors
    ///
    /// When it cannot be stopped.
    pub async fn stop(&self) -> anyhow::Result<()> {
        self.with_broker(Broker::stop).await
    }

    /// Kills the broker without notice.
    ///
    /// # Errors
    ///
    /// When it cannot be killed.
    pub async fn kill(&self) -> anyhow::Result<()> {
        self.with_broker(Broker::kill).await
    }

    /// Starts a stopped or killed broker.
    ///
    /// # Errors
    ///
    /// When it does not come up.
    pub async fn start_again(&self) -> anyhow::Result<()> {
        self.with_broker(Broker::start_again).await?;
        self.wait_until_ready().await
    }

    /// Freezes the broker: connections stay, nothing answers.
    ///
    /// # Errors
    ///
    /// When it is not running.
    pub async fn pause(&self) -> anyhow::Result<()> {
        self.with_broker(|broker| broker.freeze(true)).await
    }

    /// Lets a frozen broker go on.
    ///
    /// # Errors
    ///
    /// When it is not running.
    pub async fn resume(&self) -> anyhow::Result<()> {
        self.with_broker(|broker| broker.freeze(false)).await
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.bootstrap)
            .set("group.id", "testkit");
        config
    }

    fn admin(&self) -> anyhow::Result<AdminClient<DefaultClientContext>> {
        Ok(self.client().create()?)
    }

    /// Creates a topic.
    ///
    /// # Errors
    ///
    /// When the broker refuses.
    pub async fn create_topic(&self, name: &str, partitions: i32) -> anyhow::Result<()> {
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        self.create(topic).await
    }

    /// Creates a topic with settings of its own.
    ///
    /// # Errors
    ///
    /// When the broker refuses.
    pub async fn create_topic_with(
        &self,
        name: &str,
        partitions: i32,
        settings: &[(&str, &str)],
    ) -> anyhow::Result<()> {
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        self.create(
            settings
                .iter()
                .fold(topic, |topic, (key, value)| topic.set(key, value)),
        )
        .await
    }

    async fn create(&self, topic: NewTopic<'_>) -> anyhow::Result<()> {
        let (name, partitions) = (topic.name.to_owned(), topic.num_partitions);
        outcome(self.admin()?.create_topics([&topic], &options()).await?)?;
        let consumer: Arc<BaseConsumer> = Arc::new(self.client().create()?);
        crate::wait_until(PATIENCE, &format!("topic {name}"), || {
            let (consumer, name) = (Arc::clone(&consumer), name.clone());
            let ask = move || {
                let metadata = consumer.fetch_metadata(Some(&name), Duration::from_secs(5));
                metadata.is_ok_and(|metadata| {
                    let found = &metadata.topics()[0].partitions();
                    i32::try_from(found.len()) == Ok(partitions)
                        && found.iter().all(|partition| partition.leader() >= 0)
                })
            };
            async move { tokio::task::spawn_blocking(ask).await.unwrap_or(false) }
        })
        .await
    }

    /// Gives a topic more partitions.
    ///
    /// # Errors
    ///
    /// When the broker refuses.
    pub async fn add_partitions(&self, name: &str, total: usize) -> anyhow::Result<()> {
        let partitions = NewPartitions::new(name, total);
        outcome(
            self.admin()?
                .create_partitions([&partitions], &options())
                .await?,
        )
    }

    /// Deletes a topic.
    ///
    /// # Errors
    ///
    /// When the broker refuses.
    pub async fn delete_topic(&self, name: &str) -> anyhow::Result<()> {
        outcome(self.admin()?.delete_topics(&[name], &options()).await?)
    }

    /// Deletes the records of a partition that lie before an offset.
    ///
    /// # Errors
    ///
    /// When the broker refuses.
    pub async fn delete_records(
        &self,
        topic: &str,
        partition: i32,
        before: i64,
    ) -> anyhow::Result<()> {
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset(topic, partition, Offset::Offset(before))?;
        self.admin()?.delete_records(&offsets, &options()).await?;
        Ok(())
    }

    /// Writes records and waits until they are acknowledged.
    ///
    /// # Errors
    ///
    /// When one is not.
    pub async fn produce(
        &self,
        topic: &str,
        records: impl IntoIterator<Item = Record>,
    ) -> anyhow::Result<()> {
        let producer: FutureProducer = self.client().set("linger.ms", "1").create()?;
        let mut acknowledgements = Vec::new();
        for record in records {
            let headers =
                record
                    .headers
                    .iter()
                    .fold(OwnedHeaders::new(), |headers, (key, value)| {
                        headers.insert(Header {
                            key,
                            value: value.as_ref(),
                        })
                    });
            let mut message: FutureRecord<'_, Vec<u8>, Vec<u8>> = FutureRecord::to(topic);
            message.partition = record.partition;
            message.key = record.key.as_ref();
            message.payload = record.value.as_ref();
            message.timestamp = record.timestamp;
            message.headers = (!record.headers.is_empty()).then_some(headers);
            match producer.send_result(message) {
                Ok(acknowledgement) => acknowledgements.push(acknowledgement),
                Err((error, _)) => bail!("{topic}: {error}"),
            }
            if acknowledgements.len() >= 10_000 {
                for acknowledgement in acknowledgements.drain(..) {
                    acknowledgement.await?.map_err(|(error, _)| error)?;
                }
            }
        }
        for acknowledgement in acknowledgements {
            acknowledgement.await?.map_err(|(error, _)| error)?;
        }
        Ok(())
    }

    /// The offsets that a group has committed, by partition.
    ///
    /// # Errors
    ///
    /// When the broker does not answer.
    pub async fn committed(&self, group: &str, topic: &str) -> anyhow::Result<HashMap<i32, i64>> {
        let consumer: BaseConsumer = self.client().set("group.id", group).create()?;
        let topic = topic.to_owned();
        tokio::task::spawn_blocking(move || {
            let mut query = TopicPartitionList::new();
            for (partition, _) in ends(&consumer, &topic)? {
                query.add_partition(&topic, partition);
            }
            let found = consumer.committed_offsets(query, Timeout::After(PATIENCE))?;
            let offsets =
                found
                    .elements()
                    .into_iter()
                    .filter_map(|element| match element.offset() {
                        Offset::Offset(offset) => Some((element.partition(), offset)),
                        _ => None,
                    });
            Ok(offsets.collect::<HashMap<_, _>>())
        })
        .await?
    }

    /// Everything that is in a topic now.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub async fn read_all(&self, topic: &str) -> anyhow::Result<Vec<ReadRecord>> {
        self.read(topic, "read_uncommitted").await
    }

    /// Everything in a topic that is not part of an open or aborted transaction.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub async fn read_committed(&self, topic: &str) -> anyhow::Result<Vec<ReadRecord>> {
        self.read(topic, "read_committed").await
    }

    async fn read(&self, topic: &str, isolation: &str) -> anyhow::Result<Vec<ReadRecord>> {
        let mut config = self.client();
        config
            .set("isolation.level", isolation)
            .set("enable.partition.eof", "true");
        config
            .set("enable.auto.commit", "false")
            .set("check.crcs", "true");
        let topic = topic.to_owned();
        tokio::task::spawn_blocking(move || read_to_end(&config.create()?, &topic)).await?
    }

    /// Reads a topic again and again until `enough` says so.
    ///
    /// # Errors
    ///
    /// When that does not happen within `limit`.
    pub async fn read_until(
        &self,
        topic: &str,
        limit: Duration,
        mut enough: impl FnMut(&[ReadRecord]) -> bool,
    ) -> anyhow::Result<Vec<ReadRecord>> {
        let deadline = Instant::now() + limit;
        loop {
            let records = self.read_all(topic).await?;
            if enough(&records) {
                return Ok(records);
            }
            let count = records.len();
            ensure!(
                Instant::now() < deadline,
                "not enough in {topic} after {limit:?}: {count} records"
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(Timeout::After(PATIENCE)))
}

fn outcome(
    results: Vec<Result<String, (String, rdkafka::error::RDKafkaErrorCode)>>,
) -> anyhow::Result<()> {
    for result in results {
        result.map_err(|(topic, code)| anyhow::anyhow!("{topic}: {code}"))?;
    }
    Ok(())
}

/// Where the partitions of a topic end.
fn ends(consumer: &BaseConsumer, topic: &str) -> anyhow::Result<Vec<(i32, i64)>> {
    let metadata = consumer.fetch_metadata(Some(topic), Timeout::After(PATIENCE))?;
    let partitions = metadata
        .topics()
        .first()
        .context("the topic is named in the answer")?
        .partitions();
    let end = |partition: i32| {
        let (_, high) = consumer.fetch_watermarks(topic, partition, Timeout::After(PATIENCE))?;
        Ok((partition, high))
    };
    partitions
        .iter()
        .map(|partition| end(partition.id()))
        .collect()
}

fn read_to_end(consumer: &BaseConsumer, topic: &str) -> anyhow::Result<Vec<ReadRecord>> {
    let mut open: Vec<i32> = Vec::new();
    let mut assignment = TopicPartitionList::new();
    for (partition, end) in ends(consumer, topic)? {
        if end > 0 {
            open.push(partition);
            assignment.add_partition_offset(topic, partition, Offset::Beginning)?;
        }
    }
    consumer.assign(&assignment)?;
    let deadline = Instant::now() + PATIENCE;
    let mut records = Vec::new();
    while !open.is_empty() {
        ensure!(
            Instant::now() < deadline,
            "{topic} was not read to its end after {PATIENCE:?}"
        );
        match consumer.poll(Timeout::After(Duration::from_millis(200))) {
            None => {}
            Some(Ok(message)) => {
                let headers = message.headers().map_or_else(Vec::new, |headers| {
                    let owned =
                        |h: Header<'_, &[u8]>| (h.key.to_owned(), h.value.map(<[u8]>::to_vec));
                    headers.iter().map(owned).collect()
                });
                records.push(ReadRecord {
                    partition: message.partition(),
                    offset: message.offset(),
                    timestamp: message.timestamp().to_millis(),
                    key: message.key().map(<[u8]>::to_vec),
                    value: message.payload().map(<[u8]>::to_vec),
                    headers,
                });
            }
            Some(Err(rdkafka::error::KafkaError::PartitionEOF(partition))) => {
                open.retain(|open| *open != partition);
            }
            Some(Err(error)) => bail!("{topic}: {error}"),
        }
    }
    Ok(records)
}
