//! A job's life in one instance of its component: planned, opened as one vertex, then called.
//!
//! [`Instance`] is the contract's `planner` and `task` on any target; [`Exported`] puts one of them
//! behind the component's exports.

use std::cell::RefCell;
use std::fmt;
use std::marker::PhantomData;

use crate::bindings::exports::tidemill::job::planner::{self, JobGraph, PlanRequest};
use crate::bindings::exports::tidemill::job::task::{self, OpenRequest, Progress};
use crate::bindings::tidemill::job::logging::Level;
use crate::bindings::tidemill::job::types::{
    Batch, Column, Failure, OperatorState, TimeDomain, TimerBatch,
};
use crate::chain::{Chain, Signal};
use crate::context::{Context, NOBODY, Opened};
use crate::graph::Finished;
use crate::{Args, Env, Result, host};

/// The function that describes a job.
pub type JobFunction = fn(&Env, &Args) -> Result<()>;

/// A planned job, of which one vertex may have been opened.
#[derive(Default)]
pub struct Instance {
    planned: Option<Finished>,
    task: Option<Task>,
}

struct Task {
    chain: Box<dyn Chain>,
    cx: Context,
}

impl Instance {
    /// Runs the job's function.
    ///
    /// # Errors
    ///
    /// The author's own, or what is wrong with the graph.
    pub fn plan(
        &mut self,
        name: &str,
        job: JobFunction,
        request: PlanRequest,
    ) -> Result<JobGraph, String> {
        let args = Args::parse(&request.args).map_err(|error| error.to_string())?;
        let env = Env::new(request.config);
        job(&env, &args).map_err(|error| error.to_string())?;
        let finished = env.take_graph().finish(name)?;
        for unused in args.unused() {
            let message = format!(
                "argument --{unused} is not used by this job, which takes: {}",
                args.asked_list()
            );
            host::log(Level::Warn, None, &message);
        }
        let graph = finished.graph.clone();
        self.planned = Some(finished);
        Ok(graph)
    }

    /// Becomes one vertex of the planned graph.
    ///
    /// # Errors
    ///
    /// When there is no such vertex, or nothing has been planned.
    pub fn open(&mut self, request: &OpenRequest) -> Result<(), Failure> {
        let planned = self
            .planned
            .take()
            .ok_or_else(|| failure("open was called before plan"))?;
        let Finished { graph, chains } = planned;
        let index = request.vertex as usize;
        let vertex = graph
            .vertices
            .get(index)
            .ok_or_else(|| failure(&format!("there is no vertex {index} in the planned graph")))?;
        let operators = vertex.operators.len();
        let mut chains = chains;
        let (chain, ports) = chains.swap_remove(index);
        let cx = Context::new(Opened::from(request), ports, operators);
        self.task = Some(Task { chain, cx });
        self.call(|task| task.chain.signal(&mut task.cx, Signal::Open))
            .map(drop)
    }

    /// Handles a batch.
    ///
    /// # Errors
    ///
    /// The failure of the task.
    pub fn process(&mut self, input: u32, split: u32, batch: &Batch) -> Result<Progress, Failure> {
        self.call(|task| {
            task.cx.split = split;
            task.chain.process(&mut task.cx, input, batch);
        })
    }

    /// The watermark has advanced.
    ///
    /// # Errors
    ///
    /// The failure of the task.
    pub fn watermark(&mut self, watermark: i64) -> Result<Progress, Failure> {
        self.call(|task| {
            task.cx.watermark = watermark.max(task.cx.watermark);
            task.chain
                .signal(&mut task.cx, Signal::Watermark(watermark));
        })
    }

    /// Timers are due.
    ///
    /// # Errors
    ///
    /// The failure of the task.
    pub fn fire_timers(&mut self, timers: &TimerBatch, now: i64) -> Result<Progress, Failure> {
        self.call(|task| {
            if timers.domain == TimeDomain::EventTime {
                // Timers see the watermark that made them due.
                task.cx.watermark = now.max(task.cx.watermark);
            }
            task.chain.fire(&mut task.cx, timers);
        })
    }

    /// An input has ended.
    ///
    /// # Errors
    ///
    /// The failure of the task.
    pub fn end_of_input(&mut self, input: u32) -> Result<Progress, Failure> {
        self.call(|task| task.chain.signal(&mut task.cx, Signal::EndOfInput(input)))
    }

    /// A barrier has arrived at all inputs.
    ///
    /// # Errors
    ///
    /// The failure of the task.
    pub fn snapshot(&mut self) -> Result<Vec<OperatorState>, Failure> {
        self.call(|task| task.chain.signal(&mut task.cx, Signal::Snapshot))?;
        Ok(Vec::new())
    }

    /// Runs one call: what it does, then the flush that ends every call.
    fn call(&mut self, f: impl FnOnce(&mut Task)) -> Result<Progress, Failure> {
        let task = self
            .task
            .as_mut()
            .ok_or_else(|| failure("no vertex has been opened"))?;
        task.cx.record = NOBODY;
        f(task);
        task.cx.record = NOBODY;
        if !task.cx.failed() {
            task.chain.signal(&mut task.cx, Signal::Flush);
        }
        task.cx.finish()
    }
}

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instance")
            .field("planned", &self.planned.is_some())
            .field("opened", &self.task.is_some())
            .finish()
    }
}

fn failure(message: &str) -> Failure {
    Failure {
        operator: None,
        message: message.to_owned(),
    }
}

/// A job as the macro [`job`](crate::job) declares it.
pub trait Job {
    /// What the job is called unless it names itself.
    const NAME: &'static str;
    /// Describes it.
    const FUNCTION: JobFunction;
}

/// The exports of a job's component.
#[derive(Debug)]
pub struct Exported<J>(PhantomData<J>);

thread_local! {
    static INSTANCE: RefCell<Instance> = RefCell::default();
}

fn with<R>(f: impl FnOnce(&mut Instance) -> R) -> R {
    INSTANCE.with(|instance| f(&mut instance.borrow_mut()))
}

impl<J: Job> planner::Guest for Exported<J> {
    fn plan(request: PlanRequest) -> Result<JobGraph, String> {
        crate::panic::report_panics();
        with(|instance| instance.plan(J::NAME, J::FUNCTION, request))
    }
}

impl<J: Job> task::Guest for Exported<J> {
    fn open(request: OpenRequest) -> Result<(), Failure> {
        with(|instance| instance.open(&request))
    }

    fn restore(_states: Vec<OperatorState>) -> Result<(), Failure> {
        // No operator of the SDK has state that belongs to no key yet.
        Ok(())
    }

    fn process(input: u32, split: u32, records: Batch) -> Result<Progress, Failure> {
        with(|instance| instance.process(input, split, &records))
    }

    fn watermark(watermark: i64) -> Result<Progress, Failure> {
        with(|instance| instance.watermark(watermark))
    }

    fn fire_timers(timers: TimerBatch, now: i64) -> Result<Progress, Failure> {
        with(|instance| instance.fire_timers(&timers, now))
    }

    fn end_of_input(input: u32) -> Result<Progress, Failure> {
        with(|instance| instance.end_of_input(input))
    }

    fn snapshot(_checkpoint: u64) -> Result<Vec<OperatorState>, Failure> {
        with(Instance::snapshot)
    }

    fn checkpoint_complete(_checkpoint: u64) -> Result<(), Failure> {
        Ok(())
    }

    fn checkpoint_aborted(_checkpoint: u64) -> Result<(), Failure> {
        Ok(())
    }

    fn poll_source(_max_records: u32) -> Result<bool, Failure> {
        Err(failure("this job has no source of its own"))
    }

    fn completions(_ids: Vec<u64>, _answers: Column) -> Result<Progress, Failure> {
        Err(failure("this job has sent no requests"))
    }
}
