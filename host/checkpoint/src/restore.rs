//! Who gets what of a checkpoint.
//!
//! Everything is matched by uid, so that a job may have been changed: other parallelism, other
//! chains, new operators. What cannot be matched is refused by name, unless the user allows it to
//! be left behind.
//!
//! # Invariants
//!
//! 1. Each committable, and each item of a list state, goes to exactly one subtask.
//! 2. Each key group of a keyed handle goes to exactly one subtask; a handle goes to each subtask
//!    whose range it overlaps.
//! 3. Nothing is left behind silently.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};
use tidemill_types::{CheckpointId, ErrorKind, JobGraph, KeyGroupRange, StateKind, Vertex};

use crate::{
    manifest::{Manifest, StateRecord, VertexState, state_records},
    subtask::{KeyedHandle, OperatorStatePart, SinkState, SplitState},
};

/// What a subtask starts from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRestore {
    /// The checkpoint it comes from.
    pub checkpoint: CheckpointId,
    /// URI of the checkpoint's directory, without a trailing slash; paths of handles are relative
    /// to it.
    pub base: String,
    /// The splits of **all** former subtasks of the source, for the connector to divide as it
    /// divides new ones; `None` when the source was not part of the checkpoint.
    pub source: Option<Vec<SplitState>>,
    /// Prepared by former subtasks, to be committed by this one.
    pub sinks: Vec<SinkState>,
    /// Operator state.
    pub operators: Vec<OperatorStatePart>,
    /// Keyed state that overlaps this subtask's key groups. It may hold other groups, and states of
    /// operators that now live elsewhere: both are to be skipped.
    pub keyed: Vec<KeyedHandle>,
}

/// Why a checkpoint does not fit a job.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// There is state of something that the job no longer has.
    #[error(
        "{what} \"{uid}\" of \"{vertex}\" has state in checkpoint {checkpoint}, and the job has none \
         of that uid; give it its uid back, or allow non-restored state (allowNonRestoredState) to \
         leave the state behind"
    )]
    Gone {
        /// Source, sink or operator.
        what: &'static str,
        /// Its uid.
        uid: String,
        /// The vertex that it was part of.
        vertex: String,
        /// The checkpoint.
        checkpoint: CheckpointId,
    },
    /// An operator no longer has one of its states.
    #[error(
        "state \"{state}\" of operator \"{operator}\" is in checkpoint {checkpoint} but no longer in \
         the job; allow non-restored state (allowNonRestoredState) to leave it behind"
    )]
    StateGone {
        /// The operator's uid.
        operator: String,
        /// The state's name.
        state: String,
        /// The checkpoint.
        checkpoint: CheckpointId,
    },
    /// A state is of another kind or type now.
    #[error(
        "state \"{state}\" of operator \"{operator}\" has changed its {what} from {before} to {now}"
    )]
    StateChanged {
        /// The operator's uid.
        operator: String,
        /// The state's name.
        state: String,
        /// What changed.
        what: &'static str,
        /// As it was.
        before: String,
        /// As it is.
        now: String,
    },
    /// The number of key groups is fixed for the life of keyed state.
    #[error(
        "the max parallelism of \"{vertex}\" is {now}, but its state was written with {before}; set it \
         to {before} (pipeline.max-parallelism)"
    )]
    MaxParallelism {
        /// The vertex.
        vertex: String,
        /// As it was.
        before: u32,
        /// As it is.
        now: u32,
    },
    /// The job cannot be what the arguments say.
    #[error(
        "\"{vertex}\" cannot have parallelism {parallelism} with max parallelism {max_parallelism}"
    )]
    Parallelism {
        /// The vertex.
        vertex: String,
        /// Its parallelism.
        parallelism: u32,
        /// Its number of key groups.
        max_parallelism: u32,
    },
}

impl RestoreError {
    /// What a caller can do about it.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

/// Divides a checkpoint among the subtasks of a job; the key is (vertex, subtask).
///
/// `base` is the URI of the checkpoint's directory. With `allow_non_restored`, state that nobody
/// claims is left behind.
///
/// # Errors
///
/// [`RestoreError`] names what does not fit.
#[expect(
    clippy::too_many_arguments,
    reason = "a checkpoint and a job, each in its parts"
)]
pub fn assign_restore(
    manifest: &Manifest,
    base: &str,
    graph: &JobGraph,
    parallelism: &[u32],
    max_parallelism: &[u32],
    allow_non_restored: bool,
) -> Result<HashMap<(u32, u32), TaskRestore>, RestoreError> {
    if !allow_non_restored {
        check_nothing_left(manifest, graph)?;
    }
    let mut restores = HashMap::new();
    let figures = parallelism.iter().zip(max_parallelism);
    for ((position, vertex), (&parallelism, &max_parallelism)) in
        (0u32..).zip(&graph.vertices).zip(figures)
    {
        if parallelism == 0 || parallelism > max_parallelism {
            let vertex = vertex.name.clone();
            return Err(RestoreError::Parallelism {
                vertex,
                parallelism,
                max_parallelism,
            });
        }
        let former = Former::of(vertex, manifest);
        former.check_fits(vertex, max_parallelism)?;
        for subtask in 0..parallelism {
            let restore = TaskRestore {
                checkpoint: manifest.checkpoint,
                base: base.trim_end_matches('/').to_owned(),
                source: former.splits(vertex),
                sinks: former.sinks(vertex, subtask, parallelism),
                operators: former.operator_state(subtask, parallelism),
                keyed: former.keyed(KeyGroupRange::of_subtask(
                    subtask,
                    parallelism,
                    max_parallelism,
                )),
            };
            restores.insert((position, subtask), restore);
        }
    }
    Ok(restores)
}

/// The vertices of a checkpoint that hold state of one vertex of the job.
struct Former<'a> {
    manifest: &'a Manifest,
    states: Vec<StateRecord>,
    /// Those with keyed state (or timers) of its operators.
    keyed: Vec<&'a VertexState>,
}

impl<'a> Former<'a> {
    fn of(vertex: &Vertex, manifest: &'a Manifest) -> Self {
        let uids: HashSet<&str> = vertex.operators.iter().map(|o| o.uid.as_str()).collect();
        let keyed = manifest
            .vertices
            .iter()
            .filter(|former| former.subtasks.iter().any(|s| !s.keyed.is_empty()))
            .filter(|former| {
                former
                    .operators
                    .iter()
                    .any(|uid| uids.contains(uid.as_str()))
            })
            .collect();
        Self {
            manifest,
            states: state_records(vertex),
            keyed,
        }
    }

    fn check_fits(&self, vertex: &Vertex, max_parallelism: u32) -> Result<(), RestoreError> {
        if let Some(former) = self
            .keyed
            .iter()
            .find(|f| f.max_parallelism != max_parallelism)
        {
            return Err(RestoreError::MaxParallelism {
                vertex: vertex.name.clone(),
                before: former.max_parallelism,
                now: max_parallelism,
            });
        }
        let former: HashMap<_, _> = self
            .manifest
            .vertices
            .iter()
            .flat_map(|f| &f.states)
            .map(|s| ((s.operator_uid.as_str(), s.name.as_str()), s))
            .collect();
        for state in &self.states {
            if let Some(before) = former.get(&(state.operator_uid.as_str(), state.name.as_str())) {
                check_same_type(before, state)?;
            }
        }
        Ok(())
    }

    fn splits(&self, vertex: &Vertex) -> Option<Vec<SplitState>> {
        let uid = &vertex.source.as_ref()?.uid;
        let former = self
            .manifest
            .vertices
            .iter()
            .find(|f| f.source.as_ref() == Some(uid))?;
        Some(
            former
                .subtasks
                .iter()
                .flat_map(|s| s.source.iter().cloned())
                .collect(),
        )
    }

    fn sinks(&self, vertex: &Vertex, subtask: u32, parallelism: u32) -> Vec<SinkState> {
        let mut result = Vec::new();
        for sink in &vertex.sinks {
            let mut committables = Vec::new();
            for former in &self.manifest.vertices {
                for (index, state) in (0u32..).zip(&former.subtasks) {
                    if index % parallelism == subtask {
                        let mine = state.sinks.iter().filter(|s| s.uid == sink.uid);
                        committables.extend(mine.flat_map(|s| s.committables.iter().cloned()));
                    }
                }
            }
            if !committables.is_empty() {
                result.push(SinkState {
                    uid: sink.uid.clone(),
                    committables,
                });
            }
        }
        result
    }

    fn operator_state(&self, subtask: u32, parallelism: u32) -> Vec<OperatorStatePart> {
        let mut result = Vec::new();
        for state in self.states.iter().filter(|state| !state.kind.is_keyed()) {
            let parts: Vec<&[Vec<u8>]> = self.parts_of(state);
            let items: Vec<Vec<u8>> = match state.kind {
                StateKind::OperatorUnion => parts.into_iter().flatten().cloned().collect(),
                // Every subtask had the same; one that is new takes a neighbour's.
                StateKind::Broadcast if parts.is_empty() => Vec::new(),
                StateKind::Broadcast => parts[subtask as usize % parts.len()].to_vec(),
                _ => {
                    let all = parts.into_iter().flatten();
                    all.skip(subtask as usize)
                        .step_by(parallelism as usize)
                        .cloned()
                        .collect()
                }
            };
            if !items.is_empty() {
                let (operator_uid, state) = (state.operator_uid.clone(), state.name.clone());
                result.push(OperatorStatePart {
                    operator_uid,
                    state,
                    items,
                });
            }
        }
        result
    }

    /// The parts of one operator state, by former subtask; those without it are left out.
    fn parts_of(&self, state: &StateRecord) -> Vec<&'a [Vec<u8>]> {
        let parts = self
            .manifest
            .vertices
            .iter()
            .flat_map(|f| &f.subtasks)
            .flat_map(|s| &s.operators);
        parts
            .filter(|part| part.operator_uid == state.operator_uid && part.state == state.name)
            .map(|part| part.items.as_slice())
            .collect()
    }

    fn keyed(&self, range: KeyGroupRange) -> Vec<KeyedHandle> {
        let handles = self
            .keyed
            .iter()
            .flat_map(|f| &f.subtasks)
            .flat_map(|s| &s.keyed);
        handles
            .filter(|handle| handle.key_groups.overlaps(range))
            .cloned()
            .collect()
    }
}

fn check_same_type(before: &StateRecord, now: &StateRecord) -> Result<(), RestoreError> {
    let changed = |what, before_text: String, now_text: String| {
        let (operator, state) = (now.operator_uid.clone(), now.name.clone());
        Err(RestoreError::StateChanged {
            operator,
            state,
            what,
            before: before_text,
            now: now_text,
        })
    };
    if before.kind != now.kind {
        return changed(
            "kind",
            format!("{:?}", before.kind),
            format!("{:?}", now.kind),
        );
    }
    for (what, a, b) in [
        ("key type", &before.key_schema, &now.key_schema),
        ("sub-key type", &before.subkey_schema, &now.subkey_schema),
        ("value type", &before.value_schema, &now.value_schema),
    ] {
        if a != b {
            return changed(what, a.clone(), b.clone());
        }
    }
    Ok(())
}

/// Refuses state whose owner the job no longer has.
fn check_nothing_left(manifest: &Manifest, graph: &JobGraph) -> Result<(), RestoreError> {
    let operators: HashSet<&str> = graph
        .vertices
        .iter()
        .flat_map(|v| &v.operators)
        .map(|o| o.uid.as_str())
        .collect();
    let sources: HashSet<&str> = graph
        .vertices
        .iter()
        .filter_map(|v| v.source.as_ref())
        .map(|s| s.uid.as_str())
        .collect();
    let sinks: HashSet<&str> = graph
        .vertices
        .iter()
        .flat_map(|v| &v.sinks)
        .map(|s| s.uid.as_str())
        .collect();
    let states: HashSet<(String, String)> = graph
        .vertices
        .iter()
        .flat_map(state_records)
        .map(|s| (s.operator_uid, s.name))
        .collect();
    let checkpoint = manifest.checkpoint;
    for former in &manifest.vertices {
        let gone = |what, uid: &str| {
            let (uid, vertex) = (uid.to_owned(), former.name.clone());
            Err(RestoreError::Gone {
                what,
                uid,
                vertex,
                checkpoint,
            })
        };
        if let Some(uid) = former.source.as_deref()
            && !sources.contains(uid)
            && former.subtasks.iter().any(|s| !s.source.is_empty())
        {
            return gone("source", uid);
        }
        for sink in former.subtasks.iter().flat_map(|s| &s.sinks) {
            if !sink.committables.is_empty() && !sinks.contains(sink.uid.as_str()) {
                return gone("sink", &sink.uid);
            }
        }
        for state in former
            .states
            .iter()
            .filter(|state| has_state(former, state))
        {
            if !operators.contains(state.operator_uid.as_str()) {
                return gone("operator", &state.operator_uid);
            }
            if !states.contains(&(state.operator_uid.clone(), state.name.clone())) {
                let (operator, state) = (state.operator_uid.clone(), state.name.clone());
                return Err(RestoreError::StateGone {
                    operator,
                    state,
                    checkpoint,
                });
            }
        }
    }
    Ok(())
}

/// Whether a vertex of a checkpoint may hold anything of a state. What is inside of keyed handles
/// is not known here.
fn has_state(former: &VertexState, state: &StateRecord) -> bool {
    former.subtasks.iter().any(|subtask| {
        if state.kind.is_keyed() {
            !subtask.keyed.is_empty()
        } else {
            let mut parts = subtask.operators.iter().filter(|p| !p.items.is_empty());
            parts.any(|p| p.operator_uid == state.operator_uid && p.state == state.name)
        }
    })
}

#[cfg(test)]
mod tests;
