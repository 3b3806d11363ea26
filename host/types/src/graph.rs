//! The job graph: what a module plans, in the host's own terms.
//!
//! The order of vertices, edges and states is the module's and carries meaning: instances name
//! them by position.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};

use crate::{VertexId, key_group::MAX_PARALLELISM_BOUND};

/// The most vertices a job may have.
pub const VERTICES_MAX: usize = 500;
/// The most operators one vertex may have.
pub const OPERATORS_MAX: usize = 200;
/// The longest name or uid, in bytes.
pub const NAME_BYTES_MAX: usize = 1_000;
/// The most ports of a vertex.
pub const PORTS_MAX: u32 = 100;

/// A planned job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobGraph {
    /// The job's name.
    pub name: String,
    /// Operator chains.
    pub vertices: Vec<Vertex>,
    /// Exchanges between them.
    pub edges: Vec<Edge>,
    /// Configuration set by the job itself.
    pub config: BTreeMap<String, String>,
}

/// A chain of operators that runs as one task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vertex {
    /// Identity across upgrades.
    pub uid: String,
    /// For people.
    pub name: String,
    /// Unset: the job's default.
    pub parallelism: Option<u32>,
    /// Unset: the job's default.
    pub max_parallelism: Option<u32>,
    /// Where it reads from, if not from edges.
    pub source: Option<SourceBinding>,
    /// What is inside.
    pub operators: Vec<Operator>,
    /// Ports that lead into connectors.
    pub sinks: Vec<SinkBinding>,
    /// State of the operators.
    pub states: Vec<StateDecl>,
    /// Whether the guest wants to be told of watermarks.
    pub wants_watermarks: bool,
    /// Whether the guest makes watermarks.
    pub makes_watermarks: bool,
}

impl Vertex {
    /// The id that Flink's API shows: derived from the uid.
    #[must_use]
    pub fn id(&self) -> VertexId {
        VertexId::from_name(&self.uid)
    }
}

/// A source of a vertex.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceBinding {
    /// Identity across upgrades.
    pub uid: String,
    /// For people.
    pub name: String,
    /// What it is.
    pub connector: ConnectorConfig,
    /// After how long without records a split stops holding the watermark back.
    pub idle_timeout_ms: Option<u64>,
}

/// A port of a vertex that leads into a connector.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkBinding {
    /// Identity across upgrades.
    pub uid: String,
    /// For people.
    pub name: String,
    /// The port.
    pub port: u32,
    /// What it is.
    pub connector: ConnectorConfig,
}

/// A connector and its options.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectorConfig {
    /// `kafka`, `datagen`, `file`, …
    pub kind: String,
    /// Documented with each connector.
    pub options: BTreeMap<String, String>,
}

/// An operator inside a chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operator {
    /// Identity across upgrades.
    pub uid: String,
    /// For people.
    pub name: String,
    /// What it does, for people.
    pub description: String,
}

/// A state of an operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateDecl {
    /// Unique within its operator.
    pub name: String,
    /// Position of the operator in the vertex.
    pub operator: u32,
    /// What kind of state.
    pub kind: StateKind,
    /// Avro schema of the key; empty without.
    pub key_schema: String,
    /// Avro schema of the sub-key; empty without.
    pub subkey_schema: String,
    /// Avro schema of the value.
    pub value_schema: String,
    /// Time to live.
    pub ttl_ms: Option<u64>,
}

/// Kinds of state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StateKind {
    /// One value per key.
    Value,
    /// A list per key.
    List,
    /// A map per key.
    Map,
    /// One value per key, combined by a function.
    Reducing,
    /// One accumulator per key.
    Aggregating,
    /// A list per subtask, split evenly on rescale.
    OperatorList,
    /// A list per subtask, given whole to everyone on rescale.
    OperatorUnion,
    /// The same map in every subtask.
    Broadcast,
}

impl StateKind {
    /// Whether the state belongs to keys (and so to key groups).
    #[must_use]
    pub const fn is_keyed(self) -> bool {
        matches!(
            self,
            Self::Value | Self::List | Self::Map | Self::Reducing | Self::Aggregating
        )
    }
}

/// An exchange between two vertices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edge {
    /// Position of the upstream vertex.
    pub from: u32,
    /// Its port.
    pub port: u32,
    /// Position of the downstream vertex.
    pub to: u32,
    /// Its input.
    pub input: u32,
    /// Which subtasks a record goes to.
    pub strategy: ShipStrategy,
}

/// Which downstream subtasks a record goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ShipStrategy {
    /// To the subtask with the same index.
    Forward,
    /// By key group.
    Hash,
    /// Round robin over all.
    Rebalance,
    /// Round robin over a local share.
    Rescale,
    /// To all.
    Broadcast,
    /// To the first.
    Global,
}

impl ShipStrategy {
    /// As Flink's API writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Forward => "FORWARD",
            Self::Hash => "HASH",
            Self::Rebalance => "REBALANCE",
            Self::Rescale => "RESCALE",
            Self::Broadcast => "BROADCAST",
            Self::Global => "GLOBAL",
        }
    }
}

/// Why a planned graph is not acceptable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the module planned an invalid job: {0}")]
pub struct InvalidGraph(pub String);

impl JobGraph {
    /// Checks everything that the rest of the system relies on. The graph comes from a guest.
    ///
    /// # Errors
    ///
    /// [`InvalidGraph`] says which rule is broken and where.
    pub fn validate(&self) -> Result<(), InvalidGraph> {
        check_name("job name", &self.name)?;
        if self.vertices.is_empty() {
            return Err(InvalidGraph(
                "it has no vertices; a job needs a source and a sink".into(),
            ));
        }
        if self.vertices.len() > VERTICES_MAX {
            return Err(InvalidGraph(format!("more than {VERTICES_MAX} vertices")));
        }
        let mut uids = HashSet::new();
        for vertex in &self.vertices {
            vertex.validate()?;
            if !uids.insert(vertex.uid.as_str()) {
                return Err(InvalidGraph(format!(
                    "two vertices have the uid \"{}\"",
                    vertex.uid
                )));
            }
        }
        self.validate_edges()?;
        self.topological_order().map(drop)
    }

    fn validate_edges(&self) -> Result<(), InvalidGraph> {
        let mut inputs = HashSet::new();
        for edge in &self.edges {
            let (Some(from), Some(to)) = (
                self.vertices.get(edge.from as usize),
                self.vertices.get(edge.to as usize),
            ) else {
                return Err(InvalidGraph(format!(
                    "an edge from vertex {} to {} of {}",
                    edge.from,
                    edge.to,
                    self.vertices.len()
                )));
            };
            if edge.port >= PORTS_MAX || edge.input >= PORTS_MAX {
                return Err(InvalidGraph(format!(
                    "\"{}\" has too many ports",
                    from.name
                )));
            }
            if to.source.is_some() {
                return Err(InvalidGraph(format!(
                    "\"{}\" has both a source and an input",
                    to.name
                )));
            }
            if from.sinks.iter().any(|sink| sink.port == edge.port) {
                return Err(InvalidGraph(format!(
                    "port {} of \"{}\" leads to a sink and to an edge",
                    edge.port, from.name
                )));
            }
            if !inputs.insert((edge.from, edge.port, edge.to, edge.input)) {
                return Err(InvalidGraph(format!(
                    "the same edge out of \"{}\" twice",
                    from.name
                )));
            }
        }
        for (index, vertex) in (0u32..).zip(&self.vertices) {
            if vertex.source.is_none() && !self.edges.iter().any(|edge| edge.to == index) {
                return Err(InvalidGraph(format!(
                    "\"{}\" has neither source nor input",
                    vertex.name
                )));
            }
        }
        Ok(())
    }

    /// Positions of the vertices, each after all that feed it.
    ///
    /// # Errors
    ///
    /// [`InvalidGraph`] when there is a cycle.
    pub fn topological_order(&self) -> Result<Vec<u32>, InvalidGraph> {
        let mut missing = vec![0usize; self.vertices.len()];
        for edge in &self.edges {
            missing[edge.to as usize] += 1;
        }
        let mut order: Vec<u32> = (0u32..)
            .zip(&missing)
            .filter(|(_, m)| **m == 0)
            .map(|(v, _)| v)
            .collect();
        let mut next = 0;
        while let Some(&vertex) = order.get(next) {
            next += 1;
            for edge in self.edges.iter().filter(|edge| edge.from == vertex) {
                missing[edge.to as usize] -= 1;
                if missing[edge.to as usize] == 0 {
                    order.push(edge.to);
                }
            }
        }
        if order.len() == self.vertices.len() {
            Ok(order)
        } else {
            Err(InvalidGraph("its vertices form a cycle".into()))
        }
    }

    /// The edges that lead into a vertex, in graph order.
    pub fn inputs_of(&self, vertex: u32) -> impl Iterator<Item = &Edge> {
        self.edges.iter().filter(move |edge| edge.to == vertex)
    }

    /// The edges that leave a vertex, in graph order.
    pub fn outputs_of(&self, vertex: u32) -> impl Iterator<Item = &Edge> {
        self.edges.iter().filter(move |edge| edge.from == vertex)
    }
}

impl Vertex {
    fn validate(&self) -> Result<(), InvalidGraph> {
        check_name("vertex name", &self.name)?;
        check_name("vertex uid", &self.uid)?;
        if self.operators.len() > OPERATORS_MAX {
            return Err(InvalidGraph(format!(
                "\"{}\" has more than {OPERATORS_MAX} operators",
                self.name
            )));
        }
        for operator in &self.operators {
            check_name("operator name", &operator.name)?;
            check_name("operator uid", &operator.uid)?;
        }
        for (what, value) in [
            ("parallelism", self.parallelism),
            ("max parallelism", self.max_parallelism),
        ] {
            if value.is_some_and(|p| p == 0 || p > MAX_PARALLELISM_BOUND) {
                return Err(InvalidGraph(format!(
                    "the {what} of \"{}\" is not between 1 and {MAX_PARALLELISM_BOUND}",
                    self.name
                )));
            }
        }
        let mut ports = HashSet::new();
        for sink in &self.sinks {
            check_name("sink name", &sink.name)?;
            check_name("sink uid", &sink.uid)?;
            if sink.port >= PORTS_MAX || !ports.insert(sink.port) {
                return Err(InvalidGraph(format!(
                    "sink port {} of \"{}\" is out of range or used twice",
                    sink.port, self.name
                )));
            }
        }
        let mut states = HashSet::new();
        for state in &self.states {
            check_name("state name", &state.name)?;
            if state.operator as usize >= self.operators.len()
                || !states.insert((state.operator, state.name.as_str()))
            {
                return Err(InvalidGraph(format!(
                    "state \"{}\" of \"{}\" has no operator or a name used twice",
                    state.name, self.name
                )));
            }
        }
        Ok(())
    }
}

fn check_name(what: &str, name: &str) -> Result<(), InvalidGraph> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err(InvalidGraph(format!(
            "a {what} of {} bytes; 1 to {NAME_BYTES_MAX} are allowed",
            name.len()
        )));
    }
    if name.chars().any(char::is_control) {
        return Err(InvalidGraph(format!("a {what} with control characters")));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
