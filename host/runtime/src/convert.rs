//! Between the generated shapes and the host's own. Data moves, it is not copied.

use std::collections::BTreeMap;

use tidemill_types::{
    Batch, Column, ConnectorConfig, Edge, Header, JobGraph, Operator, ShipStrategy, SinkBinding,
    SourceBinding, StateDecl, StateKind, TimeDomain, TimerBatch, Vertex,
};

use crate::{
    bindings::{
        exports::tidemill::job::{planner, task},
        tidemill::job::{logging, state, types},
    },
    error::tidy,
    host::{Entries, Level, OperatorState, Progress, Rejected},
};

pub(crate) fn column(column: types::ColumnResult) -> Column {
    Column {
        data: column.data,
        ends: column.ends,
        nulls: column.nulls,
    }
}

pub(crate) fn column_result(column: Column) -> types::ColumnResult {
    types::ColumnResult {
        data: column.data,
        ends: column.ends,
        nulls: column.nulls,
    }
}

fn column_param(column: &Column) -> types::ColumnParam<'_> {
    types::ColumnParam {
        data: &column.data,
        ends: &column.ends,
        nulls: &column.nulls,
    }
}

pub(crate) fn batch(batch: types::BatchResult) -> Batch {
    let header = |h: types::HeaderResult| Header {
        record: h.record,
        name: h.name,
        value: h.value,
    };
    Batch {
        timestamps: batch.timestamps,
        keys: column(batch.keys),
        values: column(batch.values),
        headers: batch.headers.into_iter().map(header).collect(),
    }
}

pub(crate) fn header_params(batch: &Batch) -> Vec<types::HeaderParam<'_>> {
    fn header(header: &Header) -> types::HeaderParam<'_> {
        let Header {
            record,
            name,
            value,
        } = header;
        types::HeaderParam {
            record: *record,
            name,
            value: value.as_deref(),
        }
    }
    batch.headers.iter().map(header).collect()
}

pub(crate) fn batch_param<'a>(
    batch: &'a Batch,
    headers: &'a [types::HeaderParam<'a>],
) -> types::BatchParam<'a> {
    types::BatchParam {
        timestamps: &batch.timestamps,
        keys: column_param(&batch.keys),
        values: column_param(&batch.values),
        headers,
    }
}

pub(crate) fn entries(entries: state::Entries) -> Entries {
    Entries {
        keys: column(entries.keys),
        subkeys: column(entries.subkeys),
        values: column(entries.values),
        expiries: entries.expiries,
    }
}

pub(crate) fn entries_result(entries: Entries) -> state::Entries {
    state::Entries {
        keys: column_result(entries.keys),
        subkeys: column_result(entries.subkeys),
        values: column_result(entries.values),
        expiries: entries.expiries,
    }
}

pub(crate) fn timers(timers: types::TimerBatchResult) -> TimerBatch {
    TimerBatch {
        domain: match timers.domain {
            types::TimeDomain::EventTime => TimeDomain::EventTime,
            types::TimeDomain::ProcessingTime => TimeDomain::ProcessingTime,
        },
        operator: timers.operator,
        timestamps: timers.timestamps,
        keys: column(timers.keys),
        namespaces: column(timers.namespaces),
    }
}

pub(crate) fn timers_param(timers: &TimerBatch) -> types::TimerBatchParam<'_> {
    types::TimerBatchParam {
        domain: match timers.domain {
            TimeDomain::EventTime => types::TimeDomain::EventTime,
            TimeDomain::ProcessingTime => types::TimeDomain::ProcessingTime,
        },
        operator: timers.operator,
        timestamps: &timers.timestamps,
        keys: column_param(&timers.keys),
        namespaces: column_param(&timers.namespaces),
    }
}

pub(crate) const fn level(level: logging::Level) -> Level {
    match level {
        logging::Level::Trace => Level::Trace,
        logging::Level::Debug => Level::Debug,
        logging::Level::Info => Level::Info,
        logging::Level::Warn => Level::Warn,
        logging::Level::Error => Level::Error,
    }
}

pub(crate) fn progress(progress: task::Progress) -> Progress {
    let rejected = |r: task::Rejected| Rejected {
        record: r.record,
        operator: r.operator,
        message: tidy(&r.message),
    };
    Progress {
        watermark: progress.watermark,
        rejected: progress.rejected.into_iter().map(rejected).collect(),
        counts: progress.counts,
    }
}

pub(crate) fn operator_states(states: Vec<types::OperatorStateResult>) -> Vec<OperatorState> {
    states
        .into_iter()
        .map(|s| OperatorState {
            state: s.state,
            items: s.items,
        })
        .collect()
}

fn connector(connector: planner::Connector) -> ConnectorConfig {
    ConnectorConfig {
        kind: connector.kind,
        options: connector.options.into_iter().collect(),
    }
}

fn source(source: planner::Source) -> SourceBinding {
    SourceBinding {
        uid: source.uid,
        name: source.name,
        connector: connector(source.connector),
        idle_timeout_ms: source.idle_timeout_ms,
    }
}

fn sink(sink: planner::Sink) -> SinkBinding {
    SinkBinding {
        uid: sink.uid,
        name: sink.name,
        port: sink.port,
        connector: connector(sink.connector),
    }
}

fn operator(operator: planner::Operator) -> Operator {
    Operator {
        uid: operator.uid,
        name: operator.name,
        description: tidy(&operator.description),
    }
}

fn state_decl(state: planner::State) -> StateDecl {
    StateDecl {
        name: state.name,
        operator: state.operator,
        kind: match state.kind {
            planner::StateKind::Value => StateKind::Value,
            planner::StateKind::List => StateKind::List,
            planner::StateKind::Map => StateKind::Map,
            planner::StateKind::Reducing => StateKind::Reducing,
            planner::StateKind::Aggregating => StateKind::Aggregating,
            planner::StateKind::OperatorList => StateKind::OperatorList,
            planner::StateKind::OperatorUnion => StateKind::OperatorUnion,
            planner::StateKind::Broadcast => StateKind::Broadcast,
        },
        key_schema: state.key_schema,
        subkey_schema: state.subkey_schema,
        value_schema: state.value_schema,
        ttl_ms: state.ttl_ms,
    }
}

fn vertex(vertex: planner::Vertex) -> Vertex {
    Vertex {
        uid: vertex.uid,
        name: vertex.name,
        parallelism: vertex.parallelism,
        max_parallelism: vertex.max_parallelism,
        source: vertex.source.map(source),
        operators: vertex.operators.into_iter().map(operator).collect(),
        sinks: vertex.sinks.into_iter().map(sink).collect(),
        states: vertex.states.into_iter().map(state_decl).collect(),
        wants_watermarks: vertex.wants_watermarks,
        makes_watermarks: vertex.makes_watermarks,
    }
}

fn edge(edge: &planner::Edge) -> Edge {
    Edge {
        from: edge.from,
        port: edge.port,
        to: edge.to,
        input: edge.input,
        strategy: match edge.strategy {
            planner::ShipStrategy::Forward => ShipStrategy::Forward,
            planner::ShipStrategy::Hash => ShipStrategy::Hash,
            planner::ShipStrategy::Rebalance => ShipStrategy::Rebalance,
            planner::ShipStrategy::Rescale => ShipStrategy::Rescale,
            planner::ShipStrategy::Broadcast => ShipStrategy::Broadcast,
            planner::ShipStrategy::Global => ShipStrategy::Global,
        },
    }
}

pub(crate) fn job_graph(graph: planner::JobGraph) -> JobGraph {
    JobGraph {
        name: graph.name,
        vertices: graph.vertices.into_iter().map(vertex).collect(),
        edges: graph.edges.iter().map(edge).collect(),
        config: graph.config.into_iter().collect::<BTreeMap<_, _>>(),
    }
}
