//! The dispatcher: what there is in the cluster, and the way for new jobs to get in.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::Arc,
};

use parking_lot::Mutex;
use tidemill_types::{
    JobId, TenantId,
    config::{Config, keys},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    blobs::Blobs,
    clock::Clock,
    job::{
        JobHandle, JobStatus,
        master::{JobMaster, Surroundings},
        submit::{Prepared, SubmitError},
    },
    modules::ModuleStore,
    operations::Operations,
    plan::Plan,
    workers::Workers,
};

/// The most jobs that may run at a time.
const JOBS_MAX: usize = 10_000;

/// Everything that the parts of the coordinator share.
pub(crate) struct Cluster {
    pub(crate) config: Config,
    pub(crate) clock: Clock,
    /// Directory of everything that must be kept.
    pub(crate) storage: PathBuf,
    pub(crate) planner: Arc<dyn Plan>,
    pub(crate) modules: ModuleStore,
    pub(crate) blobs: Arc<Blobs>,
    pub(crate) workers: Arc<Workers>,
    pub(crate) operations: Operations,
    jobs: Mutex<HashMap<JobId, JobHandle>>,
    /// Everything that runs; shut down waits for it.
    pub(crate) tasks: TaskTracker,
    pub(crate) shutdown: CancellationToken,
}

impl Cluster {
    #[expect(
        clippy::too_many_arguments,
        reason = "the parts that a cluster is made of"
    )]
    pub(crate) fn new(
        config: Config,
        clock: Clock,
        storage: PathBuf,
        planner: Arc<dyn Plan>,
        modules: ModuleStore,
        blobs: Blobs,
        workers: Workers,
    ) -> Self {
        let operations = Operations::new(clock, config.get(&keys::REST_ASYNC_STORE_DURATION));
        Self {
            config,
            clock,
            operations,
            storage,
            planner,
            modules,
            blobs: Arc::new(blobs),
            workers: Arc::new(workers),
            jobs: Mutex::default(),
            tasks: TaskTracker::new(),
            shutdown: CancellationToken::new(),
        }
    }

    /// Starts a job that has been prepared.
    ///
    /// # Errors
    ///
    /// [`SubmitError::Exists`] when there is a job with this id, whatever its state.
    pub(crate) fn start(self: &Arc<Self>, prepared: Prepared) -> Result<JobId, SubmitError> {
        let id = prepared.info.id;
        let (handle, inbox) = JobHandle::new(prepared.info, prepared.state);
        {
            let mut jobs = self.jobs.lock();
            if jobs.contains_key(&id) {
                return Err(SubmitError::Exists(id));
            }
            if jobs
                .values()
                .filter(|job| !job.status().is_terminal())
                .count()
                >= JOBS_MAX
            {
                return Err(SubmitError::Busy(format!(
                    "{JOBS_MAX} jobs are running already"
                )));
            }
            jobs.insert(id, handle.clone());
        }
        let around = Surroundings {
            workers: Arc::clone(&self.workers),
            clock: self.clock,
            tasks: self.tasks.clone(),
            shutdown: self.shutdown.clone(),
        };
        let cluster = Arc::clone(self);
        JobMaster::spawn(handle, inbox, prepared.module, around, move || {
            cluster.forget_old_jobs();
        });
        Ok(id)
    }

    /// A tenant's job.
    pub(crate) fn job(&self, tenant: &TenantId, id: JobId) -> Option<JobHandle> {
        self.jobs
            .lock()
            .get(&id)
            .filter(|job| job.info().tenant == *tenant)
            .cloned()
    }

    /// A job, whoever owns it. For workers only.
    pub(crate) fn job_of_any_tenant(&self, id: JobId) -> Option<JobHandle> {
        self.jobs.lock().get(&id).cloned()
    }

    /// A tenant's jobs, newest first.
    pub(crate) fn jobs(&self, tenant: &TenantId) -> Vec<JobHandle> {
        let jobs = self.jobs.lock();
        let mut mine: Vec<_> = jobs
            .values()
            .filter(|job| job.info().tenant == *tenant)
            .cloned()
            .collect();
        drop(jobs);
        mine.sort_by_key(|job| (std::cmp::Reverse(job.info().submitted_ms), job.info().id));
        mine
    }

    /// How many jobs of a tenant are in each state.
    pub(crate) fn counts(&self, tenant: &TenantId) -> BTreeMap<&'static str, usize> {
        let mut counts = BTreeMap::new();
        for job in self.jobs(tenant) {
            *counts.entry(job.status().as_str()).or_insert(0) += 1;
        }
        counts
    }

    /// Keeps only as many ended jobs as `jobstore.max-capacity` allows.
    fn forget_old_jobs(&self) {
        let capacity = self.config.get(&keys::JOBSTORE_MAX_CAPACITY);
        let mut jobs = self.jobs.lock();
        let ended = |job: &JobHandle| {
            job.with(|state| {
                let status: JobStatus = state.machine.status();
                status
                    .is_terminal()
                    .then(|| state.machine.entered_ms(status))
            })
        };
        let mut old: Vec<(i64, JobId)> = jobs
            .iter()
            .filter_map(|(id, job)| Some((ended(job)?, *id)))
            .collect();
        old.sort_unstable();
        let excess = old.len().saturating_sub(capacity);
        for (_, id) in old.into_iter().take(excess) {
            jobs.remove(&id);
        }
    }
}
