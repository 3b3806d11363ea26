//! Reading the job's results as they come.

use rdkafka::{
    ClientConfig, Message,
    consumer::{Consumer, StreamConsumer},
    error::KafkaError,
};

/// Reads a topic from its beginning, as they come.
pub struct Results {
    consumer: StreamConsumer,
}

impl std::fmt::Debug for Results {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Results").finish_non_exhaustive()
    }
}

impl Results {
    /// A reader of a topic with this many partitions.
    ///
    /// # Errors
    ///
    /// What librdkafka says.
    pub fn open(servers: &str, topic: &str, partitions: i32) -> Result<Self, KafkaError> {
        let consumer: StreamConsumer = ClientConfig::new()
            .set("bootstrap.servers", servers)
            .set("group.id", format!("results-{}", std::process::id()))
            .set("enable.auto.commit", "false")
            .create()?;
        let mut assignment = rdkafka::TopicPartitionList::new();
        for partition in 0..partitions {
            assignment.add_partition_offset(topic, partition, rdkafka::Offset::Beginning)?;
        }
        consumer.assign(&assignment)?;
        Ok(Self { consumer })
    }

    /// The next result. Safe to cancel.
    ///
    /// # Errors
    ///
    /// What librdkafka says.
    pub async fn next(&mut self) -> Result<Vec<u8>, KafkaError> {
        let message = self.consumer.recv().await?;
        Ok(message.payload().unwrap_or_default().to_vec())
    }
}
