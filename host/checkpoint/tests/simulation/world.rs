//! Time, network, faults, and the audit.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque},
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use tidemill_checkpoint::{CheckpointSettings, SubtaskState};
use tidemill_types::{CheckpointId, JobId, TaskId};

use crate::{
    driver::{Driver, Outcome},
    job::{self, Answer, Counter, Element, RECORDS, SPLITS, Source},
    outside::{Row, Store, Transactions},
};

/// Nothing fails after this moment.
const CALM_AT: u64 = 2_500;
/// By then the job must be at its end.
const DEADLINE: u64 = 60_000;
/// The most elements in a channel.
const CHANNEL_MAX: usize = 6;

#[derive(Debug)]
pub(crate) enum Event {
    Step(TaskId),
    ToTask(TaskId, ToTask),
    ToCoordinator(ToCoordinator),
    /// A write reaches the store, whether its writer still lives or not.
    Land {
        name: String,
        bytes: Vec<u8>,
    },
    /// The writer learns what became of a write.
    Written {
        incarnation: u32,
        checkpoint: CheckpointId,
        outcome: Outcome,
    },
    Tick {
        incarnation: u32,
    },
    Deploy {
        incarnation: u32,
    },
    StartCoordinator,
    Fault,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum ToTask {
    Trigger(CheckpointId),
    Complete(CheckpointId),
    Aborted(CheckpointId),
    Cancel,
}

#[derive(Debug, Clone)]
pub(crate) enum ToCoordinator {
    Running(TaskId),
    Finished(TaskId, SubtaskState),
    Failed(TaskId),
    Ack(TaskId, CheckpointId, SubtaskState),
    Decline(TaskId, CheckpointId),
}

#[derive(Debug)]
pub(crate) enum Task {
    Source(Source),
    Counter(Counter),
}

/// What happened, to see that it did.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub(crate) completed: u64,
    pub(crate) aborted: u64,
    pub(crate) restarts: u64,
    pub(crate) coordinator_crashes: u64,
    pub(crate) restored: u64,
    pub(crate) unknown_writes: u64,
    pub(crate) passed_over: u64,
    pub(crate) savepoints: u64,
    pub(crate) finished_sources: u64,
}

impl Figures {
    fn all(&mut self) -> [(&'static str, &mut u64); 9] {
        [
            ("completed", &mut self.completed),
            ("aborted", &mut self.aborted),
            ("restarts", &mut self.restarts),
            ("coordinator crashes", &mut self.coordinator_crashes),
            ("restored", &mut self.restored),
            ("unknown writes", &mut self.unknown_writes),
            ("passed over", &mut self.passed_over),
            ("savepoints", &mut self.savepoints),
            ("finished sources", &mut self.finished_sources),
        ]
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.completed += other.completed;
        self.aborted += other.aborted;
        self.restarts += other.restarts;
        self.coordinator_crashes += other.coordinator_crashes;
        self.restored += other.restored;
        self.unknown_writes += other.unknown_writes;
        self.passed_over += other.passed_over;
        self.savepoints += other.savepoints;
        self.finished_sources += other.finished_sources;
    }

    /// A simulation in which something never happens says nothing about it.
    pub(crate) fn check_that_everything_happened(&mut self) {
        for (what, figure) in self.all() {
            assert!(*figure > 0, "{what}: never");
        }
    }
}

pub(crate) struct World {
    pub(crate) rng: StdRng,
    pub(crate) now: u64,
    sequence: u64,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    events: BTreeMap<u64, Event>,
    pub(crate) store: Store,
    pub(crate) outside: Transactions,
    pub(crate) driver: Option<Driver>,
    pub(crate) incarnations: u32,
    pub(crate) tasks: BTreeMap<TaskId, Task>,
    channels: BTreeMap<(TaskId, u32), VecDeque<Element>>,
    /// When the last report of a task arrives.
    reported: BTreeMap<TaskId, u64>,
    pub(crate) settings: CheckpointSettings,
    /// Whether recovery heeds the records of attempts.
    pub(crate) heeds_records: bool,
    /// Whether sources finish at the end of their splits (all but the first, which keeps the job).
    finishing: bool,
    pub(crate) figures: Figures,
}

impl World {
    pub(crate) fn new(seed: u64, heeds_records: bool) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let settings = CheckpointSettings {
            interval_ms: Some(rng.random_range(20..120)),
            timeout_ms: rng.random_range(400..900),
            min_pause_ms: if rng.random_bool(0.3) {
                rng.random_range(1..60)
            } else {
                0
            },
            max_concurrent: rng.random_range(1..4),
            tolerable_failures: [None, Some(0), Some(2)][rng.random_range(0..3)],
            retained: rng.random_range(1..4),
        };
        let finishing = rng.random_bool(0.3);
        let mut world = Self {
            rng,
            now: 0,
            sequence: 0,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            store: Store::default(),
            outside: Transactions::default(),
            driver: None,
            incarnations: 0,
            tasks: BTreeMap::new(),
            channels: BTreeMap::new(),
            reported: BTreeMap::new(),
            settings,
            heeds_records,
            finishing,
            figures: Figures::default(),
        };
        world.after(0, Event::StartCoordinator);
        world.after(100, Event::Fault);
        world
    }

    pub(crate) fn job(&self) -> JobId {
        JobId::from_u128(1)
    }

    pub(crate) fn after(&mut self, delay: u64, event: Event) {
        self.sequence += 1;
        self.queue.push(Reverse((self.now + delay, self.sequence)));
        self.events.insert(self.sequence, event);
    }

    pub(crate) fn calm(&self) -> bool {
        self.now >= CALM_AT
    }

    /// Most delays are short, some are not.
    pub(crate) fn delay(&mut self) -> u64 {
        if !self.calm() && self.rng.random_bool(0.03) {
            self.rng.random_range(50..400)
        } else {
            self.rng.random_range(1..12)
        }
    }

    /// A message that may be lost or doubled.
    pub(crate) fn send_to_task(&mut self, task: TaskId, message: ToTask) {
        let copies = match self.rng.random_range(0..100) {
            _ if self.calm() => 1,
            0..2 => 0,
            2..7 => 2,
            _ => 1,
        };
        for _ in 0..copies {
            let delay = self.delay();
            self.after(delay, Event::ToTask(task, message));
        }
    }

    /// Reports of a task keep their order, and none is lost while its sender lives; the protocol
    /// asks for that. They may be doubled.
    fn send_to_coordinator(&mut self, task: TaskId, message: &ToCoordinator) {
        let doubled = !self.calm() && self.rng.random_bool(0.05);
        for _ in 0..if doubled { 2 } else { 1 } {
            let at = self.now + self.delay();
            let last = self.reported.entry(task).or_default();
            *last = at.max(*last);
            let delay = *last - self.now;
            self.after(delay, Event::ToCoordinator(message.clone()));
        }
    }

    /// Runs to the end of the job and audits the results.
    pub(crate) fn run(mut self) -> Result<Figures, String> {
        let expected = expected();
        while let Some(Reverse((at, sequence))) = self.queue.pop() {
            self.now = at;
            if self.now > DEADLINE {
                let (got, want) = (self.outside.committed.len(), expected.len());
                return Err(format!(
                    "stuck: {got} of {want} results after {DEADLINE} ms; {:?}, {:?}",
                    self.settings, self.figures
                ));
            }
            let event = self
                .events
                .remove(&sequence)
                .expect("every entry has an event");
            self.handle(event)?;
            if self.calm() && self.outside.committed.len() == expected.len() {
                break;
            }
        }
        if self.outside.committed != expected {
            return Err("the committed results are not the right ones".into());
        }
        Ok(self.figures)
    }

    fn handle(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Step(task) => self.step(task),
            Event::ToTask(task, message) => return self.deliver(task, message),
            Event::ToCoordinator(message) => self.on_report(message),
            Event::Land { name, bytes } => {
                self.store.create(&name, &bytes);
            }
            Event::Written {
                incarnation,
                checkpoint,
                outcome,
            } => {
                self.on_written(incarnation, checkpoint, outcome);
            }
            Event::Tick { incarnation } => self.on_tick(incarnation),
            Event::Deploy { incarnation } => return self.on_deploy(incarnation),
            Event::StartCoordinator => self.start_coordinator(),
            Event::Fault => self.fault(),
        }
        Ok(())
    }

    fn fault(&mut self) {
        if self.calm() {
            return;
        }
        let next = self.rng.random_range(20..500);
        self.after(next, Event::Fault);
        match self.rng.random_range(0..10) {
            0..2 if self.driver.is_some() => {
                self.driver = None;
                self.figures.coordinator_crashes += 1;
                let delay = self.rng.random_range(5..200);
                self.after(delay, Event::StartCoordinator);
            }
            2..6 => {
                let tasks: Vec<TaskId> = self.tasks.keys().copied().collect();
                if !tasks.is_empty() {
                    let victim = tasks[self.rng.random_range(0..tasks.len())];
                    self.tasks.remove(&victim);
                    self.send_to_coordinator(victim, &ToCoordinator::Failed(victim));
                }
            }
            6..8 => self.request_savepoint(),
            _ => {}
        }
    }

    pub(crate) fn start_task(&mut self, id: TaskId, task: Task) {
        self.tasks.insert(id, task);
        self.send_to_coordinator(id, &ToCoordinator::Running(id));
        self.after(1, Event::Step(id));
    }

    fn step(&mut self, id: TaskId) {
        let Some(mut task) = self.tasks.remove(&id) else {
            return;
        };
        match &mut task {
            Task::Source(source) => self.step_source(id, source),
            Task::Counter(counter) => self.step_counter(id, counter),
        }
        if !matches!(&task, Task::Source(source) if source.finished) {
            self.tasks.insert(id, task);
            let pause = self.rng.random_range(1..16);
            self.after(pause, Event::Step(id));
        }
    }

    fn step_source(&mut self, id: TaskId, source: &mut Source) {
        if let Some((checkpoint, state, sent)) = source.barrier() {
            self.send(id, sent);
            self.send_to_coordinator(id, &ToCoordinator::Ack(id, checkpoint, state));
            return;
        }
        let full = self
            .channels
            .iter()
            .any(|((from, _), c)| *from == id && c.len() >= CHANNEL_MAX);
        if full {
            return;
        }
        match source.read() {
            Some(sent) => self.send(id, vec![sent]),
            None if self.finishing && id.subtask.0 > 0 => {
                let sent = source.end();
                self.send(id, sent);
                self.figures.finished_sources += 1;
                self.send_to_coordinator(id, &ToCoordinator::Finished(id, source.state()));
            }
            None => {}
        }
    }

    fn send(&mut self, from: TaskId, sent: job::Sent) {
        for (to, element) in sent {
            self.channels
                .entry((from, to))
                .or_default()
                .push_back(element);
        }
    }

    fn step_counter(&mut self, id: TaskId, counter: &mut Counter) {
        let ready: Vec<(TaskId, u32)> = self
            .channels
            .iter()
            .filter(|((from, to), elements)| {
                from.attempt == id.attempt
                    && *to == id.subtask.0
                    && !elements.is_empty()
                    && !counter.aligner.is_blocked(from.subtask.0 as usize)
            })
            .map(|(channel, _)| *channel)
            .collect();
        if ready.is_empty() {
            return;
        }
        let channel = ready[self.rng.random_range(0..ready.len())];
        let element = self
            .channels
            .get_mut(&channel)
            .and_then(VecDeque::pop_front);
        let element = element.expect("the channel is ready");
        let answers = counter.receive(channel.0.subtask.0 as usize, element, &mut self.outside);
        self.report(id, answers);
    }

    fn report(&mut self, id: TaskId, answers: Vec<Answer>) {
        for answer in answers {
            let report = match answer {
                Answer::Ack(checkpoint, state) => ToCoordinator::Ack(id, checkpoint, state),
                Answer::Decline(checkpoint) => ToCoordinator::Decline(id, checkpoint),
            };
            self.send_to_coordinator(id, &report);
        }
    }

    fn deliver(&mut self, id: TaskId, message: ToTask) -> Result<(), String> {
        let Some(task) = self.tasks.get_mut(&id) else {
            return Ok(());
        };
        match (task, message) {
            (_, ToTask::Cancel) => {
                self.tasks.remove(&id);
            }
            (Task::Source(source), ToTask::Trigger(checkpoint)) => source.trigger(checkpoint),
            (Task::Counter(counter), ToTask::Complete(checkpoint)) => {
                return counter.complete(checkpoint, &mut self.outside);
            }
            (Task::Counter(counter), ToTask::Aborted(checkpoint)) => {
                let answers = counter.aborted(checkpoint, &mut self.outside);
                self.report(id, answers);
            }
            (Task::Source(_) | Task::Counter(_), _) => {}
        }
        Ok(())
    }
}

/// Every count of every key, once.
fn expected() -> BTreeSet<Row> {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let mut rows = BTreeSet::new();
    for split in 0..SPLITS {
        for position in 0..RECORDS {
            let key = job::key_of(split, position);
            let count = counts.entry(key.clone()).or_default();
            *count += 1;
            rows.insert((key, *count));
        }
    }
    rows
}
