//! `blackhole`: a sink that counts records and drops them. It has no options.

use async_trait::async_trait;
use tidemill_types::{Batch, CheckpointId, ConnectorConfig};

use crate::{ConnectorError, Sink, options::OptionReader};

/// The sink.
#[derive(Debug, Default)]
pub struct Blackhole {
    records: u64,
}

impl Blackhole {
    /// Checks the options (there are none) and opens the sink.
    ///
    /// # Errors
    ///
    /// [`ConnectorError::Invalid`] for any option.
    pub fn new(config: &ConnectorConfig) -> Result<Self, ConnectorError> {
        OptionReader::new("blackhole", &config.options).finish()?;
        Ok(Self::default())
    }
}

#[async_trait]
impl Sink for Blackhole {
    async fn write(&mut self, batch: Batch) -> Result<(), ConnectorError> {
        self.records += batch.len() as u64;
        Ok(())
    }

    async fn prepare(&mut self, _: CheckpointId) -> Result<Vec<Vec<u8>>, ConnectorError> {
        Ok(Vec::new())
    }

    async fn commit(&mut self, _: CheckpointId) -> Result<(), ConnectorError> {
        Ok(())
    }

    async fn finish(&mut self) -> Result<(), ConnectorError> {
        Ok(())
    }

    #[expect(clippy::cast_precision_loss, reason = "a metric")]
    fn metrics(&self) -> Vec<(String, f64)> {
        vec![("numRecordsSend".to_owned(), self.records as f64)]
    }
}
