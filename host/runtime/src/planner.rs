//! The planner process: checks, compiles and plans one module, and ends.
//!
//! It gives up what it does not need before it looks at the module: no more memory, CPU time or
//! files than a compiler wants, no core dumps, no new privileges. Whoever started it kills it when
//! it takes too long; a crash in here is an answer too.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    path::Path,
    process::ExitCode,
    time::Duration,
};

use tidemill_planner::{Action, Answer, PlanJob, Request, hash_module};
use tidemill_types::{Batch, Column, ErrorKind, JobGraph, ModuleHash, TimerBatch};

use crate::{
    Entries, Error, GuestEnv, GuestError, HostError, Interruption, Level, Limits, PlanRequest,
    Runtime, RuntimeConfig, TaskHost, admission::MODULE_BYTES_MAX,
};

/// Checks what a graph connects to; an error is a text for the submitter.
pub type Preflight = fn(&JobGraph) -> Result<(), String>;

/// The longest question.
const REQUEST_BYTES_MAX: u64 = 16 << 20;
/// What a job's function may use while it describes its graph.
const PLAN_MEMORY_BYTES: u64 = 256 << 20;
/// The size of a graph.
const GRAPH_BYTES_MAX: usize = 8 << 20;
/// What the compiler may allocate.
const DATA_BYTES_MAX: u64 = 4 << 30;
/// The largest file: compiled code.
const FILE_BYTES_MAX: u64 = 2 << 30;
/// Open files: the module, the cache, and what a preflight check connects to.
const FILES_MAX: u64 = 256;
/// The stack of the thread that parses and compiles.
const STACK_BYTES: usize = 64 << 20;

/// Reads a [`Request`] from standard input and writes an [`Answer`] to standard output.
pub fn main(preflight: Preflight) -> ExitCode {
    // Parsers and compilers recurse; a thread can have as much stack as it takes.
    let worker = std::thread::Builder::new()
        .name("planner".into())
        .stack_size(STACK_BYTES)
        .spawn(move || serve(preflight));
    match worker.map(std::thread::JoinHandle::join) {
        Ok(Ok(Ok(()))) => ExitCode::SUCCESS,
        Ok(Ok(Err(error))) | Err(error) => {
            // Whoever asked reads this; there is nobody else to tell if they do not.
            let _unread = writeln!(io::stderr(), "{error}");
            ExitCode::FAILURE
        }
        Ok(Err(_panic)) => ExitCode::FAILURE,
    }
}

fn serve(preflight: Preflight) -> io::Result<()> {
    let mut question = Vec::new();
    io::stdin()
        .take(REQUEST_BYTES_MAX)
        .read_to_end(&mut question)?;
    let request: Request = serde_json::from_slice(&question)?;
    confine(request.compile_seconds)?;
    let answer = answer(&request, preflight).unwrap_or_else(|failure| Answer::Failed {
        kind: failure.0,
        message: failure.1,
    });
    let mut stdout = io::stdout().lock();
    serde_json::to_writer(&mut stdout, &answer)?;
    stdout.flush()
}

/// Gives up what is not needed.
#[cfg(target_os = "linux")]
fn confine(compile_seconds: u64) -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    rustix::thread::set_no_new_privs(true)?;
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as u64;
    let limits = [
        (Resource::Core, 0),
        (Resource::Data, DATA_BYTES_MAX),
        (Resource::Fsize, FILE_BYTES_MAX),
        (Resource::Nofile, FILES_MAX),
        (Resource::Cpu, (compile_seconds + 30).saturating_mul(cores)),
    ];
    for (resource, limit) in limits {
        let hard = getrlimit(resource).maximum;
        let limit = Some(hard.map_or(limit, |hard| hard.min(limit)));
        setrlimit(
            resource,
            Rlimit {
                current: limit,
                maximum: limit,
            },
        )?;
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
#[expect(clippy::unnecessary_wraps, reason = "as on Linux")]
fn confine(_compile_seconds: u64) -> io::Result<()> {
    Ok(())
}

/// Whose fault, and what to say.
struct Failure(ErrorKind, String);

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(error.kind(), error.to_string())
    }
}

fn answer(request: &Request, preflight: Preflight) -> Result<Answer, Failure> {
    let bytes = read_module(&request.module_path)?;
    let module = hash_module(&bytes);
    let mut config = RuntimeConfig::new(&request.cache_dir);
    if request.epochs {
        config.interruption = Interruption::Epoch;
    }
    let runtime = Runtime::new(config)?;
    let job = match &request.action {
        Action::Compile => {
            // Loading also links, which finds what compiling does not.
            ensure_compiled(&runtime, &module, &bytes)?;
            return Ok(Answer::Compiled { module });
        }
        Action::Plan(job) => job,
    };
    let compiled = ensure_compiled(&runtime, &module, &bytes)?;
    let graph = plan(&compiled, job, Duration::from_millis(request.plan_ms))?;
    if job.preflight {
        preflight(&graph).map_err(|message| Failure(ErrorKind::Invalid, message))?;
    }
    Ok(Answer::Planned { module, graph })
}

fn read_module(path: &Path) -> Result<Vec<u8>, Failure> {
    let unreadable = |error: io::Error| {
        Failure(
            ErrorKind::Retry,
            format!("module {} cannot be read: {error}", path.display()),
        )
    };
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(unreadable)?;
    file.take(MODULE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    Ok(bytes)
}

fn ensure_compiled(
    runtime: &Runtime,
    module: &ModuleHash,
    bytes: &[u8],
) -> Result<crate::Module, Failure> {
    if let Some(compiled) = runtime.load(module)? {
        return Ok(compiled);
    }
    runtime.compile(bytes)?;
    runtime.load(module)?.ok_or_else(|| {
        Failure(
            ErrorKind::Retry,
            "compiled code vanished from the cache".to_owned(),
        )
    })
}

fn plan(module: &crate::Module, job: &PlanJob, limit: Duration) -> Result<JobGraph, Failure> {
    let executor = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .map_err(|error| Failure(ErrorKind::Retry, error.to_string()))?;
    let limits = Limits {
        memory_bytes: PLAN_MEMORY_BYTES,
        call: limit,
        output_bytes: GRAPH_BYTES_MAX,
        ..Limits::default()
    };
    let env = GuestEnv {
        job: job.job,
        submitted_at_ms: job.submitted_at_ms,
    };
    let request = PlanRequest {
        args: job.args.clone(),
        config: job.config.clone(),
    };
    let planned = executor.block_on(async {
        let mut guest = module.instantiate(limits, env, Box::new(NoTask)).await?;
        guest.plan(&request).await
    });
    planned.map_err(|error| match error {
        GuestError::Failed { message, .. } => Failure(ErrorKind::Invalid, message),
        error => Failure(error.kind(), format!("the job's function {error}")),
    })
}

/// There is no task while a job is planned.
struct NoTask;

fn no_task() -> HostError {
    HostError::Violation("there is no task while a job is planned".into())
}

#[async_trait::async_trait]
impl TaskHost for NoTask {
    async fn emit(&mut self, _port: u32, _batch: Batch) -> Result<(), HostError> {
        Err(no_task())
    }

    fn get_many(&mut self, _: u32, _: &Column, _: &Column) -> Result<Column, HostError> {
        Err(no_task())
    }

    fn put_many(&mut self, _: u32, _: Entries) -> Result<(), HostError> {
        Err(no_task())
    }

    fn scan(&mut self, _: u32, _: &[u8], _: Option<&[u8]>, _: u32) -> Result<Entries, HostError> {
        Err(no_task())
    }

    fn set_timers(&mut self, _: TimerBatch) -> Result<(), HostError> {
        Err(no_task())
    }

    fn delete_timers(&mut self, _: TimerBatch) -> Result<(), HostError> {
        Err(no_task())
    }

    fn current_watermark(&self) -> i64 {
        tidemill_types::NO_WATERMARK
    }

    fn add_metric(&mut self, _: u32, _: &str, _: u64) {}

    fn set_metric(&mut self, _: u32, _: &str, _: f64) {}

    fn log(&mut self, _: Level, _: Option<u32>, _: &str) {}
}
