//! The words of Tidemill: ids, record batches, the job graph, key groups and configuration values.
//!
//! No I/O and no clock in here; every other crate depends on this one.
//!
//! # Glossary
//!
//! | word | what it is |
//! |---|---|
//! | coordinator | accepts modules and jobs, schedules, coordinates checkpoints, serves REST |
//! | worker | offers slots and runs tasks |
//! | slot | the unit of capacity: one parallel slice of a job |
//! | module | an uploaded Wasm component: it plans a job and holds its operators |
//! | job graph | vertices (operator chains) and edges (exchanges), as planned by the module |
//! | execution graph | the job graph with every vertex multiplied by its parallelism |
//! | task, subtask | a vertex at run time; one of its parallel instances |
//! | attempt | how many times a job has been deployed; messages of an older attempt are refused |
//! | split | a part of a source that is read in order, such as a Kafka partition |
//! | key group | the unit in which keyed state moves when a job is rescaled |
//! | barrier | the mark in the streams that separates what belongs to a checkpoint from what follows |
//! | watermark | the event time up to which a stream is complete |
//! | tenant | who owns modules, jobs, state and quotas |

pub mod batch;
pub mod config;
pub mod error;
pub mod graph;
pub mod ids;
pub mod key_group;
pub mod module;
pub mod time;
pub mod timer;

pub use batch::{Batch, BatchBuilder, Column, ColumnError, Header};
pub use error::ErrorKind;
pub use graph::{
    ConnectorConfig, Edge, JobGraph, Operator, ShipStrategy, SinkBinding, SourceBinding, StateDecl,
    StateKind, Vertex,
};
pub use ids::{
    Attempt, CheckpointId, CoordinatorEpoch, JobId, ModuleId, SubtaskIndex, TaskId, TenantId,
    VertexId, WorkerId,
};
pub use key_group::{KeyGroup, KeyGroupRange};
pub use module::ModuleHash;
pub use time::{MAX_WATERMARK, NO_TIMESTAMP, NO_WATERMARK, Watermark};
pub use timer::{TimeDomain, TimerBatch};
