//! A host with state and timers, enough to run one subtask of a real job.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use parking_lot::Mutex;
use tidemill_runtime::{Entries, HostError, Level, TaskHost};
use tidemill_types::{Batch, Column, NO_WATERMARK, TimeDomain, TimerBatch};

type Timer = (i64, u32, Vec<u8>, Vec<u8>);

/// What one task has.
#[derive(Debug, Default)]
pub struct TaskState {
    pub emitted: Vec<(u32, Batch)>,
    pub entries: BTreeMap<(u32, Vec<u8>, Vec<u8>), Vec<u8>>,
    pub timers: BTreeSet<Timer>,
    pub watermark: Option<i64>,
    pub logs: Vec<String>,
    /// Drops what is emitted, for measurements.
    pub blackhole: bool,
}

impl TaskState {
    /// Takes the event-time timers of one operator that are due.
    pub fn take_due(&mut self, watermark: i64) -> Option<TimerBatch> {
        let (_, operator, _, _) = self
            .timers
            .first()
            .filter(|(at, ..)| *at <= watermark)?
            .clone();
        let mut due = TimerBatch::new(TimeDomain::EventTime, operator);
        self.timers.retain(|(at, owner, key, namespace)| {
            let is_due = *at <= watermark && *owner == operator;
            if is_due {
                due.push(*at, key, namespace);
            }
            !is_due
        });
        Some(due)
    }
}

/// Serves a guest from a [`TaskState`].
#[derive(Debug, Clone, Default)]
pub struct Task(pub Arc<Mutex<TaskState>>);

fn at(column: &Column, index: usize) -> Vec<u8> {
    column.get(index).unwrap_or_default().to_vec()
}

#[async_trait::async_trait]
impl TaskHost for Task {
    async fn emit(&mut self, port: u32, batch: Batch) -> Result<(), HostError> {
        let mut task = self.0.lock();
        if !task.blackhole {
            task.emitted.push((port, batch));
        }
        Ok(())
    }

    fn get_many(
        &mut self,
        state: u32,
        keys: &Column,
        subkeys: &Column,
    ) -> Result<Column, HostError> {
        let task = self.0.lock();
        let mut values = Column::default();
        for index in 0..keys.len() {
            let entry = task
                .entries
                .get(&(state, at(keys, index), at(subkeys, index)));
            values.push(entry.map(Vec::as_slice));
        }
        Ok(values)
    }

    fn put_many(&mut self, state: u32, entries: Entries) -> Result<(), HostError> {
        let mut task = self.0.lock();
        for index in 0..entries.keys.len() {
            let key = (state, at(&entries.keys, index), at(&entries.subkeys, index));
            match entries.values.get(index) {
                Some(value) => task.entries.insert(key, value.to_vec()),
                None => task.entries.remove(&key),
            };
        }
        Ok(())
    }

    fn scan(&mut self, _: u32, _: &[u8], _: Option<&[u8]>, _: u32) -> Result<Entries, HostError> {
        Ok(Entries::default())
    }

    fn set_timers(&mut self, timers: TimerBatch) -> Result<(), HostError> {
        let mut task = self.0.lock();
        for (index, &due) in timers.timestamps.iter().enumerate() {
            let namespace = timers.namespace(index).to_vec();
            task.timers
                .insert((due, timers.operator, at(&timers.keys, index), namespace));
        }
        Ok(())
    }

    fn delete_timers(&mut self, timers: TimerBatch) -> Result<(), HostError> {
        let mut task = self.0.lock();
        for (index, &due) in timers.timestamps.iter().enumerate() {
            let namespace = timers.namespace(index).to_vec();
            task.timers
                .remove(&(due, timers.operator, at(&timers.keys, index), namespace));
        }
        Ok(())
    }

    fn current_watermark(&self) -> i64 {
        self.0.lock().watermark.unwrap_or(NO_WATERMARK)
    }

    fn add_metric(&mut self, _: u32, _: &str, _: u64) {}

    fn set_metric(&mut self, _: u32, _: &str, _: f64) {}

    fn log(&mut self, _: Level, _: Option<u32>, message: &str) {
        self.0.lock().logs.push(message.to_owned());
    }
}
