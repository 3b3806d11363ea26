//! Everything a task needs before its first record.
//!
//! Channels are registered first, so that peers which come up earlier can connect; then the guest
//! is started and its plan compared with the submitted one; then state is restored.

use std::{collections::BTreeMap, sync::Arc};

use tidemill_checkpoint::{KeyedHandle, StateLocation, TaskRestore};
use tidemill_connectors::{Registry, SinkContext, Source, SourceContext, SplitState};
use tidemill_runtime::{GuestEnv, Limits, OpenRequest, OperatorState, PlanRequest};
use tidemill_state::{KeyedState, UnknownState};
use tidemill_storage::Location;
use tidemill_types::{JobGraph, KeyGroupRange, SourceBinding, config::keys};
use tokio::{runtime::Handle, sync::mpsc};

use super::{
    Control, TaskContext, TaskError, TaskSpec,
    host::{Host, Shared},
    outputs::{EdgeOutput, Outputs, SinkOutput},
    running::Running,
    topology,
};
use crate::exchange::{ChannelId, InputGate, Partitioner};

/// Where a task's records come from.
pub(crate) enum Input {
    Source(SourceInput),
    Gate(GateInput),
}

/// An opened source.
pub(crate) struct SourceInput {
    pub(crate) binding: SourceBinding,
    pub(crate) source: Box<dyn Source>,
}

/// Registered channels, and the input of the guest that each leads to.
pub(crate) struct GateInput {
    pub(crate) gate: InputGate,
    pub(crate) guest_inputs: Vec<u32>,
}

/// Sets a task up.
///
/// # Errors
///
/// [`TaskError`] of the step that failed.
pub(crate) async fn set_up(
    cx: TaskContext,
    control: mpsc::Receiver<Control>,
) -> Result<(Running, Input), TaskError> {
    let gate = register_gate(&cx);
    let outputs = open_outputs(&cx).await?;
    let spec = cx.spec.clone();
    let state = restore_keyed(&spec).await?;
    let shared = Arc::new(Shared::new(
        outputs,
        state,
        Arc::clone(&cx.metrics),
        spec.name(),
    ));
    let module = cx
        .modules
        .get(&spec.job.module, &cx.worker_id, cx.coordinator.clone())
        .await?;
    let limits = Limits {
        memory_bytes: spec.job.config.get(&keys::GUEST_MEMORY).0,
        call: spec.job.config.get(&keys::GUEST_CALL_TIMEOUT),
        ..Limits::default()
    };
    let env = GuestEnv {
        job: spec.job.id,
        submitted_at_ms: spec.job.submitted_at_ms,
    };
    let host = Box::new(Host(Arc::clone(&shared)));
    // The module's start function runs here, for as long as a call may take.
    let instantiate = module.instantiate(limits, env, host);
    let guest = tokio::task::block_in_place(|| Handle::current().block_on(instantiate))
        .map_err(|source| guest_error(&spec, source))?;
    let mut task = Running::new(cx, control, shared, guest);
    start_guest(&mut task)?;
    let input = match gate {
        Some(gate) => Input::Gate(gate),
        None => Input::Source(open_source(&spec, &task.registry()).await?),
    };
    Ok((task, input))
}

fn guest_error(spec: &TaskSpec, source: tidemill_runtime::GuestError) -> TaskError {
    TaskError::Guest {
        operator: spec.operator_name(source.operator()).to_owned(),
        subtask: spec.subtask(),
        source,
    }
}

fn start_guest(task: &mut Running) -> Result<(), TaskError> {
    let spec = task.spec().clone();
    let request = PlanRequest {
        args: spec.job.args.clone(),
        config: spec.job.plan_config.clone(),
    };
    let planned = task.call(async |guest| guest.plan(&request).await)?;
    if planned != spec.job.graph {
        return Err(TaskError::PlanDiffers(difference(
            &spec.job.graph,
            &planned,
        )));
    }
    let memory = spec.job.config.get(&keys::GUEST_MEMORY).0;
    let open = OpenRequest {
        vertex: spec.id.vertex,
        subtask: spec.subtask(),
        parallelism: spec.parallelism(),
        max_parallelism: spec.max_parallelism(),
        attempt: spec.id.attempt.0,
        cache_bytes: memory / 4,
        restored: spec.restore.is_some(),
    };
    task.call(async |guest| guest.open(&open).await)?;
    let states = operator_states(&spec)?;
    if !states.is_empty() {
        task.call(async |guest| guest.restore(&states).await)?;
    }
    Ok(())
}

/// What of two graphs is not the same, in a few words.
fn difference(submitted: &JobGraph, planned: &JobGraph) -> String {
    if submitted.vertices.len() != planned.vertices.len() {
        return format!(
            "{} vertices at submission, {} now",
            submitted.vertices.len(),
            planned.vertices.len()
        );
    }
    for (before, now) in submitted.vertices.iter().zip(&planned.vertices) {
        if before != now {
            return format!(
                "vertex \"{}\" is not the same as \"{}\" now",
                before.name, now.name
            );
        }
    }
    if submitted.edges == planned.edges {
        "its name or configuration differ".to_owned()
    } else {
        "its edges differ".to_owned()
    }
}

fn operator_states(spec: &TaskSpec) -> Result<Vec<OperatorState>, TaskError> {
    let Some(restore) = &spec.restore else {
        return Ok(Vec::new());
    };
    let vertex = spec.vertex();
    let mut states = BTreeMap::<u32, Vec<Vec<u8>>>::new();
    for part in &restore.operators {
        let position = (0u32..).zip(&vertex.states).find(|(_, state)| {
            state.name == part.state
                && vertex.operators[state.operator as usize].uid == part.operator_uid
        });
        let Some((position, _)) = position else {
            return Err(TaskError::Restore {
                checkpoint: restore.checkpoint.0,
                reason: format!(
                    "operator \"{}\" has no state \"{}\" any more",
                    part.operator_uid, part.state
                ),
            });
        };
        states
            .entry(position)
            .or_default()
            .extend(part.items.iter().cloned());
    }
    Ok(states
        .into_iter()
        .map(|(state, items)| OperatorState { state, items })
        .collect())
}

async fn open_source(spec: &TaskSpec, registry: &Registry) -> Result<SourceInput, TaskError> {
    let vertex = spec.vertex();
    let Some(binding) = vertex.source.clone() else {
        return Err(TaskError::Bug(format!(
            "\"{}\" has neither source nor input",
            vertex.name
        )));
    };
    let context = SourceContext {
        job: spec.job.id,
        tenant: spec.job.tenant.clone(),
        vertex_uid: vertex.uid.clone(),
        source_uid: binding.uid.clone(),
        subtask: spec.subtask(),
        parallelism: spec.parallelism(),
        max_parallelism: spec.max_parallelism(),
        attempt: spec.id.attempt,
    };
    let restored = spec
        .restore
        .as_ref()
        .and_then(|restore| restore.source.as_ref())
        .map(|all| {
            all.iter()
                .map(|split| SplitState {
                    split: split.split.clone(),
                    state: split.state.clone(),
                })
                .collect()
        });
    let opened = registry
        .open_source(&binding.connector, context, restored)
        .await;
    match opened {
        Ok(source) => Ok(SourceInput { binding, source }),
        Err(source) => Err(TaskError::Source {
            name: binding.name,
            source,
        }),
    }
}

fn channel(spec: &TaskSpec, edge: usize, from: u32, to: u32) -> ChannelId {
    ChannelId {
        job: spec.job.id,
        attempt: spec.job.attempt,
        edge: u32::try_from(edge).expect("edges are bounded"),
        from,
        to,
    }
}

fn register_gate(cx: &TaskContext) -> Option<GateInput> {
    let spec = &cx.spec;
    if spec.vertex().source.is_some() {
        return None;
    }
    let mut channels = Vec::new();
    let mut guest_inputs = Vec::new();
    for (index, edge) in spec.job.graph.edges.iter().enumerate() {
        if edge.to != spec.id.vertex {
            continue;
        }
        let from_parallelism = spec.job.parallelism[edge.from as usize];
        let origins = topology::origins(
            edge.strategy,
            spec.subtask(),
            from_parallelism,
            spec.parallelism(),
        );
        for from in origins {
            channels.push(channel(spec, index, from, spec.subtask()));
            guest_inputs.push(edge.input);
        }
    }
    let gate = cx.exchange.receivers(channels, spec.channel_bytes());
    Some(GateInput { gate, guest_inputs })
}

async fn open_outputs(cx: &TaskContext) -> Result<Outputs, TaskError> {
    let spec = &cx.spec;
    let vertex = spec.vertex();
    let mut outputs = Outputs::new(Arc::clone(&cx.metrics), cx.cancel.clone());
    for (index, edge) in spec.job.graph.edges.iter().enumerate() {
        if edge.from != spec.id.vertex {
            continue;
        }
        let to_parallelism = spec.job.parallelism[edge.to as usize];
        let targets = topology::targets(
            edge.strategy,
            spec.subtask(),
            spec.parallelism(),
            to_parallelism,
        );
        let mut channels = Vec::with_capacity(targets.len());
        for to in &targets {
            let address = spec.job.locations.get(&(edge.to, *to)).ok_or_else(|| {
                TaskError::Bug(format!(
                    "nobody says where subtask {to} of vertex {} is",
                    edge.to
                ))
            })?;
            let id = channel(spec, index, spec.subtask(), *to);
            channels.push(cx.exchange.sender(id, address, spec.channel_bytes()));
        }
        let strategy = topology::effective(edge.strategy, spec.parallelism(), to_parallelism);
        let max_parallelism = spec.job.max_parallelism[edge.to as usize];
        let partitioner = Partitioner::new(strategy, targets.len(), max_parallelism);
        outputs.add_edge(
            edge.port,
            EdgeOutput {
                partitioner,
                channels,
            },
        );
    }
    for binding in &vertex.sinks {
        let context = SinkContext {
            job: spec.job.id,
            tenant: spec.job.tenant.clone(),
            vertex_uid: vertex.uid.clone(),
            sink_uid: binding.uid.clone(),
            subtask: spec.subtask(),
            parallelism: spec.parallelism(),
            max_parallelism: spec.max_parallelism(),
            attempt: spec.id.attempt,
        };
        let restored = spec.restore.iter().flat_map(|restore| &restore.sinks);
        let committables = restored
            .filter(|sink| sink.uid == binding.uid)
            .flat_map(|sink| sink.committables.clone())
            .collect();
        let opened = cx
            .registry
            .open_sink(&binding.connector, context, committables)
            .await;
        let sink = opened.map_err(|source| TaskError::Sink {
            name: binding.name.clone(),
            source,
        })?;
        let sink = SinkOutput {
            uid: binding.uid.clone(),
            name: binding.name.clone(),
            sink,
        };
        outputs.add_sink(binding.port, sink);
    }
    Ok(outputs)
}

async fn restore_keyed(spec: &TaskSpec) -> Result<KeyedState, TaskError> {
    let range =
        KeyGroupRange::of_subtask(spec.subtask(), spec.parallelism(), spec.max_parallelism());
    let mut state = KeyedState::new(range, spec.max_parallelism(), spec.vertex());
    let limit = spec.job.config.get(&keys::STATE_MEMORY_LIMIT).0;
    state.store = state
        .store
        .with_limit(usize::try_from(limit).unwrap_or(usize::MAX));
    if let Some(restore) = &spec.restore {
        for handle in &restore.keyed {
            let bytes =
                read_handle(spec, restore, handle)
                    .await
                    .map_err(|reason| TaskError::Restore {
                        checkpoint: restore.checkpoint.0,
                        reason,
                    })?;
            state
                // The coordinator has refused what must not be lost; the rest is another chain's.
                .restore(&bytes, UnknownState::Skip)
                .map_err(|e| TaskError::Restore {
                    checkpoint: restore.checkpoint.0,
                    reason: e.to_string(),
                })?;
        }
    }
    Ok(state)
}

async fn read_handle(
    spec: &TaskSpec,
    restore: &TaskRestore,
    handle: &KeyedHandle,
) -> Result<Vec<u8>, String> {
    let bytes = match &handle.location {
        StateLocation::Inline(bytes) => bytes.clone(),
        StateLocation::File { path } => {
            let settings = spec.job.config.iter();
            let settings = settings
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .collect();
            let directory = Location::open(&restore.base, &settings).map_err(|e| e.to_string())?;
            let bytes = directory.get(path).await;
            bytes
                .map_err(|e| format!("file {path} in {}: {e}", restore.base))?
                .to_vec()
        }
    };
    handle.verify(&bytes).map_err(|e| match &handle.location {
        StateLocation::Inline(_) => format!("state in {}/_metadata: {e}", restore.base),
        StateLocation::File { path } => format!("file {path} in {}: {e}", restore.base),
    })?;
    Ok(bytes)
}
