//! The host's functions as a guest calls them: shapes are checked here, meaning by the task.

use std::collections::HashSet;

use tidemill_types::{Batch, Column, TimerBatch};
use wasmtime::component::HasSelf;

use crate::{
    bindings::{
        Job,
        tidemill::job::{logging, metrics, output, state, timers, types},
    },
    convert,
    error::{GuestError, tidy},
    host::HostError,
    instance::{Instance, Phase},
};

type Linker = wasmtime::component::Linker<Instance>;

/// The longest name of a metric.
const METRIC_NAME_BYTES_MAX: usize = 200;
/// How many metrics one subtask may have.
const METRICS_MAX: usize = 1_000;
/// The longest key or sub-key of a state.
const STATE_KEY_BYTES_MAX: usize = 1 << 20;

/// Offers everything that a guest may import.
pub(crate) fn add_to_linker(linker: &mut Linker) -> wasmtime::Result<()> {
    wasmtime_wasi::p2::add_to_linker_async(linker)?;
    Job::add_to_linker::<Instance, HasSelf<Instance>>(linker, |instance| instance)
}

impl Instance {
    fn require_running(&mut self, what: &str) -> wasmtime::Result<()> {
        match self.phase {
            Phase::Running => Ok(()),
            Phase::Planning => Err(self.violation(&format!("{what} was called before open"))),
        }
    }

    fn answer<T>(&mut self, answer: Result<T, HostError>) -> wasmtime::Result<T> {
        answer.map_err(|error| match error {
            HostError::Violation(message) => self.violation(&message),
            HostError::Cancelled => {
                self.fault(GuestError::Cancelled("the task is cancelled".into()))
            }
            HostError::Failed(message) => self.fault(GuestError::Host(message)),
        })
    }

    fn check_batch(&mut self, batch: &Batch) -> wasmtime::Result<()> {
        batch
            .validate()
            .map_err(|e| self.violation(&format!("a batch in output.emit: {e}")))?;
        let (bytes, limit) = (batch.byte_size(), self.limits.output_bytes);
        if bytes > limit {
            let text = format!("a batch of {bytes} bytes in output.emit; {limit} are allowed");
            return Err(self.violation(&text));
        }
        Ok(())
    }

    /// Checks a column and, if it is present or required, its number of entries.
    fn check_column(
        &mut self,
        what: &str,
        column: &Column,
        entries: Option<usize>,
    ) -> wasmtime::Result<()> {
        column
            .validate()
            .map_err(|error| self.violation(&format!("{what}: {error}")))?;
        if entries.is_some_and(|entries| column.len() != entries) {
            let text = format!(
                "{what}: {} entries; each column needs one per key",
                column.len()
            );
            return Err(self.violation(&text));
        }
        Ok(())
    }

    fn check_keys(&mut self, what: &str, keys: &Column, subkeys: &Column) -> wasmtime::Result<()> {
        self.check_column(what, keys, None)?;
        let expected = (!subkeys.is_empty()).then_some(keys.len());
        self.check_column(what, subkeys, expected)?;
        if keys.nulls.is_empty() && !too_long(keys) && !too_long(subkeys) {
            return Ok(());
        }
        let text = format!("{what}: a key that is null or longer than {STATE_KEY_BYTES_MAX} bytes");
        Err(self.violation(&text))
    }

    fn check_timers(&mut self, what: &str, timers: &TimerBatch) -> wasmtime::Result<()> {
        timers
            .validate()
            .map_err(|error| self.violation(&format!("{what}: {error}")))?;
        self.check_keys(what, &timers.keys, &timers.namespaces)
    }
}

fn too_long(column: &Column) -> bool {
    column.data.len() > STATE_KEY_BYTES_MAX
        && (0..column.len()).any(|entry| column.bytes(entry).len() > STATE_KEY_BYTES_MAX)
}

impl types::Host for Instance {}

impl output::Host for Instance {
    async fn emit(&mut self, port: u32, records: types::BatchResult) -> wasmtime::Result<()> {
        self.require_running("output.emit")?;
        let batch = convert::batch(records);
        self.check_batch(&batch)?;
        self.drain_output(false);
        let watch = std::sync::Arc::clone(&self.watch);
        let answer = {
            let _waiting = watch.wait();
            self.host.emit(port, batch).await
        };
        self.answer(answer)
    }
}

impl state::Host for Instance {
    fn get_many(
        &mut self,
        state: u32,
        keys: types::ColumnResult,
        subkeys: types::ColumnResult,
    ) -> wasmtime::Result<types::ColumnResult> {
        self.require_running("state.get-many")?;
        let (keys, subkeys) = (convert::column(keys), convert::column(subkeys));
        self.check_keys("state.get-many", &keys, &subkeys)?;
        let answer = self.host.get_many(state, &keys, &subkeys);
        self.answer(answer).map(convert::column_result)
    }

    fn put_many(&mut self, state: u32, entries: state::Entries) -> wasmtime::Result<()> {
        self.require_running("state.put-many")?;
        let entries = convert::entries(entries);
        self.check_keys("state.put-many", &entries.keys, &entries.subkeys)?;
        self.check_column("state.put-many", &entries.values, Some(entries.keys.len()))?;
        if !entries.expiries.is_empty() && entries.expiries.len() != entries.keys.len() {
            return Err(self.violation("state.put-many: expiries for some keys only"));
        }
        let answer = self.host.put_many(state, entries);
        self.answer(answer)
    }

    fn scan(
        &mut self,
        state: u32,
        key: Vec<u8>,
        after: Option<Vec<u8>>,
        max_bytes: u32,
    ) -> wasmtime::Result<state::Entries> {
        self.require_running("state.scan")?;
        let answer = self.host.scan(state, &key, after.as_deref(), max_bytes);
        self.answer(answer).map(convert::entries_result)
    }
}

impl timers::Host for Instance {
    fn set_many(&mut self, timers: types::TimerBatchResult) -> wasmtime::Result<()> {
        self.require_running("timers.set-many")?;
        let timers = convert::timers(timers);
        self.check_timers("timers.set-many", &timers)?;
        let answer = self.host.set_timers(timers);
        self.answer(answer)
    }

    fn delete_many(&mut self, timers: types::TimerBatchResult) -> wasmtime::Result<()> {
        self.require_running("timers.delete-many")?;
        let timers = convert::timers(timers);
        self.check_timers("timers.delete-many", &timers)?;
        let answer = self.host.delete_timers(timers);
        self.answer(answer)
    }

    fn current_watermark(&mut self) -> wasmtime::Result<i64> {
        Ok(self.host.current_watermark())
    }
}

impl Instance {
    fn check_metric(&mut self, operator: u32, name: &str) -> wasmtime::Result<()> {
        if self
            .metrics
            .get(&operator)
            .is_some_and(|names| names.contains(name))
        {
            return Ok(());
        }
        if name.is_empty() || name.len() > METRIC_NAME_BYTES_MAX || name.contains(char::is_control)
        {
            let text = format!(
                "a metric's name of {} bytes; 1 to {METRIC_NAME_BYTES_MAX} printable ones are allowed",
                name.len()
            );
            return Err(self.violation(&text));
        }
        if self.metrics.values().map(HashSet::len).sum::<usize>() >= METRICS_MAX {
            return Err(self.violation(&format!("more than {METRICS_MAX} metrics")));
        }
        self.metrics
            .entry(operator)
            .or_default()
            .insert(name.to_owned());
        Ok(())
    }
}

impl metrics::Host for Instance {
    fn add(&mut self, operator: u32, name: String, delta: u64) -> wasmtime::Result<()> {
        self.check_metric(operator, &name)?;
        self.host.add_metric(operator, &name, delta);
        Ok(())
    }

    fn set(&mut self, operator: u32, name: String, value: f64) -> wasmtime::Result<()> {
        self.check_metric(operator, &name)?;
        self.host.set_metric(operator, &name, value);
        Ok(())
    }
}

impl logging::Host for Instance {
    fn log(
        &mut self,
        level: logging::Level,
        operator: Option<u32>,
        message: String,
    ) -> wasmtime::Result<()> {
        Self::log(self, convert::level(level), operator, &message);
        Ok(())
    }

    fn panicked(&mut self, operator: Option<u32>, message: String) -> wasmtime::Result<()> {
        self.panic = Some((operator, tidy(&message)));
        Ok(())
    }
}
