//! Opens connectors by kind.

use std::{fmt, sync::Arc};

use futures::future::{try_join, try_join_all};
use tidemill_types::{ConnectorConfig, JobGraph};

use crate::{
    ConnectorError, PrintOutput, Sink, SinkContext, Source, SourceContext, SplitState,
    blackhole::Blackhole,
    datagen::{self, Datagen},
    file::{self, FileSink, FileSource},
    kafka::{self, KafkaSink, KafkaSource, ProducerPool, SinkOptions, SourceOptions},
    print::{self, Print, ProcessOutput},
};

/// The kinds that can be read from.
const SOURCES: [&str; 3] = ["datagen", "file", "kafka"];
/// The kinds that can be written to.
const SINKS: [&str; 4] = ["blackhole", "file", "kafka", "print"];

/// All connectors, with what the subtasks of one process share.
#[derive(Clone)]
pub struct Registry {
    print: Arc<dyn PrintOutput>,
    producers: ProducerPool,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}

impl Registry {
    /// All connectors; `print` goes to the standard streams of this process.
    #[must_use]
    pub fn standard() -> Self {
        Self {
            print: Arc::new(ProcessOutput),
            producers: ProducerPool::default(),
        }
    }

    /// The same, but `print` goes elsewhere.
    #[must_use]
    pub fn with_print(mut self, print: Arc<dyn PrintOutput>) -> Self {
        self.print = print;
        self
    }

    /// Opens a source.
    ///
    /// `restored` holds the positions of **all** former subtasks if there was a checkpoint; the
    /// source takes what falls to this one.
    ///
    /// # Errors
    ///
    /// [`ConnectorError`] for wrong options, an other side that does not answer, or positions that
    /// do not exist any more.
    pub async fn open_source(
        &self,
        config: &ConnectorConfig,
        cx: SourceContext,
        restored: Option<Vec<SplitState>>,
    ) -> Result<Box<dyn Source>, ConnectorError> {
        match config.kind.as_str() {
            "datagen" => Ok(Box::new(Datagen::new(config, &cx, restored)?)),
            "file" => {
                let options = file::SourceOptions::read(config)?;
                Ok(Box::new(FileSource::open(options, cx, restored).await?))
            }
            "kafka" => {
                let options = SourceOptions::read(config)?;
                Ok(Box::new(KafkaSource::open(options, cx, restored).await?))
            }
            _ => Err(unknown("source", &config.kind, &SOURCES)),
        }
    }

    /// Opens a sink.
    ///
    /// `restored` holds what [`Sink::prepare`] returned for the checkpoint that is restored, of
    /// all former subtasks that fall to this one; it is committed before this returns.
    ///
    /// # Errors
    ///
    /// [`ConnectorError`] for wrong options, or when the other side does not answer.
    pub async fn open_sink(
        &self,
        config: &ConnectorConfig,
        cx: SinkContext,
        restored: Vec<Vec<u8>>,
    ) -> Result<Box<dyn Sink>, ConnectorError> {
        match config.kind.as_str() {
            "blackhole" => Ok(Box::new(Blackhole::new(config)?)),
            "file" => {
                let options = file::SinkOptions::read(config)?;
                Ok(Box::new(FileSink::open(options, &cx, restored).await?))
            }
            "kafka" => Ok(Box::new(
                KafkaSink::open(SinkOptions::read(config)?, &self.producers).await?,
            )),
            "print" => Ok(Box::new(Print::new(config, cx, Arc::clone(&self.print))?)),
            _ => Err(unknown("sink", &config.kind, &SINKS)),
        }
    }

    /// Checks the options of a source, without reaching out.
    ///
    /// # Errors
    ///
    /// [`ConnectorError::Invalid`] names what is wrong.
    pub fn validate_source(&self, config: &ConnectorConfig) -> Result<(), ConnectorError> {
        match config.kind.as_str() {
            "datagen" => datagen::validate(config),
            "file" => file::SourceOptions::read(config).map(drop),
            "kafka" => SourceOptions::read(config).map(drop),
            _ => Err(unknown("source", &config.kind, &SOURCES)),
        }
    }

    /// Checks the options of a sink, without reaching out.
    ///
    /// # Errors
    ///
    /// [`ConnectorError::Invalid`] names what is wrong.
    pub fn validate_sink(&self, config: &ConnectorConfig) -> Result<(), ConnectorError> {
        match config.kind.as_str() {
            "blackhole" => Blackhole::new(config).map(drop),
            "file" => file::SinkOptions::read(config).map(drop),
            "kafka" => SinkOptions::read(config).map(drop),
            "print" => print::validate(config),
            _ => Err(unknown("sink", &config.kind, &SINKS)),
        }
    }

    /// Looks whether everything that a job names can be reached: before it starts, in bounded time.
    ///
    /// # Errors
    ///
    /// [`ConnectorError`] names the first source or sink that cannot be used, and why.
    pub async fn preflight(&self, graph: &JobGraph) -> Result<(), ConnectorError> {
        let sources = graph
            .vertices
            .iter()
            .filter_map(|vertex| vertex.source.as_ref());
        let sources = sources.map(|source| self.check_source(&source.connector));
        let sinks = graph.vertices.iter().flat_map(|vertex| &vertex.sinks);
        let sinks = sinks.map(|sink| self.check_sink(&sink.connector));
        try_join(try_join_all(sources), try_join_all(sinks))
            .await
            .map(drop)
    }

    async fn check_source(&self, config: &ConnectorConfig) -> Result<(), ConnectorError> {
        self.validate_source(config)?;
        match config.kind.as_str() {
            "file" => file::SourceOptions::read(config)?.check().await,
            "kafka" => kafka::check_source(&SourceOptions::read(config)?).await,
            _ => Ok(()),
        }
    }

    async fn check_sink(&self, config: &ConnectorConfig) -> Result<(), ConnectorError> {
        self.validate_sink(config)?;
        match config.kind.as_str() {
            "file" => file::SinkOptions::read(config)?.check().await,
            "kafka" => kafka::check_sink(&SinkOptions::read(config)?).await,
            _ => Ok(()),
        }
    }
}

fn unknown(role: &str, kind: &str, known: &[&str]) -> ConnectorError {
    let known = known.join(", ");
    ConnectorError::invalid(format!("there is no {role} \"{kind}\"; there are {known}"))
}
