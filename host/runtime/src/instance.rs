//! What belongs to one instance: its limits, its view of WASI, and the faults it committed.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use wasmtime::{ResourceLimiter, component::ResourceTable};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use crate::{
    clock::now,
    error::{Frames, GuestError, tidy},
    host::{GuestEnv, Level, Limits, TaskHost},
    interrupt::Watch,
    log::{Gate, LINE_BYTES_MAX, Pipe},
    wasi,
};

/// Core instances, memories and tables of one component: enough for any toolchain's output.
const PARTS_MAX: usize = 100;
/// The elements of one table: more functions than any module may have.
const TABLE_ELEMENTS_MAX: usize = 1_000_000;
/// What one table element costs the host.
const TABLE_ELEMENT_BYTES: u64 = 16;

/// Which calls of the host make sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The graph is being described: no data, state or timers.
    Planning,
    /// From `open` on.
    Running,
}

/// The data of one instance's store.
pub(crate) struct Instance {
    pub(crate) host: Box<dyn TaskHost>,
    pub(crate) watch: Arc<Watch>,
    pub(crate) limits: Limits,
    pub(crate) phase: Phase,
    pub(crate) memory: MemoryMeter,
    /// Why a host function refused to go on; explains the trap that follows.
    pub(crate) fault: Option<GuestError>,
    /// What the guest reported just before it trapped.
    pub(crate) panic: Option<(Option<u32>, String)>,
    /// The metrics that exist, by operator.
    pub(crate) metrics: HashMap<u32, HashSet<String>>,
    env: GuestEnv,
    wasi: WasiCtx,
    table: ResourceTable,
    gate: Gate,
    output: Pipe,
}

impl Instance {
    pub(crate) fn new(
        limits: Limits,
        env: GuestEnv,
        host: Box<dyn TaskHost>,
        watch: Arc<Watch>,
    ) -> Self {
        let output = Pipe::default();
        let mut table = ResourceTable::new();
        table.set_max_capacity(10_000);
        Self {
            host,
            watch,
            limits,
            phase: Phase::Planning,
            memory: MemoryMeter {
                limit: limits.memory_bytes,
                used: 0,
                exceeded: None,
            },
            fault: None,
            panic: None,
            metrics: HashMap::new(),
            env,
            wasi: wasi::fixed(&env, &output),
            table,
            gate: Gate::new(limits.log_bytes, now()),
            output,
        }
    }

    /// Clock and randomness become real, and the task's calls are allowed.
    pub(crate) fn go_live(&mut self) {
        self.phase = Phase::Running;
        self.wasi = wasi::real(&self.env, &self.output);
    }

    /// Records why the call cannot go on.
    pub(crate) fn fault(&mut self, fault: GuestError) -> wasmtime::Error {
        let error = wasmtime::Error::msg(fault.to_string());
        self.fault.get_or_insert(fault);
        error
    }

    pub(crate) fn violation(&mut self, message: &str) -> wasmtime::Error {
        let message = tidy(message);
        self.fault(GuestError::Violation {
            message,
            backtrace: Frames::default(),
        })
    }

    /// Writes a line to the task's log, if the rate allows it.
    pub(crate) fn log(&mut self, level: Level, operator: Option<u32>, message: &str) {
        let end = message.floor_char_boundary(LINE_BYTES_MAX.min(message.len()));
        let message = &message[..end];
        if let Some(dropped) = self.gate.admit(message.len().max(16), now()) {
            if dropped > 0 {
                let text = format!("{dropped} lines of output were dropped: too much of it");
                self.host.log(Level::Warn, None, &text);
            }
            self.host.log(level, operator, &tidy(message));
        }
    }

    /// Moves standard output to the log.
    pub(crate) fn drain_output(&mut self, all: bool) {
        if self.output.is_empty() {
            return;
        }
        let (lines, lost) = self.output.take_lines(all);
        self.gate.count_dropped(lost);
        for line in lines {
            self.log(Level::Info, None, &line);
        }
    }
}

impl WasiView for Instance {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

/// Counts memories and tables together.
pub(crate) struct MemoryMeter {
    limit: u64,
    pub(crate) used: u64,
    /// What the guest would have had when it was refused.
    pub(crate) exceeded: Option<u64>,
}

impl MemoryMeter {
    fn grow(&mut self, by: u64) -> wasmtime::Result<bool> {
        let wanted = self.used.saturating_add(by);
        if wanted > self.limit {
            self.exceeded = Some(wanted);
            // A trap says what happened; a failed growth would end in the guest's own words.
            wasmtime::bail!("memory limit exceeded");
        }
        self.used = wanted;
        Ok(true)
    }

    /// The error, if the limit was exceeded.
    pub(crate) fn error(&self) -> Option<GuestError> {
        let wanted = self.exceeded?;
        Some(GuestError::Memory {
            limit: self.limit,
            wanted,
            backtrace: Frames::default(),
        })
    }
}

impl ResourceLimiter for MemoryMeter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        #[cfg(target_os = "linux")]
        if crate::interrupt::page::is_extra_memory(current, desired, maximum) {
            return Ok(true);
        }
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        self.grow(desired.saturating_sub(current) as u64)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if desired > TABLE_ELEMENTS_MAX || maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        self.grow((desired.saturating_sub(current) as u64).saturating_mul(TABLE_ELEMENT_BYTES))
    }

    fn instances(&self) -> usize {
        PARTS_MAX
    }

    fn tables(&self) -> usize {
        PARTS_MAX
    }

    fn memories(&self) -> usize {
        PARTS_MAX
    }
}
