//! A compiled module, and running instances of it.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use tidemill_types::{Batch, JobGraph, TimerBatch};
use wasmtime::Store;

use crate::{
    bindings::{
        Job, JobPre,
        exports::tidemill::job::{planner, task},
        tidemill::job::types,
    },
    convert,
    engine::Shared,
    error::{Frames, GuestError, tidy},
    host::{GuestEnv, Limits, OpenRequest, OperatorState, PlanRequest, Progress, TaskHost},
    instance::Instance,
    interrupt::{Ended, InterruptHandle, Interruption, Stop, Watch, epoch},
};

/// How much more than a batch's bytes its shape on the way may take.
const TRANSFER_SLACK_BYTES: usize = 1 << 20;

/// Compiled code of a module, ready to be instantiated. Cheap to clone.
#[derive(Clone)]
pub struct Module {
    pub(crate) shared: Arc<Shared>,
    pub(crate) linked: Arc<JobPre<Instance>>,
}

impl std::fmt::Debug for Module {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Module")
    }
}

impl Module {
    /// A new instance. It must be used within a tokio runtime.
    ///
    /// # Errors
    ///
    /// What the guest did wrong while it started.
    pub async fn instantiate(
        &self,
        limits: Limits,
        env: GuestEnv,
        host: Box<dyn TaskHost>,
    ) -> Result<Guest, GuestError> {
        let watch = Watch::new(limits.call);
        self.shared.watchdog.add(&watch);
        let instance = Instance::new(limits, env, host, Arc::clone(&watch));
        let mut store = Store::new(self.linked.engine(), instance);
        store.limiter(|instance| &mut instance.memory);
        store.set_hostcall_fuel(limits.output_bytes + TRANSFER_SLACK_BYTES);
        store.set_max_component_handles(10_000);
        if self.shared.interruption == Interruption::Epoch {
            epoch::attach(&mut store, &watch);
        }
        let mut call = Call {
            store,
            watch,
            usable: true,
            own: Duration::ZERO,
        };
        call.begin()?;
        let linked = Arc::clone(&self.linked);
        let outcome = {
            let watch = Arc::clone(&call.watch);
            let instantiated = linked.instantiate_async(&mut call.store);
            race(&watch, creating_memories(&watch, instantiated)).await
        };
        let exports = call.finish(outcome)?;
        Ok(Guest { exports, call })
    }
}

/// An instance of a module. Its calls come one at a time; after an error other than
/// [`GuestError::Failed`] it is of no further use.
pub struct Guest {
    exports: Job,
    call: Call,
}

impl std::fmt::Debug for Guest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Guest")
    }
}

/// The store and the state of its calls.
struct Call {
    store: Store<Instance>,
    watch: Arc<Watch>,
    /// False while a call runs, so that a call that was dropped leaves it false.
    usable: bool,
    own: Duration,
}

/// Calls an export of `task` and takes its result apart.
macro_rules! call_task {
    ($guest:ident.$export:ident($($argument:expr),*)) => {{
        $guest.call.begin()?;
        let watch = Arc::clone(&$guest.call.watch);
        let task = $guest.exports.tidemill_job_task();
        let outcome = race(&watch, task.$export(&mut $guest.call.store, $($argument),*)).await;
        $guest.call.finish(outcome)?.map_err(failed)
    }};
}

impl Guest {
    /// Runs the author's function and returns the graph it describes.
    ///
    /// # Errors
    ///
    /// [`GuestError::Failed`] with the author's own message, [`GuestError::Violation`] for a graph
    /// that is not acceptable, or how the call ended.
    pub async fn plan(&mut self, request: &PlanRequest) -> Result<JobGraph, GuestError> {
        let args: Vec<_> = request.args.iter().map(String::as_str).collect();
        let config: Vec<_> = request
            .config
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        let request = planner::PlanRequest {
            args: &args,
            config: &config,
        };
        self.call.begin()?;
        let watch = Arc::clone(&self.call.watch);
        let planner = self.exports.tidemill_job_planner();
        let outcome = race(&watch, planner.call_plan(&mut self.call.store, request)).await;
        let graph = self
            .call
            .finish(outcome)?
            .map_err(|message| GuestError::Failed {
                operator: None,
                message: tidy(&message),
            })?;
        let graph = convert::job_graph(graph);
        graph
            .validate()
            .map_err(|error| violation(&error.to_string()))?;
        Ok(graph)
    }

    /// Builds the chain of one vertex. Clock and randomness are real from here on.
    ///
    /// # Errors
    ///
    /// How the call ended.
    pub async fn open(&mut self, request: &OpenRequest) -> Result<(), GuestError> {
        self.call.store.data_mut().go_live();
        let request = task::OpenRequest {
            vertex: request.vertex,
            subtask: request.subtask,
            parallelism: request.parallelism,
            max_parallelism: request.max_parallelism,
            attempt: request.attempt,
            cache_bytes: request.cache_bytes,
            restored: request.restored,
        };
        call_task!(self.call_open(request))
    }

    /// Hands back operator state.
    ///
    /// # Errors
    ///
    /// How the call ended.
    pub async fn restore(&mut self, states: &[OperatorState]) -> Result<(), GuestError> {
        let items: Vec<Vec<&[u8]>> = states
            .iter()
            .map(|s| s.items.iter().map(Vec::as_slice).collect())
            .collect();
        let states: Vec<_> = states
            .iter()
            .zip(&items)
            .map(|(state, items)| types::OperatorStateParam {
                state: state.state,
                items,
            })
            .collect();
        call_task!(self.call_restore(&states))
    }

    /// Handles a batch of one split of one input.
    ///
    /// # Errors
    ///
    /// How the call ended.
    pub async fn process(
        &mut self,
        input: u32,
        split: u32,
        batch: &Batch,
    ) -> Result<Progress, GuestError> {
        let headers = convert::header_params(batch);
        let records = convert::batch_param(batch, &headers);
        let progress = call_task!(self.call_process(input, split, records))?;
        checked(progress, batch.len())
    }

    /// Tells the guest that the watermark has advanced.
    ///
    /// # Errors
    ///
    /// How the call ended.
    pub async fn watermark(&mut self, watermark: i64) -> Result<Progress, GuestError> {
        checked(call_task!(self.call_watermark(watermark))?, 0)
    }

    /// Delivers timers that are due.
    ///
    /// # Errors
    ///
    /// How the call ended.
    pub async fn fire_timers(
        &mut self,
        timers: &TimerBatch,
        now: i64,
    ) -> Result<Progress, GuestError> {
        let due = convert::timers_param(timers);
        checked(call_task!(self.call_fire_timers(due, now))?, timers.len())
    }

    /// Tells the guest that an input has ended.
    ///
    /// # Errors
    ///
    /// How the call ended.
    pub async fn end_of_input(&mut self, input: u32) -> Result<Progress, GuestError> {
        checked(call_task!(self.call_end_of_input(input))?, 0)
    }

    /// Makes the guest write back its changes and return its operator state.
    ///
    /// # Errors
    ///
    /// How the call ended.
    pub async fn snapshot(&mut self, checkpoint: u64) -> Result<Vec<OperatorState>, GuestError> {
        call_task!(self.call_snapshot(checkpoint)).map(convert::operator_states)
    }

    /// Tells the guest that a checkpoint is durable.
    ///
    /// # Errors
    ///
    /// How the call ended.
    pub async fn checkpoint_complete(&mut self, checkpoint: u64) -> Result<(), GuestError> {
        call_task!(self.call_checkpoint_complete(checkpoint))
    }

    /// Tells the guest that a checkpoint will never complete.
    ///
    /// # Errors
    ///
    /// How the call ended.
    pub async fn checkpoint_aborted(&mut self, checkpoint: u64) -> Result<(), GuestError> {
        call_task!(self.call_checkpoint_aborted(checkpoint))
    }

    /// The task that this instance talks to.
    pub fn host(&mut self) -> &mut dyn TaskHost {
        self.call.store.data_mut().host.as_mut()
    }

    /// What the instance's memories and tables take.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.call.store.data().memory.used
    }

    /// The guest's own time in the last call, without its waiting in `emit`.
    #[must_use]
    pub const fn last_call_time(&self) -> Duration {
        self.call.own
    }

    /// Interrupts calls of this instance from elsewhere.
    #[must_use]
    pub fn interrupt_handle(&self) -> InterruptHandle {
        InterruptHandle(Arc::clone(&self.call.watch))
    }
}

impl Call {
    fn begin(&mut self) -> Result<(), GuestError> {
        if !self.usable {
            return Err(GuestError::Gone);
        }
        self.watch.begin().map_err(GuestError::Cancelled)?;
        self.usable = false;
        Ok(())
    }

    /// Ends the call; an `outcome` of `None` means that it was dropped while it was suspended.
    fn finish<T>(&mut self, outcome: Option<wasmtime::Result<T>>) -> Result<T, GuestError> {
        let ended = self.watch.end();
        self.own = ended.own;
        let instance = self.store.data_mut();
        instance.drain_output(!matches!(outcome, Some(Ok(_))));
        match outcome {
            Some(Ok(result)) => {
                // A guest can survive a refused growth only by catching the trap, which it cannot.
                self.usable = true;
                Ok(result)
            }
            Some(Err(error)) => Err(self.explain(&error, ended)),
            None => Err(self.stopped(ended, Frames::default())),
        }
    }

    fn explain(&mut self, error: &wasmtime::Error, ended: Ended) -> GuestError {
        let backtrace = Frames::of(error);
        let instance = self.store.data_mut();
        if let Some(fault) = instance.fault.take().or_else(|| instance.memory.error()) {
            return fault.with_backtrace(backtrace);
        }
        let interrupted = matches!(
            error.downcast_ref::<wasmtime::Trap>(),
            Some(wasmtime::Trap::MemoryOutOfBounds | wasmtime::Trap::Interrupt)
        );
        if interrupted && ended.stop.is_some() {
            return self.stopped(ended, backtrace);
        }
        match (GuestError::from_wasmtime(error), instance.panic.take()) {
            (GuestError::Trap { backtrace, .. }, Some((operator, message))) => GuestError::Trap {
                operator,
                message: format!("panicked: {message}"),
                backtrace,
            },
            (error, _) => error,
        }
    }

    fn stopped(&self, ended: Ended, backtrace: Frames) -> GuestError {
        match ended.stop {
            Some(Stop::Cancelled(reason)) => GuestError::Cancelled(reason),
            Some(Stop::Deadline) | None => GuestError::Interrupted {
                after: ended.own,
                limit: self.watch.limit(),
                backtrace,
            },
        }
    }
}

/// Drives a call to its end, or drops it when it is to stop while it is suspended in an import.
async fn race<T>(
    watch: &Watch,
    call: impl Future<Output = wasmtime::Result<T>>,
) -> Option<wasmtime::Result<T>> {
    let mut call = pin!(call);
    poll_fn(|context| match call.as_mut().poll(context) {
        Poll::Ready(result) => Poll::Ready(Some(result)),
        Poll::Pending if watch.poll_stopped(context) => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    })
    .await
}

/// Lets the memories that are created by `call` find their watch.
async fn creating_memories<T>(watch: &Arc<Watch>, call: impl Future<Output = T>) -> T {
    let mut call = pin!(call);
    poll_fn(|context| {
        #[cfg(target_os = "linux")]
        return crate::interrupt::page::with_watch(watch, || call.as_mut().poll(context));
        #[cfg(not(target_os = "linux"))]
        return {
            let _ = watch;
            call.as_mut().poll(context)
        };
    })
    .await
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn failed(failure: types::Failure) -> GuestError {
    GuestError::Failed {
        operator: failure.operator,
        message: tidy(&failure.message),
    }
}

fn violation(message: &str) -> GuestError {
    GuestError::Violation {
        message: tidy(message),
        backtrace: Frames::default(),
    }
}

/// Rejected records must be records of the batch.
fn checked(progress: task::Progress, records: usize) -> Result<Progress, GuestError> {
    if let Some(rejected) = progress
        .rejected
        .iter()
        .find(|r| r.record as usize >= records)
    {
        return Err(violation(&format!(
            "record {} of {records} was rejected; there is no such record",
            rejected.record
        )));
    }
    Ok(convert::progress(progress))
}
