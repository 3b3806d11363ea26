//! The job graph while an author's function describes it: vertices with their operators, and the
//! chains that will run them.
//!
//! # Invariants
//!
//! 1. Positions (of vertices, operators, ports, states) only grow; what has been handed out stays.
//! 2. Ids that the author did not give follow from position and name, so that the same function
//!    with the same arguments always gives the same ids.

use crate::bindings::exports::tidemill::job::planner::{
    Connector, Edge, JobGraph, Operator, ShipStrategy, Sink, Source, State, Vertex,
};
use crate::chain::Chain;

/// An operator being described.
#[derive(Debug)]
struct OperatorDraft {
    name: String,
    uid: Option<String>,
    description: String,
    /// The SDK's own steps (decode, timestamps, …) only show in the vertex's name when the author
    /// named them.
    shown: bool,
}

/// A vertex being described.
#[derive(Default)]
pub(crate) struct VertexDraft {
    operators: Vec<OperatorDraft>,
    source: Option<Source>,
    /// Whether the author gave the source's id.
    source_uid_given: bool,
    sinks: Vec<SinkDraft>,
    states: Vec<State>,
    parallelism: Option<u32>,
    max_parallelism: Option<u32>,
    wants_watermarks: bool,
    makes_watermarks: bool,
    ports: u32,
    inputs: u32,
    chain: Option<Box<dyn Chain>>,
}

#[derive(Debug)]
struct SinkDraft {
    operator: u32,
    port: u32,
    connector: Connector,
}

/// The whole of it.
#[derive(Default)]
pub(crate) struct GraphDraft {
    pub(crate) name: Option<String>,
    pub(crate) config: Vec<(String, String)>,
    vertices: Vec<VertexDraft>,
    edges: Vec<Edge>,
}

/// A vertex's place in the graph.
pub(crate) type VertexIndex = u32;

impl GraphDraft {
    pub(crate) fn add_vertex(&mut self) -> VertexIndex {
        self.vertices.push(VertexDraft::default());
        position(self.vertices.len() - 1)
    }

    pub(crate) fn vertex(&mut self, index: VertexIndex) -> &mut VertexDraft {
        &mut self.vertices[index as usize]
    }

    /// Adds a vertex that is fed by a new port of `from`. Returns it and the port.
    pub(crate) fn add_downstream(
        &mut self,
        from: VertexIndex,
        strategy: ShipStrategy,
    ) -> (VertexIndex, u32) {
        let to = self.add_vertex();
        let port = self.connect(from, to, strategy);
        (to, port)
    }

    /// Leads a new port of `from` into a new input of `to`. Returns the port.
    pub(crate) fn connect(
        &mut self,
        from: VertexIndex,
        to: VertexIndex,
        strategy: ShipStrategy,
    ) -> u32 {
        let port = self.vertex(from).add_port();
        let parallelism = self.vertex(from).parallelism;
        let vertex = self.vertex(to);
        if vertex.inputs == 0 && strategy == ShipStrategy::Forward {
            vertex.parallelism = parallelism;
        }
        let input = vertex.inputs;
        vertex.inputs += 1;
        self.edges.push(Edge {
            from,
            port,
            to,
            input,
            strategy,
        });
        port
    }

    pub(crate) fn set_config(&mut self, key: &str, value: String) {
        match self.config.iter_mut().find(|(known, _)| known == key) {
            Some((_, old)) => *old = value,
            None => self.config.push((key.to_owned(), value)),
        }
    }

    /// Names and ids settled: the graph as the contract has it, and the chains.
    ///
    /// # Errors
    ///
    /// When a stream leads nowhere, two ids are the same, or there is nothing to run.
    pub(crate) fn finish(mut self, default_name: &str) -> Result<Finished, String> {
        if self.vertices.is_empty() {
            return Err("the job has no source: begin with `env.source(…)`".to_owned());
        }
        self.rebalance_where_parallelism_differs();
        let mut chains = Vec::new();
        let mut vertices = Vec::new();
        for (index, draft) in self.vertices.iter_mut().enumerate() {
            let (vertex, chain) = draft.finish(index)?;
            chains.push((chain, draft.ports));
            vertices.push(vertex);
        }
        refuse_duplicate_ids(&vertices)?;
        let graph = JobGraph {
            name: self.name.unwrap_or_else(|| default_name.to_owned()),
            vertices,
            edges: self.edges,
            config: self.config,
        };
        Ok(Finished { graph, chains })
    }
}

impl GraphDraft {
    /// Forwarding needs one task on each side for the other's.
    fn rebalance_where_parallelism_differs(&mut self) {
        let parallelism: Vec<_> = self
            .vertices
            .iter()
            .map(|vertex| vertex.parallelism)
            .collect();
        for edge in &mut self.edges {
            let differs = parallelism[edge.from as usize] != parallelism[edge.to as usize];
            if edge.strategy == ShipStrategy::Forward && differs {
                edge.strategy = ShipStrategy::Rebalance;
            }
        }
    }
}

/// A graph and what runs it: the chain and the number of ports of each vertex.
pub(crate) struct Finished {
    pub(crate) graph: JobGraph,
    pub(crate) chains: Vec<(Box<dyn Chain>, u32)>,
}

impl VertexDraft {
    pub(crate) fn set_source(&mut self, name: &str, connector: Connector) {
        self.source = Some(Source {
            uid: String::new(),
            name: name.to_owned(),
            connector,
            idle_timeout_ms: None,
        });
    }

    /// Adds an operator that shows in the vertex's name.
    pub(crate) fn add_operator(&mut self, name: &str, description: String) -> u32 {
        self.add(name, description, true)
    }

    /// Adds a step of the SDK's own, which does not show in the vertex's name.
    pub(crate) fn add_step(&mut self, name: &str, description: String) -> u32 {
        self.add(name, description, false)
    }

    fn add(&mut self, name: &str, description: String, shown: bool) -> u32 {
        self.operators.push(OperatorDraft {
            name: name.to_owned(),
            uid: None,
            description,
            shown,
        });
        position(self.operators.len() - 1)
    }

    pub(crate) fn add_port(&mut self) -> u32 {
        self.ports += 1;
        self.ports - 1
    }

    pub(crate) fn add_sink(&mut self, operator: u32, port: u32, connector: Connector) {
        self.sinks.push(SinkDraft {
            operator,
            port,
            connector,
        });
    }

    /// Adds a state of an operator. Returns its position.
    pub(crate) fn add_state(&mut self, state: State) -> u32 {
        self.states.push(state);
        position(self.states.len() - 1)
    }

    pub(crate) fn rename(&mut self, operator: Option<u32>, name: &str) {
        match (operator, &mut self.source) {
            (Some(operator), _) => {
                let operator = &mut self.operators[operator as usize];
                name.clone_into(&mut operator.name);
                operator.shown = true;
            }
            (None, Some(source)) => name.clone_into(&mut source.name),
            (None, None) => {}
        }
    }

    pub(crate) fn set_uid(&mut self, operator: Option<u32>, uid: &str) {
        match (operator, &mut self.source) {
            (Some(operator), _) => self.operators[operator as usize].uid = Some(uid.to_owned()),
            (None, Some(source)) => {
                uid.clone_into(&mut source.uid);
                self.source_uid_given = true;
            }
            (None, None) => {}
        }
    }

    pub(crate) fn set_parallelism(&mut self, parallelism: u32) {
        self.parallelism = Some(parallelism);
    }

    pub(crate) fn set_max_parallelism(&mut self, max_parallelism: u32) {
        self.max_parallelism = Some(max_parallelism);
    }

    pub(crate) fn set_idle_timeout(&mut self, idle_timeout_ms: u64) {
        if let Some(source) = &mut self.source {
            source.idle_timeout_ms = Some(idle_timeout_ms);
        }
    }

    pub(crate) fn want_watermarks(&mut self) {
        self.wants_watermarks = true;
    }

    pub(crate) fn make_watermarks(&mut self) {
        self.makes_watermarks = true;
    }

    pub(crate) fn set_chain(&mut self, chain: Box<dyn Chain>) {
        self.chain = Some(chain);
    }

    fn finish(&mut self, index: usize) -> Result<(Vertex, Box<dyn Chain>), String> {
        if self.operators.is_empty() {
            self.add_step("Forward", "Forward".to_owned());
        }
        let name = self.name();
        let Some(chain) = self.chain.take() else {
            return Err(format!(
                "the stream after `{name}` leads nowhere: end it with a sink, or with `.discard()`"
            ));
        };
        let operators: Vec<Operator> = (0..)
            .zip(&self.operators)
            .map(|(i, o)| o.finish(index, i))
            .collect();
        if let Some(source) = &mut self.source
            && !self.source_uid_given
        {
            source.uid = derived_uid(index, "source", &source.name);
        }
        let sinks = self
            .sinks
            .iter()
            .map(|sink| sink.finish(&operators))
            .collect();
        let head = self.source.as_ref().map(|source| source.uid.clone());
        let shown = self
            .operators
            .iter()
            .position(|operator| operator.shown)
            .unwrap_or(0);
        let uid = head.or_else(|| operators.get(shown).map(|operator| operator.uid.clone()));
        let vertex = Vertex {
            uid: uid.unwrap_or_else(|| derived_uid(index, "vertex", &name)),
            name,
            parallelism: self.parallelism,
            max_parallelism: self.max_parallelism,
            source: self.source.take(),
            operators,
            sinks,
            states: std::mem::take(&mut self.states),
            wants_watermarks: self.wants_watermarks,
            makes_watermarks: self.makes_watermarks,
        };
        Ok((vertex, chain))
    }

    /// The names of source and operators, joined as Flink joins them.
    fn name(&self) -> String {
        let source = self.source.iter().map(|source| source.name.as_str());
        let shown = self.operators.iter().filter(|operator| operator.shown);
        let mut names: Vec<&str> = source
            .chain(shown.map(|operator| operator.name.as_str()))
            .collect();
        if names.is_empty() {
            names = self
                .operators
                .iter()
                .map(|operator| operator.name.as_str())
                .collect();
        }
        names.join(" -> ")
    }
}

impl OperatorDraft {
    fn finish(&self, vertex: usize, position: usize) -> Operator {
        let uid = self.uid.clone();
        Operator {
            uid: uid.unwrap_or_else(|| derived_uid(vertex, &position.to_string(), &self.name)),
            name: self.name.clone(),
            description: self.description.clone(),
        }
    }
}

impl SinkDraft {
    fn finish(&self, operators: &[Operator]) -> Sink {
        let operator = &operators[self.operator as usize];
        Sink {
            uid: operator.uid.clone(),
            name: operator.name.clone(),
            port: self.port,
            connector: self.connector.clone(),
        }
    }
}

fn position(index: usize) -> u32 {
    u32::try_from(index).expect("a job has fewer parts than u32 can count")
}

/// An id out of a part's place and name: `2-0-clickevent-counter`.
fn derived_uid(vertex: usize, part: &str, name: &str) -> String {
    let mut slug = String::new();
    for c in name.chars() {
        if c.is_alphanumeric() {
            slug.extend(c.to_lowercase());
        } else if !slug.ends_with('-') && !slug.is_empty() {
            slug.push('-');
        }
    }
    format!("{vertex}-{part}-{}", slug.trim_end_matches('-'))
}

/// Two operators with one id could not be told apart when state is restored.
fn refuse_duplicate_ids(vertices: &[Vertex]) -> Result<(), String> {
    let mut seen = std::collections::BTreeMap::new();
    for vertex in vertices {
        let source = vertex
            .source
            .iter()
            .map(|source| (&source.uid, &source.name));
        let operators = vertex
            .operators
            .iter()
            .map(|operator| (&operator.uid, &operator.name));
        for (uid, name) in source.chain(operators) {
            if let Some(other) = seen.insert(uid, name) {
                return Err(format!("`{other}` and `{name}` have the same uid `{uid}`"));
            }
        }
    }
    Ok(())
}
