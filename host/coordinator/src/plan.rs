//! What the coordinator needs of the planner process, as a trait so that tests can do without it.

use std::path::Path;

use async_trait::async_trait;
use tidemill_planner::PlanJob;
use tidemill_types::JobGraph;

/// Why a module was not compiled or a job not planned.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct PlanFailure {
    /// What is wrong, for whoever submitted it.
    pub message: String,
    /// Whether the module or its arguments are at fault, rather than this system.
    pub callers_fault: bool,
}

/// Compiles modules and plans jobs, outside of this process.
#[async_trait]
pub trait Plan: Send + Sync + 'static {
    /// Compiles a module, so that a bad one is found at once and workers find the code ready.
    async fn compile(&self, module: &Path) -> Result<(), PlanFailure>;

    /// Plans a job.
    async fn plan(&self, module: &Path, job: PlanJob) -> Result<JobGraph, PlanFailure>;
}

#[async_trait]
impl Plan for tidemill_planner::Planner {
    async fn compile(&self, module: &Path) -> Result<(), PlanFailure> {
        self.compile(module)
            .await
            .map(drop)
            .map_err(PlanFailure::from)
    }

    async fn plan(&self, module: &Path, job: PlanJob) -> Result<JobGraph, PlanFailure> {
        self.plan(module, job).await.map_err(PlanFailure::from)
    }
}

impl From<tidemill_planner::PlanError> for PlanFailure {
    fn from(error: tidemill_planner::PlanError) -> Self {
        let callers_fault = error.kind() == tidemill_types::ErrorKind::Invalid;
        let mut message = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            message = format!("{message}: {cause}");
            source = cause.source();
        }
        Self {
            message,
            callers_fault,
        }
    }
}
