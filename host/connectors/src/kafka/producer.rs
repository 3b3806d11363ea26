//! Producers, shared by the sinks of a process whose properties are the same.
//!
//! A producer costs a thread of ours, two of librdkafka's and one per broker. What is not
//! transactional can be shared: each sink counts its own records by the token that it sends along.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use rdkafka::{
    ClientConfig, ClientContext, Message as _, Statistics,
    config::RDKafkaLogLevel,
    error::KafkaError,
    message::DeliveryResult,
    producer::{Producer as _, ProducerContext, ThreadedProducer},
};
use tokio::sync::Notify;

use super::{
    client::{Context, Watch, drop_elsewhere},
    errors,
};
use crate::ConnectorError;

/// What one sink has in flight.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    records: AtomicU64,
    bytes: AtomicU64,
    delivered: AtomicU64,
    failed: AtomicU64,
    error: Mutex<Option<ConnectorError>>,
    changed: Notify,
}

impl InFlight {
    pub(super) fn add(&self, bytes: u64) {
        self.records.fetch_add(1, Ordering::AcqRel);
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
    }

    /// A record is no longer in flight.
    pub(super) fn remove(&self, bytes: u64) {
        let records = self.records.fetch_sub(1, Ordering::AcqRel) - 1;
        let before = self.bytes.fetch_sub(bytes, Ordering::AcqRel);
        let crossed = before > WAKE_BYTES && before - bytes <= WAKE_BYTES;
        if records == 0 || crossed {
            self.changed.notify_one();
        }
    }

    pub(super) fn records(&self) -> u64 {
        self.records.load(Ordering::Acquire)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Acquire)
    }

    pub(super) fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    pub(super) fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// The first error since the last call.
    pub(super) fn take_error(&self) -> Option<ConnectorError> {
        self.error.lock().take()
    }

    /// Waits until something was delivered or failed that somebody may wait for.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    fn fail(&self, error: ConnectorError) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        self.error.lock().get_or_insert(error);
        self.changed.notify_one();
    }
}

/// A sink that waits for room is woken when its bytes in flight fall to this.
const WAKE_BYTES: u64 = super::sink::IN_FLIGHT_BYTES_MAX / 2;

/// Hands delivery reports to the sinks.
#[derive(Debug, Default)]
pub(super) struct Reports {
    client: Context,
}

impl Reports {
    pub(super) fn watch(&self) -> Arc<Watch> {
        Arc::clone(&self.client.watch)
    }
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.client.log(level, facility, text);
    }

    fn stats(&self, _: Statistics) {}

    fn error(&self, error: KafkaError, reason: &str) {
        self.client.error(error, reason);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Arc<InFlight>;

    fn delivery(&self, result: &DeliveryResult<'_>, sink: Arc<InFlight>) {
        let message = match result {
            Ok(message) => {
                sink.delivered.fetch_add(1, Ordering::Relaxed);
                message
            }
            Err((error, message)) => {
                let trouble = self.client.watch.trouble();
                let what = format!(
                    "kafka sink: a record for \"{}\" was not delivered",
                    message.topic()
                );
                sink.fail(errors::sort(&what, error, trouble.as_deref()));
                message
            }
        };
        sink.remove(size(message.key_len(), message.payload_len()));
    }
}

/// The bytes that count for a record.
pub(super) const fn size(key: usize, value: usize) -> u64 {
    (key + value) as u64 + 64
}

/// A producer.
pub(super) struct Shared {
    producer: Option<ThreadedProducer<Reports>>,
}

impl Shared {
    pub(super) fn producer(&self) -> &ThreadedProducer<Reports> {
        self.producer
            .as_ref()
            .expect("the producer is there until it is dropped")
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(producer) = self.producer.take() {
            drop_elsewhere(producer);
        }
    }
}

type Properties = BTreeMap<String, String>;

/// The producers of a process, by their properties.
#[derive(Clone, Default)]
pub(crate) struct ProducerPool {
    producers: Arc<Mutex<HashMap<Properties, Weak<Shared>>>>,
}

impl ProducerPool {
    /// The producer with these properties; a new one if there is none or it has failed for good.
    pub(super) fn get(&self, config: &ClientConfig) -> Result<Arc<Shared>, ConnectorError> {
        let key: Properties = config
            .config_map()
            .into_iter()
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect();
        let mut producers = self.producers.lock();
        producers.retain(|_, producer| producer.strong_count() > 0);
        if let Some(producer) = producers.get(&key).and_then(Weak::upgrade)
            && producer.producer().client().fatal_error().is_none()
        {
            return Ok(producer);
        }
        let mut config = config.clone();
        if config.get("client.id").is_none() {
            config.set("client.id", "tidemill");
        }
        let producer = config
            .create_with_context(Reports::default())
            .map_err(|e| errors::sort("kafka sink: no client", &e, None))?;
        let producer = Arc::new(Shared {
            producer: Some(producer),
        });
        producers.insert(key, Arc::downgrade(&producer));
        Ok(producer)
    }
}
