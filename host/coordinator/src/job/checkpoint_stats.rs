//! What the API tells about the checkpoints of a job. Nothing is decided by it.

use std::collections::{BTreeMap, VecDeque};

use tidemill_checkpoint::CheckpointKind;
use tidemill_protocol::control::CheckpointFigures;
use tidemill_types::CheckpointId;

/// Figures of completed checkpoints that percentiles are made of.
const SAMPLES_MAX: usize = 1_000;

/// What became of a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CheckpointStatus {
    InProgress,
    Completed,
    Failed,
}

impl CheckpointStatus {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::InProgress => "IN_PROGRESS",
            Self::Completed => "COMPLETED",
            Self::Failed => "FAILED",
        }
    }
}

/// What a subtask acknowledged.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SubtaskAck {
    pub(crate) at_ms: i64,
    pub(crate) figures: CheckpointFigures,
}

/// One checkpoint.
#[derive(Debug, Clone)]
pub(crate) struct CheckpointRecord {
    pub(crate) id: CheckpointId,
    pub(crate) kind: CheckpointKind,
    pub(crate) status: CheckpointStatus,
    pub(crate) trigger_ms: i64,
    /// When it was complete or failed.
    pub(crate) end_ms: Option<i64>,
    pub(crate) subtasks: u32,
    pub(crate) acks: BTreeMap<(u32, u32), SubtaskAck>,
    pub(crate) path: Option<String>,
    pub(crate) discarded: bool,
    pub(crate) failure: Option<String>,
}

impl CheckpointRecord {
    pub(crate) fn latest_ack_ms(&self) -> i64 {
        self.acks.values().map(|ack| ack.at_ms).max().unwrap_or(-1)
    }

    /// The bytes of state, of all subtasks or those of a vertex.
    pub(crate) fn state_bytes(&self, vertex: Option<u32>) -> u64 {
        self.of(vertex).map(|ack| ack.figures.state_bytes).sum()
    }

    /// The bytes taken in while aligning.
    pub(crate) fn processed_bytes(&self, vertex: Option<u32>) -> u64 {
        self.of(vertex).map(|ack| ack.figures.processed_bytes).sum()
    }

    fn of(&self, vertex: Option<u32>) -> impl Iterator<Item = &SubtaskAck> {
        self.acks
            .iter()
            .filter(move |((v, _), _)| vertex.is_none_or(|vertex| vertex == *v))
            .map(|(_, a)| a)
    }

    /// From the trigger to the end, or to the latest acknowledgement.
    pub(crate) fn duration_ms(&self) -> i64 {
        self.end_ms
            .unwrap_or_else(|| self.latest_ack_ms())
            .saturating_sub(self.trigger_ms)
            .max(0)
    }
}

/// Counters of all checkpoints of a job.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) restored: u64,
    pub(crate) total: u64,
    pub(crate) in_progress: u64,
    pub(crate) completed: u64,
    pub(crate) failed: u64,
}

/// What a job started from.
#[derive(Debug, Clone)]
pub(crate) struct Restored {
    pub(crate) id: CheckpointId,
    pub(crate) at_ms: i64,
    pub(crate) savepoint: bool,
    pub(crate) path: String,
}

/// Figures of completed checkpoints, the newest [`SAMPLES_MAX`].
#[derive(Debug, Clone, Default)]
pub(crate) struct Summary {
    pub(crate) duration_ms: VecDeque<i64>,
    pub(crate) state_bytes: VecDeque<i64>,
    pub(crate) processed_bytes: VecDeque<i64>,
}

/// All that is remembered.
#[derive(Debug)]
pub(crate) struct CheckpointStats {
    capacity: usize,
    pub(crate) counts: Counts,
    /// Newest first.
    pub(crate) history: VecDeque<CheckpointRecord>,
    pub(crate) latest_completed: Option<CheckpointRecord>,
    pub(crate) latest_savepoint: Option<CheckpointRecord>,
    pub(crate) latest_failed: Option<CheckpointRecord>,
    pub(crate) restored: Option<Restored>,
    pub(crate) summary: Summary,
}

impl CheckpointStats {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            capacity: capacity.max(1),
            counts: Counts::default(),
            history: VecDeque::new(),
            latest_completed: None,
            latest_savepoint: None,
            latest_failed: None,
            restored: None,
            summary: Summary::default(),
        }
    }

    /// A checkpoint that is remembered.
    pub(crate) fn get(&self, id: CheckpointId) -> Option<&CheckpointRecord> {
        let kept = [
            &self.latest_completed,
            &self.latest_savepoint,
            &self.latest_failed,
        ];
        self.history
            .iter()
            .chain(kept.into_iter().flatten())
            .find(|record| record.id == id)
    }

    pub(crate) fn triggered(
        &mut self,
        id: CheckpointId,
        kind: CheckpointKind,
        subtasks: u32,
        now_ms: i64,
    ) {
        self.counts.total += 1;
        self.counts.in_progress += 1;
        self.history.push_front(CheckpointRecord {
            id,
            kind,
            status: CheckpointStatus::InProgress,
            trigger_ms: now_ms,
            end_ms: None,
            subtasks,
            acks: BTreeMap::new(),
            path: None,
            discarded: false,
            failure: None,
        });
        self.forget_old();
    }

    /// Those in progress stay, whatever their number.
    fn forget_old(&mut self) {
        while self.history.len() > self.capacity {
            let ended = |record: &CheckpointRecord| record.status != CheckpointStatus::InProgress;
            let Some(oldest) = self.history.iter().rposition(ended) else {
                return;
            };
            self.history.remove(oldest);
        }
    }

    fn find(&mut self, id: CheckpointId) -> Option<&mut CheckpointRecord> {
        self.history.iter_mut().find(|record| record.id == id)
    }

    pub(crate) fn acknowledged(
        &mut self,
        id: CheckpointId,
        subtask: (u32, u32),
        figures: CheckpointFigures,
        now_ms: i64,
    ) {
        if let Some(record) = self
            .find(id)
            .filter(|r| r.status == CheckpointStatus::InProgress)
        {
            record.acks.entry(subtask).or_insert(SubtaskAck {
                at_ms: now_ms,
                figures,
            });
        }
    }

    pub(crate) fn completed(&mut self, id: CheckpointId, path: String, now_ms: i64) {
        let Some(record) = self.find(id) else { return };
        record.status = CheckpointStatus::Completed;
        record.end_ms = Some(now_ms);
        record.path = Some(path);
        let record = record.clone();
        self.counts.in_progress = self.counts.in_progress.saturating_sub(1);
        self.counts.completed += 1;
        let as_i64 = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        push(&mut self.summary.duration_ms, record.duration_ms());
        push(
            &mut self.summary.state_bytes,
            as_i64(record.state_bytes(None)),
        );
        push(
            &mut self.summary.processed_bytes,
            as_i64(record.processed_bytes(None)),
        );
        if record.kind.is_savepoint() {
            self.latest_savepoint = Some(record);
        } else {
            self.latest_completed = Some(record);
        }
        self.forget_old();
    }

    pub(crate) fn failed(&mut self, id: CheckpointId, reason: &str, now_ms: i64) {
        let Some(record) = self.find(id) else { return };
        record.status = CheckpointStatus::Failed;
        record.end_ms = Some(now_ms);
        record.failure = Some(reason.to_owned());
        let record = record.clone();
        self.counts.in_progress = self.counts.in_progress.saturating_sub(1);
        self.counts.failed += 1;
        self.latest_failed = Some(record);
        self.forget_old();
    }

    pub(crate) fn discarded(&mut self, id: CheckpointId) {
        if let Some(record) = self.find(id) {
            record.discarded = true;
        }
        if let Some(record) = self
            .latest_completed
            .as_mut()
            .filter(|record| record.id == id)
        {
            record.discarded = true;
        }
    }

    pub(crate) fn restored(&mut self, restored: Restored) {
        self.counts.restored += 1;
        self.restored = Some(restored);
    }
}

fn push(samples: &mut VecDeque<i64>, value: i64) {
    samples.push_back(value);
    if samples.len() > SAMPLES_MAX {
        samples.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_are_remembered_and_those_in_progress() {
        let mut stats = CheckpointStats::new(2);
        for id in 1..=5 {
            stats.triggered(CheckpointId(id), CheckpointKind::Checkpoint, 1, 0);
            if id != 1 {
                stats.completed(CheckpointId(id), format!("chk-{id}"), 10);
            }
        }
        let kept: Vec<_> = stats.history.iter().map(|record| record.id.0).collect();
        assert_eq!(kept, [5, 1]);
        assert_eq!(
            (
                stats.counts.total,
                stats.counts.completed,
                stats.counts.in_progress
            ),
            (5, 4, 1)
        );
        assert_eq!(stats.latest_completed.as_ref().unwrap().id, CheckpointId(5));
    }
}
