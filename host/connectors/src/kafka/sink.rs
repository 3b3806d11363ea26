//! The sink: hands records to a producer and counts the acknowledgements.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use rdkafka::{
    error::{KafkaError, RDKafkaErrorCode as Code},
    message::{Header, OwnedHeaders},
    producer::{BaseRecord, Producer as _},
};
use tidemill_types::{Batch, CheckpointId};

use super::{
    errors, metadata,
    options::SinkOptions,
    producer::{InFlight, ProducerPool, Shared, size},
};
use crate::{ConnectorError, Sink};

/// A sink waits when it has so much in flight: enough for a broker that is far away, little
/// enough for a barrier to pass soon.
pub(super) const IN_FLIGHT_BYTES_MAX: u64 = 8 << 20;
/// When the producer that it shares is full, a sink tries again so soon.
const FULL_PAUSE: Duration = Duration::from_millis(5);

/// The sink.
pub(crate) struct KafkaSink {
    options: SinkOptions,
    shared: Arc<Shared>,
    in_flight: Arc<InFlight>,
    sent: u64,
}

impl std::fmt::Debug for KafkaSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaSink")
            .field("topic", &self.options.topic)
            .finish_non_exhaustive()
    }
}

impl KafkaSink {
    /// Connects and finds the topic, so that the first record does not have to wait for either.
    pub(crate) async fn open(
        options: SinkOptions,
        pool: &ProducerPool,
    ) -> Result<Self, ConnectorError> {
        let shared = pool.get(&options.client)?;
        metadata::find_topic(&shared, &options).await?;
        Ok(Self {
            options,
            shared,
            in_flight: Arc::default(),
            sent: 0,
        })
    }

    /// An error of a record that was sent earlier.
    fn check(&self) -> Result<(), ConnectorError> {
        match self.in_flight.take_error() {
            Some(error) if self.options.acknowledged => Err(error),
            Some(error) => {
                tracing::warn!(%error, "kafka sink: records are lost, as `delivery-guarantee` = none allows");
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Hands one record over; gives it back if there is no room.
    fn send(
        &self,
        batch: &Batch,
        index: usize,
        headers: Option<OwnedHeaders>,
    ) -> Result<(), KafkaError> {
        let token = Arc::clone(&self.in_flight);
        let mut record: BaseRecord<'_, [u8], [u8], Arc<InFlight>> =
            BaseRecord::with_opaque_to(&self.options.topic, token);
        let (key, value) = (batch.keys.get(index), batch.values.get(index));
        record.key = key;
        record.payload = value;
        record.timestamp = batch.timestamps.get(index).copied().filter(|ms| *ms >= 0);
        record.headers = headers;
        let bytes = size(key.map_or(0, <[u8]>::len), value.map_or(0, <[u8]>::len));
        self.in_flight.add(bytes);
        self.shared.producer().send(record).map_err(|(error, _)| {
            self.in_flight.remove(bytes);
            error
        })
    }

    /// Waits until everything sent was acknowledged.
    async fn flush(&self) -> Result<(), ConnectorError> {
        loop {
            self.check()?;
            if self.in_flight.records() == 0 {
                // A failure may have come between the two looks.
                return self.check();
            }
            self.in_flight.changed().await;
        }
    }

    fn refused(&self, error: &KafkaError) -> ConnectorError {
        let fatal = self
            .shared
            .producer()
            .client()
            .fatal_error()
            .map(|(_, text)| text);
        let what = format!(
            "kafka sink: a record for \"{}\" is refused",
            self.options.topic
        );
        errors::sort(&what, error, fatal.as_deref())
    }
}

/// The headers of one record.
fn headers(batch: &Batch, index: usize) -> Option<OwnedHeaders> {
    if batch.headers.is_empty() {
        return None;
    }
    let of_record = |record: u32| record as usize == index;
    let first = batch
        .headers
        .partition_point(|h| (h.record as usize) < index);
    let mine = batch.headers[first..]
        .iter()
        .take_while(|h| of_record(h.record));
    let headers = mine.fold(OwnedHeaders::new(), |headers, h| {
        headers.insert(Header {
            key: &h.name,
            value: h.value.as_ref(),
        })
    });
    Some(headers)
}

#[async_trait]
impl Sink for KafkaSink {
    async fn write(&mut self, batch: Batch) -> Result<(), ConnectorError> {
        self.check()?;
        for index in 0..batch.len() {
            while self.in_flight.bytes() >= IN_FLIGHT_BYTES_MAX {
                self.in_flight.changed().await;
                self.check()?;
            }
            while let Err(error) = self.send(&batch, index, headers(&batch, index)) {
                if error.rdkafka_error_code() != Some(Code::QueueFull) {
                    return Err(self.refused(&error));
                }
                tokio::time::sleep_until(tokio::time::Instant::now() + FULL_PAUSE).await;
                self.check()?;
            }
            self.sent += 1;
        }
        Ok(())
    }

    async fn prepare(&mut self, _: CheckpointId) -> Result<Vec<Vec<u8>>, ConnectorError> {
        if self.options.acknowledged {
            self.flush().await?;
        }
        Ok(Vec::new())
    }

    async fn commit(&mut self, _: CheckpointId) -> Result<(), ConnectorError> {
        Ok(())
    }

    async fn finish(&mut self) -> Result<(), ConnectorError> {
        self.flush().await
    }

    #[expect(clippy::cast_precision_loss, reason = "metrics")]
    fn metrics(&self) -> Vec<(String, f64)> {
        vec![
            ("numRecordsSend".to_owned(), self.sent as f64),
            (
                "numRecordsSendErrors".to_owned(),
                self.in_flight.failed() as f64,
            ),
            (
                "numRecordsDelivered".to_owned(),
                self.in_flight.delivered() as f64,
            ),
        ]
    }
}
