//! Who is where: brings the two ends of a channel together, whichever comes first, and keeps
//! attempts that are over from coming back.

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use tidemill_types::{Attempt, JobId};
use tokio::time::Instant;

use super::{
    ChannelId, ExchangeError,
    credit::{LocalRoute, Window},
    gate::Gate,
    inbound::Inbound,
    lane::Upstream,
};

/// How many jobs' released attempts are remembered. A job that was forgotten is still kept out: its
/// senders find no receiver and give up.
const RELEASED_JOBS_MAX: usize = 16_384;

/// A sender whose receiver is not there yet.
#[derive(Debug)]
pub(super) enum Waiting {
    Local(Arc<Window>),
    Remote(Arc<Inbound>, u32),
}

impl Waiting {
    fn refuse(self, failure: ExchangeError) {
        match self {
            Self::Local(window) => drop(window.close(failure)),
            Self::Remote(inbound, channel) => {
                inbound.close_channel(channel, &failure.to_string().into());
            }
        }
    }

    /// Tells the gate, then the sender. A peer that was lost meanwhile fails the gate.
    fn connect(self, gate: &Arc<Gate>, index: usize, id: ChannelId) {
        let upstream = match &self {
            Self::Local(window) => Upstream::Local(Arc::clone(window)),
            Self::Remote(inbound, channel) => Upstream::Remote(Arc::clone(inbound), *channel),
        };
        if !gate.connect(index, upstream) {
            self.refuse(ExchangeError::Duplicate { channel: id });
            return;
        }
        match self {
            Self::Local(window) => {
                window.open(
                    gate.capacity(),
                    Some(LocalRoute {
                        gate: Arc::clone(gate),
                        index,
                    }),
                );
            }
            Self::Remote(inbound, channel) => {
                if let Err(lost) = inbound.open_channel(channel, gate, index) {
                    gate.fail_channel(index, lost);
                }
            }
        }
    }
}

#[derive(Debug)]
struct Receiver {
    gate: Arc<Gate>,
    index: usize,
}

#[derive(Debug)]
struct Expiring {
    sender: Waiting,
    deadline: Instant,
}

/// The senders of an attempt. They are noted here, not kept alive.
type Senders = Vec<(ChannelId, Weak<Window>)>;

#[derive(Debug, Default)]
struct State {
    receivers: HashMap<ChannelId, Receiver>,
    waiting: HashMap<ChannelId, Expiring>,
    /// Windows of the senders on this worker, to close them with their attempt.
    senders: HashMap<(JobId, Attempt), Senders>,
    /// The newest attempt that is over, by job.
    released: BTreeMap<JobId, Attempt>,
    /// The newest attempt that has receivers here, by job.
    current: HashMap<JobId, Attempt>,
}

/// All channel ends of a worker.
#[derive(Debug)]
pub(super) struct Registry {
    open_timeout: Duration,
    state: Mutex<State>,
}

impl Registry {
    pub(super) fn new(open_timeout: Duration) -> Self {
        Self {
            open_timeout,
            state: Mutex::default(),
        }
    }

    pub(super) fn open_timeout(&self) -> Duration {
        self.open_timeout
    }

    /// Makes a gate of these channels and lets in whoever waits for one of them.
    pub(super) fn add_receivers(&self, ids: &[ChannelId], capacity: usize) -> Arc<Gate> {
        let gate = Arc::new(Gate::new(ids, capacity));
        let mut state = self.state.lock();
        for (index, &id) in ids.iter().enumerate() {
            if state.is_released(id) {
                gate.fail(ExchangeError::Released { channel: id });
                break;
            }
            let Entry::Vacant(place) = state.receivers.entry(id) else {
                gate.fail(ExchangeError::Duplicate { channel: id });
                break;
            };
            place.insert(Receiver {
                gate: Arc::clone(&gate),
                index,
            });
            let current = state.current.entry(id.job).or_insert(id.attempt);
            *current = (*current).max(id.attempt);
            if let Some(waiting) = state.waiting.remove(&id) {
                waiting.sender.connect(&gate, index, id);
            }
        }
        gate
    }

    /// Removes the channels of a gate that is being dropped.
    pub(super) fn forget_receivers(&self, ids: &[ChannelId], gate: &Arc<Gate>) {
        let mut state = self.state.lock();
        for id in ids {
            if let Entry::Occupied(place) = state.receivers.entry(*id)
                && Arc::ptr_eq(&place.get().gate, gate)
            {
                place.remove();
            }
        }
    }

    /// Brings a sender to its receiver, or lets it wait.
    pub(super) fn connect(&self, id: ChannelId, sender: Waiting) {
        let mut state = self.state.lock();
        if state.is_stale(id) {
            sender.refuse(ExchangeError::Released { channel: id });
        } else if let Some(receiver) = state.receivers.get(&id) {
            sender.connect(&receiver.gate, receiver.index, id);
        } else {
            let deadline = Instant::now() + self.open_timeout;
            match state.waiting.entry(id) {
                Entry::Vacant(place) => {
                    place.insert(Expiring { sender, deadline });
                }
                Entry::Occupied(_) => sender.refuse(ExchangeError::Duplicate { channel: id }),
            }
        }
    }

    /// The sender gives up.
    pub(super) fn forget_local_sender(&self, id: ChannelId, window: &Arc<Window>) {
        self.forget_waiting(
            id,
            |w| matches!(w, Waiting::Local(of) if Arc::ptr_eq(of, window)),
        );
    }

    /// The peer gives up, or is lost.
    pub(super) fn forget_remote_sender(&self, id: ChannelId, inbound: &Arc<Inbound>) {
        self.forget_waiting(
            id,
            |w| matches!(w, Waiting::Remote(of, _) if Arc::ptr_eq(of, inbound)),
        );
    }

    fn forget_waiting(&self, id: ChannelId, is_it: impl FnOnce(&Waiting) -> bool) {
        let mut state = self.state.lock();
        if let Entry::Occupied(place) = state.waiting.entry(id)
            && is_it(&place.get().sender)
        {
            place.remove();
        }
    }

    /// Notes a sender of this worker. `false` if its attempt is over.
    pub(super) fn add_sender(&self, id: ChannelId, window: &Arc<Window>) -> bool {
        let mut state = self.state.lock();
        if state.is_released(id) {
            return false;
        }
        let senders = state.senders.entry((id.job, id.attempt)).or_default();
        senders.push((id, Arc::downgrade(window)));
        true
    }

    /// Closes both ends of every channel of this attempt and of older ones, for good.
    pub(super) fn release(&self, job: JobId, attempt: Attempt) {
        let mut state = self.state.lock();
        let released = state.released.entry(job).or_insert(attempt);
        *released = (*released).max(attempt);
        if state.released.len() > RELEASED_JOBS_MAX {
            let other = state.released.keys().copied().find(|&other| other != job);
            other.and_then(|other| state.released.remove(&other));
        }
        if state
            .current
            .get(&job)
            .is_some_and(|&current| current <= attempt)
        {
            state.current.remove(&job);
        }
        let gates: Vec<_> = state
            .receivers
            .extract_if(|id, _| id.job == job && id.attempt <= attempt)
            .collect();
        let waiting: Vec<_> = state
            .waiting
            .extract_if(|id, _| id.job == job && id.attempt <= attempt)
            .collect();
        let senders: Vec<_> = state
            .senders
            .extract_if(|&(of_job, of_attempt), _| of_job == job && of_attempt <= attempt)
            .flat_map(|(_, senders)| senders)
            .collect();
        drop(state);
        for (channel, receiver) in gates {
            receiver
                .gate
                .close(ExchangeError::Released { channel }, "its attempt is over");
        }
        for (channel, waiting) in waiting {
            waiting.sender.refuse(ExchangeError::Released { channel });
        }
        for (channel, window) in senders {
            if let Some(window) = window.upgrade() {
                drop(window.close(ExchangeError::Released { channel }));
            }
        }
    }

    /// Refuses senders that have waited too long.
    pub(super) fn expire(&self, now: Instant) {
        let expired: Vec<_> = self
            .state
            .lock()
            .waiting
            .extract_if(|_, waiting| waiting.deadline <= now)
            .collect();
        for (channel, waiting) in expired {
            let waited = self.open_timeout;
            waiting
                .sender
                .refuse(ExchangeError::NotDeployed { channel, waited });
        }
    }
}

impl State {
    fn is_released(&self, id: ChannelId) -> bool {
        self.released
            .get(&id.job)
            .is_some_and(|&released| id.attempt <= released)
    }

    /// Whether the attempt is over, or a newer one has taken its place.
    fn is_stale(&self, id: ChannelId) -> bool {
        self.is_released(id)
            || self
                .current
                .get(&id.job)
                .is_some_and(|&current| id.attempt < current)
    }
}
