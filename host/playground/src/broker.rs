//! A broker inside this process: librdkafka's mock cluster.
//!
//! Good for a demo: it keeps 5 MiB of each partition and drops the oldest silently, and it has no
//! real transactions. [`crate::generate`] therefore never runs far ahead of the results.

use rdkafka::{error::KafkaError, mocking::MockCluster, producer::DefaultProducerContext};

/// A running mock broker; it ends when this is dropped.
pub struct MockBroker {
    cluster: MockCluster<'static, DefaultProducerContext>,
}

impl std::fmt::Debug for MockBroker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("MockBroker")
            .field(&self.bootstrap_servers())
            .finish()
    }
}

impl MockBroker {
    /// Starts a broker with these topics.
    ///
    /// # Errors
    ///
    /// What librdkafka says.
    pub fn start(topics: &[&str], partitions: i32) -> Result<Self, KafkaError> {
        let cluster = MockCluster::new(1)?;
        for topic in topics {
            cluster.create_topic(topic, partitions, 1)?;
        }
        Ok(Self { cluster })
    }

    /// Its address.
    #[must_use]
    pub fn bootstrap_servers(&self) -> String {
        self.cluster.bootstrap_servers()
    }
}
