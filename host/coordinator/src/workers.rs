//! Registered workers and their slots.
//!
//! Whoever needs slots tries [`Workers::allocate`] and tries again when [`Workers::changes`] says
//! that something happened; nothing is queued here. The same signal tells job masters to look
//! whether their workers are still there, so that the loss of a worker cannot be missed.
//!
//! # Invariants
//!
//! 1. A slot belongs to at most one job.
//! 2. A session number is never used twice; whatever refers to an older one is stale.

use std::collections::{BTreeMap, HashMap};

use parking_lot::Mutex;
use tidemill_protocol::control::{CoordinatorMessage, coordinator_message::Kind};
use tidemill_types::{CoordinatorEpoch, JobId, WorkerId};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::job::Placement;

/// The most slots that one worker may offer.
pub(crate) const SLOTS_PER_WORKER_MAX: u32 = 4_096;
/// The most workers of a cluster.
const WORKERS_MAX: usize = 10_000;

/// What a worker said when it registered.
#[derive(Debug, Clone)]
pub(crate) struct WorkerInfo {
    pub(crate) id: WorkerId,
    pub(crate) data_address: String,
    pub(crate) slots: u32,
    pub(crate) memory_bytes: u64,
    pub(crate) cpu_cores: u32,
    pub(crate) pid: u32,
}

/// The outgoing half of a worker's session.
pub(crate) type Outbox = mpsc::Sender<Result<CoordinatorMessage, tonic::Status>>;

#[derive(Debug)]
struct Worker {
    info: WorkerInfo,
    session: u64,
    outbox: Outbox,
    /// Ends the session.
    stop: CancellationToken,
    slots: Vec<Option<JobId>>,
    last_heartbeat_ms: i64,
    metrics: BTreeMap<String, f64>,
}

/// A worker as the API shows it.
#[derive(Debug, Clone)]
pub(crate) struct WorkerView {
    pub(crate) info: WorkerInfo,
    pub(crate) slots: Vec<Option<JobId>>,
    pub(crate) last_heartbeat_ms: i64,
    pub(crate) metrics: BTreeMap<String, f64>,
}

/// All registered workers. Cheap to share.
#[derive(Debug)]
pub(crate) struct Workers {
    epoch: CoordinatorEpoch,
    inner: Mutex<Inner>,
    changes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Inner {
    next_session: u64,
    workers: BTreeMap<WorkerId, Worker>,
}

impl Workers {
    pub(crate) fn new(epoch: CoordinatorEpoch) -> Self {
        Self {
            epoch,
            inner: Mutex::default(),
            changes: watch::Sender::new(0),
        }
    }

    /// The term of this coordinator.
    pub(crate) const fn epoch(&self) -> CoordinatorEpoch {
        self.epoch
    }

    /// Changes whenever workers come or go or slots become free.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn changed(&self) {
        self.changes.send_modify(|version| *version += 1);
    }

    /// Takes a worker in. One with the same id is replaced: it has lost its connection without
    /// our noticing.
    ///
    /// # Errors
    ///
    /// Why the worker is not accepted.
    pub(crate) fn register(
        &self,
        info: WorkerInfo,
        outbox: Outbox,
        stop: CancellationToken,
        now_ms: i64,
    ) -> Result<u64, String> {
        let mut inner = self.inner.lock();
        if inner.workers.len() >= WORKERS_MAX {
            return Err(format!("the cluster has {WORKERS_MAX} workers already"));
        }
        inner.next_session += 1;
        let session = inner.next_session;
        let slots = vec![None; info.slots as usize];
        let id = info.id.clone();
        let worker = Worker {
            info,
            session,
            outbox,
            stop,
            slots,
            last_heartbeat_ms: now_ms,
            metrics: BTreeMap::new(),
        };
        if let Some(old) = inner.workers.insert(id, worker) {
            old.stop.cancel();
        }
        drop(inner);
        self.changed();
        Ok(session)
    }

    /// Forgets a worker, if that session is still its current one.
    pub(crate) fn remove(&self, id: &WorkerId, session: u64) {
        let mut inner = self.inner.lock();
        if inner
            .workers
            .get(id)
            .is_some_and(|worker| worker.session == session)
        {
            inner.workers.remove(id);
            drop(inner);
            self.changed();
        }
    }

    /// Notes a sign of life.
    pub(crate) fn heard_from(&self, id: &WorkerId, session: u64, now_ms: i64) {
        if let Some(worker) = self.inner.lock().current(id, session) {
            worker.last_heartbeat_ms = now_ms;
        }
    }

    /// Notes a worker's own figures.
    pub(crate) fn set_metrics(&self, id: &WorkerId, session: u64, metrics: BTreeMap<String, f64>) {
        if let Some(worker) = self.inner.lock().current(id, session) {
            worker.metrics = metrics;
        }
    }

    /// Whether a session still lasts.
    pub(crate) fn is_current(&self, id: &WorkerId, session: u64) -> bool {
        self.inner.lock().current(id, session).is_some()
    }

    /// Sends a message within a session. A worker that does not take its messages is given up,
    /// since it would miss something.
    pub(crate) fn send(&self, id: &WorkerId, session: u64, kind: Kind) -> bool {
        let mut inner = self.inner.lock();
        let Some(worker) = inner.current(id, session) else {
            return false;
        };
        let message = CoordinatorMessage {
            epoch: self.epoch.0,
            kind: Some(kind),
        };
        if worker.outbox.try_send(Ok(message)).is_ok() {
            return true;
        }
        tracing::warn!(worker = %id, "worker does not take its messages, ending its session");
        worker.stop.cancel();
        false
    }

    /// Gets `count` slots for a job, all or nothing. Slots that the job still holds are used
    /// again; others are taken where most are free, so that the load is spread.
    pub(crate) fn allocate(&self, job: JobId, count: u32) -> Option<Vec<Placement>> {
        let mut inner = self.inner.lock();
        let mine: usize = inner.workers.values().map(|w| w.held_by(job)).sum();
        let free: usize = inner.workers.values().map(Worker::free).sum();
        if mine + free < count as usize {
            return None;
        }
        inner.release(job);
        let placements = (0..count)
            .filter_map(|_| inner.take_one(job))
            .collect::<Vec<_>>();
        assert_eq!(
            placements.len(),
            count as usize,
            "free slots were counted under the same lock"
        );
        Some(placements)
    }

    /// Gives all slots of a job back.
    pub(crate) fn release(&self, job: JobId) {
        if self.inner.lock().release(job) {
            self.changed();
        }
    }

    /// All slots and the free ones.
    pub(crate) fn slots(&self) -> (usize, usize) {
        let inner = self.inner.lock();
        let total = inner
            .workers
            .values()
            .map(|worker| worker.slots.len())
            .sum();
        (total, inner.workers.values().map(Worker::free).sum())
    }

    /// How many workers there are.
    pub(crate) fn len(&self) -> usize {
        self.inner.lock().workers.len()
    }

    /// Every worker, by id.
    pub(crate) fn list(&self) -> Vec<WorkerView> {
        self.inner
            .lock()
            .workers
            .values()
            .map(Worker::view)
            .collect()
    }

    /// One worker.
    pub(crate) fn get(&self, id: &str) -> Option<WorkerView> {
        self.inner
            .lock()
            .workers
            .values()
            .find(|worker| worker.info.id.as_str() == id)
            .map(Worker::view)
    }
}

impl Inner {
    fn current(&mut self, id: &WorkerId, session: u64) -> Option<&mut Worker> {
        self.workers
            .get_mut(id)
            .filter(|worker| worker.session == session)
    }

    fn release(&mut self, job: JobId) -> bool {
        let mut any = false;
        let slots = self
            .workers
            .values_mut()
            .flat_map(|worker| &mut worker.slots);
        for slot in slots.filter(|slot| **slot == Some(job)) {
            *slot = None;
            any = true;
        }
        any
    }

    /// A slot of the worker with the smallest share of its slots in use.
    fn take_one(&mut self, job: JobId) -> Option<Placement> {
        let load = |worker: &Worker| (worker.slots.len() - worker.free(), worker.slots.len());
        let worker = self
            .workers
            .values_mut()
            .filter(|worker| worker.free() > 0)
            .min_by(|a, b| {
                let ((used_a, all_a), (used_b, all_b)) = (load(a), load(b));
                (used_a * all_b)
                    .cmp(&(used_b * all_a))
                    .then(all_b.cmp(&all_a))
            })?;
        let (index, slot) = (0u32..)
            .zip(&mut worker.slots)
            .find(|(_, slot)| slot.is_none())?;
        *slot = Some(job);
        Some(Placement {
            worker: worker.info.id.clone(),
            session: worker.session,
            data_address: worker.info.data_address.clone(),
            slot: index,
        })
    }
}

impl Worker {
    fn free(&self) -> usize {
        self.slots.iter().filter(|slot| slot.is_none()).count()
    }

    fn held_by(&self, job: JobId) -> usize {
        self.slots.iter().filter(|slot| **slot == Some(job)).count()
    }

    fn view(&self) -> WorkerView {
        WorkerView {
            info: self.info.clone(),
            slots: self.slots.clone(),
            last_heartbeat_ms: self.last_heartbeat_ms,
            metrics: self.metrics.clone(),
        }
    }
}

/// How many of these slots each job holds.
pub(crate) fn slots_by_job(slots: &[Option<JobId>]) -> HashMap<JobId, usize> {
    let mut counts = HashMap::new();
    for job in slots.iter().flatten() {
        *counts.entry(*job).or_insert(0) += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(slots: &[u32]) -> Workers {
        let workers = Workers::new(CoordinatorEpoch(1));
        for (index, slots) in slots.iter().enumerate() {
            let info = WorkerInfo {
                id: format!("w{index}").parse().unwrap(),
                data_address: format!("127.0.0.1:{index}"),
                slots: *slots,
                memory_bytes: 0,
                cpu_cores: 1,
                pid: 1,
            };
            let (outbox, _) = mpsc::channel(1);
            workers
                .register(info, outbox, CancellationToken::new(), 0)
                .unwrap();
        }
        workers
    }

    fn on(placements: &[Placement]) -> Vec<&str> {
        placements
            .iter()
            .map(|place| place.worker.as_str())
            .collect()
    }

    #[test]
    fn slots_are_spread_over_workers() {
        let workers = cluster(&[2, 2]);
        let placements = workers.allocate(JobId::from_u128(1), 2).unwrap();
        assert_eq!(on(&placements), ["w0", "w1"]);
        assert_eq!(workers.slots(), (4, 2));
    }

    #[test]
    fn a_job_gets_all_of_its_slots_or_none() {
        let workers = cluster(&[1, 1]);
        assert!(workers.allocate(JobId::from_u128(1), 3).is_none());
        assert_eq!(workers.slots(), (2, 2));
    }

    #[test]
    fn a_job_that_asks_again_keeps_what_it_holds() {
        let workers = cluster(&[1, 1]);
        let (a, b) = (JobId::from_u128(1), JobId::from_u128(2));
        workers.allocate(a, 2).unwrap();
        assert!(workers.allocate(b, 1).is_none());
        assert_eq!(workers.allocate(a, 2).unwrap().len(), 2);
        workers.release(a);
        assert!(workers.allocate(b, 2).is_some());
    }

    #[test]
    fn the_slots_of_a_lost_worker_are_gone() {
        let workers = cluster(&[1, 1]);
        let job = JobId::from_u128(1);
        let placements = workers.allocate(job, 2).unwrap();
        let mut changes = workers.changes();
        changes.mark_unchanged();
        workers.remove(&placements[0].worker, placements[0].session);
        assert!(changes.has_changed().unwrap());
        assert!(workers.allocate(job, 2).is_none());
        assert!(workers.allocate(job, 1).is_some());
    }

    #[test]
    fn an_old_session_cannot_end_a_new_one() {
        let workers = cluster(&[1]);
        let old = workers.allocate(JobId::from_u128(1), 1).unwrap().remove(0);
        let info = workers.get("w0").unwrap().info;
        let (outbox, _) = mpsc::channel(1);
        workers
            .register(info, outbox, CancellationToken::new(), 0)
            .unwrap();
        workers.remove(&old.worker, old.session);
        assert_eq!(workers.len(), 1);
        assert!(!workers.is_current(&old.worker, old.session));
    }
}
