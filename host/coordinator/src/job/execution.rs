//! The execution graph: every subtask of a job, where it runs, and since when it is in which state.

use std::{collections::BTreeMap, sync::Arc};

use tidemill_types::{JobGraph, WorkerId};

use super::status::TaskStatus;

/// A slot of a registered worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Placement {
    /// The worker.
    pub(crate) worker: WorkerId,
    /// The worker's session: a worker that comes back has another one, and none of its old tasks.
    pub(crate) session: u64,
    /// Where other workers reach it.
    pub(crate) data_address: String,
    /// The slot.
    pub(crate) slot: u32,
}

/// One subtask of the current attempt.
#[derive(Debug, Clone)]
pub(crate) struct Execution {
    /// Its state.
    pub(crate) status: TaskStatus,
    /// When it entered each state, in the order of [`TaskStatus::ALL`]; 0 if never.
    pub(crate) entered: [i64; TaskStatus::ALL.len()],
    /// Where it runs or ran.
    pub(crate) place: Option<Placement>,
    /// The latest figures of its worker.
    pub(crate) metrics: BTreeMap<String, f64>,
}

impl Execution {
    fn new(now_ms: i64) -> Self {
        let mut execution = Self {
            status: TaskStatus::Created,
            entered: [0; TaskStatus::ALL.len()],
            place: None,
            metrics: BTreeMap::new(),
        };
        execution.enter(TaskStatus::Created, now_ms);
        execution
    }

    /// Changes the state. Entering the same state again changes nothing.
    pub(crate) fn enter(&mut self, status: TaskStatus, now_ms: i64) {
        if self.status != status || self.entered[status.index()] == 0 {
            self.status = status;
            self.entered[status.index()] = now_ms;
        }
    }

    /// When the worker was asked to run it, or -1.
    pub(crate) fn start_ms(&self) -> i64 {
        match self.entered[TaskStatus::Deploying.index()] {
            0 => -1,
            at => at,
        }
    }

    /// When it ended, or -1.
    pub(crate) fn end_ms(&self) -> i64 {
        if self.status.is_terminal() {
            self.entered[self.status.index()]
        } else {
            -1
        }
    }

    /// From start to end or now; -1 before the start.
    pub(crate) fn duration_ms(&self, now_ms: i64) -> i64 {
        let (start, end) = (self.start_ms(), self.end_ms());
        match (start, end) {
            (-1, _) => -1,
            (start, -1) => now_ms - start,
            (start, end) => end - start,
        }
    }

    /// How long it was in each state it has been in.
    pub(crate) fn status_durations(&self, now_ms: i64) -> BTreeMap<&'static str, i64> {
        let mut steps: Vec<(i64, TaskStatus)> = TaskStatus::ALL
            .into_iter()
            .map(|status| (self.entered[status.index()], status))
            .filter(|(at, _)| *at != 0)
            .collect();
        steps.sort_by_key(|(at, status)| (*at, status.index()));
        let ends: Vec<i64> = steps
            .iter()
            .skip(1)
            .map(|(at, _)| *at)
            .chain([now_ms])
            .collect();
        steps
            .into_iter()
            .zip(ends)
            .filter(|((_, status), _)| !status.is_terminal())
            .map(|((at, status), end)| (status.as_str(), end - at))
            .collect()
    }
}

/// Every subtask of an attempt: by vertex, then by subtask.
#[derive(Debug, Clone)]
pub(crate) struct ExecutionGraph {
    /// The job graph.
    pub(crate) graph: Arc<JobGraph>,
    /// Parallelism by vertex.
    pub(crate) parallelism: Vec<u32>,
    /// Key groups by vertex.
    pub(crate) max_parallelism: Vec<u32>,
    tasks: Vec<Vec<Execution>>,
}

impl ExecutionGraph {
    pub(crate) fn new(
        graph: Arc<JobGraph>,
        parallelism: Vec<u32>,
        max_parallelism: Vec<u32>,
        now_ms: i64,
    ) -> Self {
        assert_eq!(
            graph.vertices.len(),
            parallelism.len(),
            "every vertex has a parallelism"
        );
        assert_eq!(
            graph.vertices.len(),
            max_parallelism.len(),
            "every vertex has key groups"
        );
        let mut graph = Self {
            graph,
            parallelism,
            max_parallelism,
            tasks: Vec::new(),
        };
        graph.reset(now_ms);
        graph
    }

    /// Starts over with new subtasks, for a new attempt.
    pub(crate) fn reset(&mut self, now_ms: i64) {
        self.tasks = self
            .parallelism
            .iter()
            .map(|parallelism| (0..*parallelism).map(|_| Execution::new(now_ms)).collect())
            .collect();
    }

    /// How many slots an attempt needs: a slot holds one subtask of every vertex.
    pub(crate) fn slots_needed(&self) -> u32 {
        self.parallelism.iter().copied().max().unwrap_or(0)
    }

    /// The subtasks of a vertex.
    pub(crate) fn vertex(&self, vertex: u32) -> Option<&[Execution]> {
        self.tasks.get(vertex as usize).map(Vec::as_slice)
    }

    /// A subtask.
    pub(crate) fn task(&self, vertex: u32, subtask: u32) -> Option<&Execution> {
        self.tasks.get(vertex as usize)?.get(subtask as usize)
    }

    /// A subtask, to change it.
    pub(crate) fn task_mut(&mut self, vertex: u32, subtask: u32) -> Option<&mut Execution> {
        self.tasks
            .get_mut(vertex as usize)?
            .get_mut(subtask as usize)
    }

    /// Every subtask.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Execution> + Clone {
        self.tasks.iter().flatten()
    }

    /// Every subtask, to change it.
    pub(crate) fn all_mut(&mut self) -> impl Iterator<Item = &mut Execution> {
        self.tasks.iter_mut().flatten()
    }

    /// Every subtask with its vertex and index.
    pub(crate) fn indexed(&self) -> impl Iterator<Item = (u32, u32, &Execution)> {
        (0u32..).zip(&self.tasks).flat_map(|(vertex, tasks)| {
            (0u32..)
                .zip(tasks)
                .map(move |(subtask, task)| (vertex, subtask, task))
        })
    }

    /// Puts subtask `i` of every vertex into slot `i`.
    pub(crate) fn place(&mut self, slots: &[Placement], now_ms: i64) {
        assert!(
            slots.len() >= self.slots_needed() as usize,
            "an attempt gets all of its slots"
        );
        for tasks in &mut self.tasks {
            for (task, slot) in tasks.iter_mut().zip(slots) {
                task.place = Some(slot.clone());
                task.enter(TaskStatus::Deploying, now_ms);
            }
        }
    }

    /// Name of a subtask, for people.
    pub(crate) fn task_name(&self, vertex: u32, subtask: u32) -> String {
        let name = self
            .graph
            .vertices
            .get(vertex as usize)
            .map_or("?", |v| v.name.as_str());
        let parallelism = self.parallelism.get(vertex as usize).copied().unwrap_or(0);
        format!("{name} ({}/{parallelism})", subtask + 1)
    }
}
