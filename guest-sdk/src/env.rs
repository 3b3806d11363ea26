//! Where a job is described: sources, and the settings of the job as a whole.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use crate::chain::Chain;
use crate::connectors::Connector;
use crate::graph::{GraphDraft, VertexDraft, VertexIndex};
use crate::source::Source;

/// What becomes of records that an operator cannot handle, such as a value that is not JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RejectedRecords {
    /// They fail the job (the default).
    Fail,
    /// They are skipped and counted.
    Skip,
}

/// The job that is being described.
///
/// It is handed to the function marked with [`job`](crate::job), which runs once when the job is
/// submitted and once more for each of its parallel tasks. It must describe the same job each time:
/// nothing may depend on the clock, on randomness or on anything but its arguments.
#[derive(Clone)]
pub struct Env {
    shared: Rc<Shared>,
}

struct Shared {
    graph: RefCell<GraphDraft>,
    submitted: Vec<(String, String)>,
}

impl Env {
    pub(crate) fn new(submitted: Vec<(String, String)>) -> Self {
        Self {
            shared: Rc::new(Shared {
                graph: RefCell::default(),
                submitted,
            }),
        }
    }

    /// Begins a stream with what a connector reads, such as [`kafka::source`](crate::kafka::source).
    ///
    /// The source must be turned into values next: [`Source::decode`].
    pub fn source(&self, name: &str, connector: impl Into<Connector>) -> Source {
        let vertex = self.graph(GraphDraft::add_vertex);
        self.vertex(vertex, |draft| {
            draft.set_source(name, connector.into().into_inner());
        });
        Source::new(self.clone(), vertex)
    }

    /// Names the job. Without this it is called after its function.
    pub fn name(&self, name: &str) -> &Self {
        self.graph(|graph| graph.name = Some(name.to_owned()));
        self
    }

    /// Sets a configuration option of the job, by Flink's name for it.
    pub fn config(&self, key: &str, value: impl fmt::Display) -> &Self {
        self.graph(|graph| graph.set_config(key, value.to_string()));
        self
    }

    /// An option that the job was submitted with, or that it has set itself.
    #[must_use]
    pub fn config_value(&self, key: &str) -> Option<String> {
        let own = self.graph(|graph| {
            let found = graph.config.iter().find(|(known, _)| known == key);
            found.map(|(_, value)| value.clone())
        });
        let submitted = || {
            self.shared
                .submitted
                .iter()
                .rev()
                .find(|(known, _)| known == key)
        };
        own.or_else(|| submitted().map(|(_, value)| value.clone()))
    }

    /// Takes a checkpoint every `interval`.
    pub fn enable_checkpointing(&self, interval: Duration) -> &Self {
        self.config(
            "execution.checkpointing.interval",
            format!("{} ms", interval.as_millis()),
        )
    }

    /// Runs operators in tasks of their own rather than several in one, as far as the SDK has
    /// places to part them: before each sink.
    pub fn disable_operator_chaining(&self) -> &Self {
        self.config("pipeline.operator-chaining.enabled", false)
    }

    /// How many parallel tasks each operator has that does not say itself.
    pub fn parallelism(&self, parallelism: u32) -> &Self {
        self.config("parallelism.default", parallelism)
    }

    /// The largest parallelism the job can ever be rescaled to.
    pub fn max_parallelism(&self, max_parallelism: u32) -> &Self {
        self.config("pipeline.max-parallelism", max_parallelism)
    }

    /// What becomes of records that cannot be handled.
    pub fn on_rejected(&self, policy: RejectedRecords) -> &Self {
        let value = match policy {
            RejectedRecords::Fail => "fail",
            RejectedRecords::Skip => "skip",
        };
        self.config("tidemill.rejected-records", value)
    }

    /// Whether an option that is true or false is on.
    pub(crate) fn is_on(&self, key: &str, default: bool) -> bool {
        self.config_value(key)
            .map_or(default, |value| value.trim().eq_ignore_ascii_case("true"))
    }

    pub(crate) fn chaining(&self) -> bool {
        self.is_on("pipeline.operator-chaining.enabled", true)
    }

    pub(crate) fn combining(&self) -> bool {
        self.is_on("tidemill.pipeline.combine", true)
    }

    pub(crate) fn graph<R>(&self, f: impl FnOnce(&mut GraphDraft) -> R) -> R {
        f(&mut self.shared.graph.borrow_mut())
    }

    pub(crate) fn vertex<R>(
        &self,
        vertex: VertexIndex,
        f: impl FnOnce(&mut VertexDraft) -> R,
    ) -> R {
        f(self.shared.graph.borrow_mut().vertex(vertex))
    }

    pub(crate) fn set_chain(&self, vertex: VertexIndex, chain: impl Chain + 'static) {
        self.vertex(vertex, |draft| draft.set_chain(Box::new(chain)));
    }

    /// Takes the graph out. Pipes that are still alive may not touch it any more.
    pub(crate) fn take_graph(&self) -> GraphDraft {
        self.shared.graph.take()
    }
}

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Env")
            .field("submitted", &self.shared.submitted)
            .finish_non_exhaustive()
    }
}
