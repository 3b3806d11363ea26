//! A small job for tests: a source, then a keyed operator with a sink.

use std::collections::BTreeMap;

use tidemill_types::{
    Attempt, ConnectorConfig, Edge, JobGraph, JobId, KeyGroupRange, Operator, ShipStrategy,
    SinkBinding, SourceBinding, StateDecl, StateKind, SubtaskIndex, TaskId, TenantId, Vertex,
};

use crate::{
    CheckpointCoordinator, CheckpointSettings, Decision, KeyedHandle, Manifest, OperatorStatePart,
    PublishPermit, SinkState, SplitState, SubtaskState, manifest::ManifestHeader,
};

pub(crate) fn task(vertex: u32, subtask: u32) -> TaskId {
    TaskId {
        job: JobId::from_u128(7),
        attempt: Attempt(0),
        vertex,
        subtask: SubtaskIndex(subtask),
    }
}

fn connector(kind: &str) -> ConnectorConfig {
    ConnectorConfig {
        kind: kind.into(),
        options: BTreeMap::new(),
    }
}

pub(crate) fn state(name: &str, kind: StateKind) -> StateDecl {
    StateDecl {
        name: name.into(),
        operator: 0,
        kind,
        key_schema: "\"string\"".into(),
        subkey_schema: String::new(),
        value_schema: "\"long\"".into(),
        ttl_ms: None,
    }
}

fn vertex(uid: &str) -> Vertex {
    Vertex {
        uid: uid.into(),
        name: uid.to_uppercase(),
        parallelism: None,
        max_parallelism: None,
        source: None,
        operators: vec![Operator {
            uid: format!("{uid}-op"),
            name: uid.into(),
            description: uid.into(),
        }],
        sinks: Vec::new(),
        states: Vec::new(),
        wants_watermarks: false,
        makes_watermarks: false,
    }
}

pub(crate) fn graph() -> JobGraph {
    let mut source = vertex("read");
    source.source = Some(SourceBinding {
        uid: "clicks".into(),
        name: "clicks".into(),
        connector: connector("datagen"),
        idle_timeout_ms: None,
    });
    source.states = vec![
        state("list", StateKind::OperatorList),
        state("union", StateKind::OperatorUnion),
        state("rules", StateKind::Broadcast),
    ];
    let mut count = vertex("count");
    count.states = vec![state("counts", StateKind::Value)];
    count.sinks = vec![SinkBinding {
        uid: "out".into(),
        name: "out".into(),
        port: 0,
        connector: connector("print"),
    }];
    let edge = Edge {
        from: 0,
        port: 0,
        to: 1,
        input: 0,
        strategy: ShipStrategy::Hash,
    };
    let graph = JobGraph {
        name: "test".into(),
        vertices: vec![source, count],
        edges: vec![edge],
        config: BTreeMap::new(),
    };
    graph.validate().expect("the fixture is a valid graph");
    graph
}

/// What a subtask of the source acknowledges: a split, and two items of each operator state.
pub(crate) fn source_state(subtask: u32) -> SubtaskState {
    let part = |name: &str, items: &[String]| OperatorStatePart {
        operator_uid: "read-op".into(),
        state: name.into(),
        items: items.iter().map(|item| item.clone().into_bytes()).collect(),
    };
    let own = [format!("{subtask}a"), format!("{subtask}b")];
    SubtaskState {
        source: vec![SplitState {
            split: subtask.to_string(),
            state: vec![1, 2, 3],
        }],
        operators: vec![
            part("list", &own),
            part("union", &own),
            part("rules", &["same".into()]),
        ],
        ..SubtaskState::default()
    }
}

/// What a subtask of the counting vertex acknowledges: its key groups, and one committable.
pub(crate) fn count_state(subtask: u32, parallelism: u32) -> SubtaskState {
    let range = KeyGroupRange::of_subtask(subtask, parallelism, 128);
    SubtaskState {
        sinks: vec![SinkState {
            uid: "out".into(),
            committables: vec![format!("txn-{subtask}").into()],
        }],
        keyed: vec![KeyedHandle::inline(range, vec![0; 8])],
        ..SubtaskState::default()
    }
}

/// A permit of a checkpoint that all tasks have acknowledged.
pub(crate) fn permit(parallelism: &[u32]) -> PublishPermit {
    let tasks: Vec<TaskId> = (0u32..)
        .zip(parallelism)
        .flat_map(|(v, &p)| (0..p).map(move |s| task(v, s)))
        .collect();
    let settings = CheckpointSettings {
        interval_ms: Some(10),
        ..CheckpointSettings::default()
    };
    let mut coordinator = CheckpointCoordinator::new(settings, tasks.clone(), 1.into_id(), 0);
    for &task in &tasks {
        coordinator.task_running(task);
    }
    assert!(matches!(
        coordinator.tick(10)[..],
        [Decision::Trigger { .. }]
    ));
    let mut decisions = Vec::new();
    for task in tasks {
        let state = match task.vertex {
            0 => source_state(task.subtask.0),
            _ => count_state(task.subtask.0, parallelism[1]),
        };
        decisions = coordinator.ack(task, 1.into_id(), state);
    }
    match decisions.pop() {
        Some(Decision::Publish(permit)) => permit,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn manifest(parallelism: &[u32]) -> Manifest {
    let header = ManifestHeader {
        job: JobId::from_u128(7),
        job_name: "test".into(),
        tenant: TenantId::default_tenant(),
        created_at_ms: 1_700_000_000_000,
        module_hash: "ab".repeat(32),
    };
    let max = vec![128; parallelism.len()];
    Manifest::new(header, &graph(), parallelism, &max, permit(parallelism))
        .expect("the graph's own tasks")
}

pub(crate) trait IntoId {
    fn into_id(self) -> tidemill_types::CheckpointId;
}

impl IntoId for u64 {
    fn into_id(self) -> tidemill_types::CheckpointId {
        tidemill_types::CheckpointId(self)
    }
}
