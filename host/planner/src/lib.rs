//! Asking the planner process: what a module plans, and compiling it.
//!
//! Compiling and planning run what strangers wrote, so neither the coordinator nor a worker does
//! it: each request starts a short-lived process of the same binary (`tidemill planner`, see the
//! runtime crate) with resource limits, asks it one question over its standard input, and kills it
//! when it takes too long. This crate is the asking side and the shapes of question and answer.
//!
//! # Invariants
//!
//! 1. No more than `concurrency` planners run at a time; everything read from one is bounded.
//! 2. A planner never outlives its request: it is killed when the request is dropped, and asks the
//!    system to be killed when its parent dies.

mod process;

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitStatus,
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
pub use tidemill_types::ModuleHash;
use tidemill_types::{ErrorKind, JobGraph, JobId};
use tokio::sync::Semaphore;

/// The hash by which a module is known.
#[must_use]
pub fn hash_module(bytes: &[u8]) -> ModuleHash {
    ModuleHash::from_bytes(Sha256::digest(bytes).into())
}

/// How planner processes are started.
#[derive(Debug, Clone)]
pub struct PlannerConfig {
    /// The program, usually this one.
    pub program: PathBuf,
    /// Its arguments, usually `planner`.
    pub args: Vec<String>,
    /// Where compiled code is kept; the worker's runtime must use the same.
    pub cache_dir: PathBuf,
    /// How long compiling may take.
    pub compile_timeout: Duration,
    /// How long the job's function may take.
    pub plan_timeout: Duration,
    /// How many planners may run at a time.
    pub concurrency: usize,
    /// Interrupt by epochs where the platform has something better; the worker's runtime must
    /// agree, or it finds no code.
    pub epochs: bool,
}

impl PlannerConfig {
    /// This program's own planner, with default limits.
    ///
    /// # Errors
    ///
    /// If the path of this program is unknown.
    pub fn of_this_program(cache_dir: impl Into<PathBuf>) -> io::Result<Self> {
        Ok(Self::new(std::env::current_exe()?, cache_dir))
    }

    /// The planner of a program, with default limits.
    #[must_use]
    pub fn new(program: impl Into<PathBuf>, cache_dir: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            args: vec!["planner".to_owned()],
            cache_dir: cache_dir.into(),
            compile_timeout: Duration::from_secs(60),
            plan_timeout: Duration::from_secs(10),
            concurrency: 2,
            epochs: false,
        }
    }
}

/// What a job is planned with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanJob {
    /// Program arguments.
    pub args: Vec<String>,
    /// Configuration visible to the job, as submitted.
    pub config: Vec<(String, String)>,
    /// Seeds what is random while planning.
    pub job: JobId,
    /// The clock while planning, in milliseconds since the epoch.
    pub submitted_at_ms: i64,
    /// Also check what the graph connects to (brokers, directories), as far as that is possible
    /// before it runs.
    pub preflight: bool,
}

/// A question to a planner process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Where compiled code is kept.
    pub cache_dir: PathBuf,
    /// Interrupt by epochs.
    pub epochs: bool,
    /// How long compiling may take, in seconds; bounds the process's CPU time.
    pub compile_seconds: u64,
    /// How long the job's function may take, in milliseconds.
    pub plan_ms: u64,
    /// The module's file.
    pub module_path: PathBuf,
    /// What to do with it.
    pub action: Action,
}

/// What to do with a module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Check it and put its compiled code into the cache.
    Compile,
    /// The same if need be, and run its planning function.
    Plan(PlanJob),
}

/// A planner process's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// The code is in the cache.
    Compiled {
        /// The module.
        module: ModuleHash,
    },
    /// The code is in the cache and this is the graph.
    Planned {
        /// The module.
        module: ModuleHash,
        /// What it planned; validated.
        graph: JobGraph,
    },
    /// It did not work.
    Failed {
        /// Whose fault it is.
        kind: ErrorKind,
        /// For people.
        message: String,
    },
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The module or its arguments are at fault; the text is for whoever submitted them.
    #[error("{0}")]
    Rejected(String),
    /// It took too long.
    #[error("{what} took longer than {} s and was stopped", limit.as_secs())]
    TimedOut {
        /// What did.
        what: &'static str,
        /// The limit.
        limit: Duration,
    },
    /// The planner process died: the module asks more of the compiler than it may.
    #[error("the planner process ended without an answer ({status}){}{stderr}", if stderr.is_empty() { "" } else { ": " })]
    Crashed {
        /// How.
        status: ExitStatus,
        /// The last thing it said.
        stderr: String,
    },
    /// This installation is at fault.
    #[error("{0}")]
    Failed(String),
    /// The process could not be started or spoken to.
    #[error("planner process {program}")]
    Io {
        /// The program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl PlanError {
    /// What a caller can do.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Rejected(_) | Self::TimedOut { .. } | Self::Crashed { .. } => ErrorKind::Invalid,
            Self::Failed(_) | Self::Io { .. } => ErrorKind::Retry,
        }
    }
}

/// Starts planner processes. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Planner {
    config: Arc<PlannerConfig>,
    running: Arc<Semaphore>,
}

impl Planner {
    /// A planner of this configuration.
    #[must_use]
    pub fn new(config: PlannerConfig) -> Self {
        let running = Arc::new(Semaphore::new(config.concurrency.max(1)));
        Self {
            config: Arc::new(config),
            running,
        }
    }

    /// Checks a module and compiles it into the cache.
    ///
    /// # Errors
    ///
    /// [`PlanError::Rejected`] says what is wrong with the module.
    pub async fn compile(&self, module: &Path) -> Result<ModuleHash, PlanError> {
        match self.ask(module, Action::Compile).await? {
            Answer::Compiled { module } | Answer::Planned { module, .. } => Ok(module),
            Answer::Failed { kind, message } => Err(failed(kind, message)),
        }
    }

    /// The graph that a module plans; its code is in the cache afterwards.
    ///
    /// # Errors
    ///
    /// [`PlanError::Rejected`] says what is wrong with the module or its arguments.
    pub async fn plan(&self, module: &Path, job: PlanJob) -> Result<JobGraph, PlanError> {
        match self.ask(module, Action::Plan(job)).await? {
            Answer::Planned { graph, .. } => Ok(graph),
            Answer::Compiled { .. } => Err(PlanError::Failed(
                "the planner process answered another question".into(),
            )),
            Answer::Failed { kind, message } => Err(failed(kind, message)),
        }
    }

    async fn ask(&self, module: &Path, action: Action) -> Result<Answer, PlanError> {
        let _permit = self
            .running
            .acquire()
            .await
            .expect("the semaphore is never closed");
        let config = &self.config;
        let (what, limit) = match action {
            Action::Compile => ("compiling the module", config.compile_timeout),
            // The process interrupts the job's function itself, and tells where it was.
            Action::Plan(_) => (
                "planning the job",
                config.compile_timeout + config.plan_timeout,
            ),
        };
        let request = Request {
            cache_dir: config.cache_dir.clone(),
            epochs: config.epochs,
            compile_seconds: config.compile_timeout.as_secs().max(1),
            plan_ms: u64::try_from(config.plan_timeout.as_millis()).unwrap_or(u64::MAX),
            module_path: module.to_owned(),
            action,
        };
        let answered = tokio::time::timeout(limit, process::ask(config, &request)).await;
        answered.unwrap_or(Err(PlanError::TimedOut { what, limit }))
    }
}

fn failed(kind: ErrorKind, message: String) -> PlanError {
    match kind {
        ErrorKind::Invalid | ErrorKind::GuestFault => PlanError::Rejected(message),
        _ => PlanError::Failed(message),
    }
}
