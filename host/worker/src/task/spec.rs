//! What a task is told to run.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tidemill_checkpoint::TaskRestore;
use tidemill_planner::ModuleHash;
use tidemill_protocol::control::{Deploy, JobDescriptor, TaskDeployment};
use tidemill_types::{
    Attempt, JobGraph, JobId, SubtaskIndex, TaskId, TenantId, Vertex,
    config::{Config, keys},
};

/// A job, as far as its tasks need to know it.
#[derive(Debug)]
pub(crate) struct JobSpec {
    pub(crate) id: JobId,
    pub(crate) attempt: Attempt,
    pub(crate) tenant: TenantId,
    pub(crate) module: ModuleHash,
    pub(crate) args: Vec<String>,
    pub(crate) plan_config: Vec<(String, String)>,
    pub(crate) graph: JobGraph,
    pub(crate) config: Config,
    pub(crate) submitted_at_ms: i64,
    pub(crate) parallelism: Vec<u32>,
    pub(crate) max_parallelism: Vec<u32>,
    /// Data addresses of all subtasks, by vertex and subtask.
    pub(crate) locations: HashMap<(u32, u32), String>,
}

/// One subtask of a job.
#[derive(Debug, Clone)]
pub(crate) struct TaskSpec {
    pub(crate) id: TaskId,
    pub(crate) job: Arc<JobSpec>,
    pub(crate) restore: Option<Arc<TaskRestore>>,
}

/// A deployment that makes no sense. Coordinator and worker disagree: a bug on one side.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the deployment of job {job}: {reason}")]
pub(crate) struct InvalidDeployment {
    job: String,
    reason: String,
}

impl JobSpec {
    /// Reads a deployment.
    ///
    /// # Errors
    ///
    /// [`InvalidDeployment`] says what is wrong with it.
    pub(crate) fn read(deploy: Deploy) -> Result<Vec<TaskSpec>, InvalidDeployment> {
        let Deploy {
            job,
            attempt,
            tasks,
            locations,
        } = deploy;
        let job = job.unwrap_or_default();
        let name = job.job.clone();
        let invalid = |reason: String| InvalidDeployment {
            job: name.clone(),
            reason,
        };
        let spec = read_job(job, attempt, locations).map_err(invalid)?;
        let spec = Arc::new(spec);
        tasks
            .iter()
            .map(|task| read_task(&spec, task).map_err(invalid))
            .collect()
    }
}

fn read_job(
    job: JobDescriptor,
    attempt: u32,
    locations: Vec<tidemill_protocol::control::TaskLocation>,
) -> Result<JobSpec, String> {
    let graph: JobGraph = serde_json::from_slice(&job.graph).map_err(|e| e.to_string())?;
    graph.validate().map_err(|e| e.to_string())?;
    let mut config = Config::default();
    for (key, value) in &job.config {
        config.set(key, value).map_err(|e| e.to_string())?;
    }
    let vertices = graph.vertices.len();
    if job.parallelism.len() != vertices || job.max_parallelism.len() != vertices {
        return Err("it does not give every vertex a parallelism".to_owned());
    }
    let mut plan_config: Vec<_> = job.plan_config.into_iter().collect();
    plan_config.sort();
    Ok(JobSpec {
        id: job
            .job
            .parse()
            .map_err(|e: tidemill_types::ids::InvalidId| e.to_string())?,
        attempt: Attempt(attempt),
        tenant: job
            .tenant
            .parse()
            .map_err(|e: tidemill_types::ids::InvalidId| e.to_string())?,
        module: job.module_hash.parse().map_err(|e| format!("{e}"))?,
        args: job.args,
        plan_config,
        graph,
        config,
        submitted_at_ms: job.submitted_at_ms,
        parallelism: job.parallelism,
        max_parallelism: job.max_parallelism,
        locations: locations
            .into_iter()
            .map(|at| ((at.vertex, at.subtask), at.data_address))
            .collect(),
    })
}

fn read_task(job: &Arc<JobSpec>, task: &TaskDeployment) -> Result<TaskSpec, String> {
    let parallelism = job.parallelism.get(task.vertex as usize).copied();
    if parallelism.is_none_or(|parallelism| task.subtask >= parallelism) {
        return Err(format!(
            "there is no subtask {} of vertex {}",
            task.subtask, task.vertex
        ));
    }
    let restore = if task.restore.is_empty() {
        None
    } else {
        Some(Arc::new(
            serde_json::from_slice(&task.restore).map_err(|e| e.to_string())?,
        ))
    };
    Ok(TaskSpec {
        id: TaskId {
            job: job.id,
            attempt: job.attempt,
            vertex: task.vertex,
            subtask: SubtaskIndex(task.subtask),
        },
        job: Arc::clone(job),
        restore,
    })
}

impl TaskSpec {
    pub(crate) fn vertex(&self) -> &Vertex {
        &self.job.graph.vertices[self.id.vertex as usize]
    }

    pub(crate) fn subtask(&self) -> u32 {
        self.id.subtask.0
    }

    pub(crate) fn parallelism(&self) -> u32 {
        self.job.parallelism[self.id.vertex as usize]
    }

    pub(crate) fn max_parallelism(&self) -> u32 {
        self.job.max_parallelism[self.id.vertex as usize]
    }

    /// `ClickEvent Source (1/2)`, as Flink writes it.
    pub(crate) fn name(&self) -> String {
        format!(
            "{} ({}/{})",
            self.vertex().name,
            self.subtask() + 1,
            self.parallelism()
        )
    }

    /// The name of an operator of the chain, or of the whole chain.
    pub(crate) fn operator_name(&self, operator: Option<u32>) -> &str {
        let vertex = self.vertex();
        let operator = operator.and_then(|operator| vertex.operators.get(operator as usize));
        operator.map_or(&vertex.name, |operator| &operator.name)
    }

    pub(crate) fn watermark_interval(&self) -> Duration {
        self.job.config.get(&keys::AUTO_WATERMARK_INTERVAL)
    }

    pub(crate) fn buffer_timeout(&self) -> Duration {
        self.job.config.get(&keys::BUFFER_TIMEOUT)
    }

    pub(crate) fn channel_bytes(&self) -> usize {
        usize::try_from(self.job.config.get(&keys::CHANNEL_BYTES).0).unwrap_or(usize::MAX)
    }
}
