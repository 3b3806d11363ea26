//! States of jobs and of tasks, with Flink's names.

/// The state of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JobStatus {
    /// It is being planned and checked.
    Initializing,
    /// It is accepted, nothing runs yet.
    Created,
    /// It is scheduled; its tasks run or wait for slots.
    Running,
    /// Tasks are being stopped since the job failed for good.
    Failing,
    /// It failed for good.
    Failed,
    /// Tasks are being stopped on request.
    Cancelling,
    /// It was stopped on request.
    Canceled,
    /// It came to its end.
    Finished,
    /// Tasks are being stopped, or the delay before the next attempt passes.
    Restarting,
}

impl JobStatus {
    /// Every state.
    pub const ALL: [Self; 9] = [
        Self::Initializing,
        Self::Created,
        Self::Running,
        Self::Failing,
        Self::Failed,
        Self::Cancelling,
        Self::Canceled,
        Self::Finished,
        Self::Restarting,
    ];

    /// As the API writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Initializing => "INITIALIZING",
            Self::Created => "CREATED",
            Self::Running => "RUNNING",
            Self::Failing => "FAILING",
            Self::Failed => "FAILED",
            Self::Cancelling => "CANCELLING",
            Self::Canceled => "CANCELED",
            Self::Finished => "FINISHED",
            Self::Restarting => "RESTARTING",
        }
    }

    /// Whether nothing can happen to the job any more.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Failed | Self::Canceled | Self::Finished)
    }

    /// Position in [`JobStatus::ALL`].
    pub(crate) const fn index(self) -> usize {
        self as usize
    }
}

/// The state of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TaskStatus {
    /// It exists.
    Created,
    /// It waits for a slot.
    Scheduled,
    /// A worker has been asked to run it.
    Deploying,
    /// The worker prepares it: module, state, connections.
    Initializing,
    /// It runs.
    Running,
    /// It came to its end.
    Finished,
    /// It has been asked to stop.
    Canceling,
    /// It was stopped.
    Canceled,
    /// It failed.
    Failed,
}

impl TaskStatus {
    /// Every state.
    pub const ALL: [Self; 9] = [
        Self::Created,
        Self::Scheduled,
        Self::Deploying,
        Self::Initializing,
        Self::Running,
        Self::Finished,
        Self::Canceling,
        Self::Canceled,
        Self::Failed,
    ];

    /// As the API writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "CREATED",
            Self::Scheduled => "SCHEDULED",
            Self::Deploying => "DEPLOYING",
            Self::Initializing => "INITIALIZING",
            Self::Running => "RUNNING",
            Self::Finished => "FINISHED",
            Self::Canceling => "CANCELING",
            Self::Canceled => "CANCELED",
            Self::Failed => "FAILED",
        }
    }

    /// Whether nothing can happen to the task any more.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Finished | Self::Canceled | Self::Failed)
    }

    /// Whether a worker has (or is about to have) the task.
    #[must_use]
    pub const fn is_on_worker(self) -> bool {
        matches!(
            self,
            Self::Deploying | Self::Initializing | Self::Running | Self::Canceling
        )
    }

    /// Position in [`TaskStatus::ALL`].
    pub(crate) const fn index(self) -> usize {
        self as usize
    }

    /// The state of a vertex with these subtasks, by Flink's rule: the most urgent one wins.
    pub(crate) fn aggregate(tasks: impl Iterator<Item = Self>) -> Self {
        let tasks: Vec<Self> = tasks.collect();
        let any = |status: Self| tasks.contains(&status);
        let urgent = [
            Self::Failed,
            Self::Canceling,
            Self::Canceled,
            Self::Initializing,
        ];
        if let Some(status) = urgent.into_iter().find(|status| any(*status)) {
            return status;
        }
        if any(Self::Running) {
            return Self::Running;
        }
        if tasks.iter().all(|task| *task == Self::Finished) {
            return Self::Finished;
        }
        if any(Self::Finished) {
            return Self::Running;
        }
        let waiting = [Self::Deploying, Self::Scheduled];
        waiting
            .into_iter()
            .find(|status| any(*status))
            .unwrap_or(Self::Created)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_match_the_lists() {
        for (index, status) in JobStatus::ALL.iter().enumerate() {
            assert_eq!(status.index(), index);
        }
        for (index, status) in TaskStatus::ALL.iter().enumerate() {
            assert_eq!(status.index(), index);
        }
    }

    #[test]
    fn a_vertex_is_as_its_most_urgent_subtask() {
        let of = |tasks: &[TaskStatus]| TaskStatus::aggregate(tasks.iter().copied());
        assert_eq!(
            of(&[TaskStatus::Running, TaskStatus::Failed]),
            TaskStatus::Failed
        );
        assert_eq!(
            of(&[TaskStatus::Running, TaskStatus::Finished]),
            TaskStatus::Running
        );
        assert_eq!(
            of(&[TaskStatus::Finished, TaskStatus::Finished]),
            TaskStatus::Finished
        );
        assert_eq!(
            of(&[TaskStatus::Created, TaskStatus::Scheduled]),
            TaskStatus::Scheduled
        );
    }
}
