//! The coordinator process: carries out what the protocol decides.

use rand::Rng;
use tidemill_checkpoint::{
    AttemptRecord, CheckpointCoordinator, CheckpointKind, Decision, Manifest, ManifestHeader,
    PublishPermit, assign_restore, candidates,
};
use tidemill_types::{Attempt, CheckpointId, SubtaskIndex, TaskId, TenantId};

use crate::{
    job::{Counter, MAX_PARALLELISM, Source, graph},
    world::{Event, Task, ToCoordinator, ToTask, World},
};

/// One life of the coordinator.
pub(crate) struct Driver {
    incarnation: u32,
    attempt: Attempt,
    parallelism: [u32; 2],
    /// From the first deployment on.
    coordinator: Option<CheckpointCoordinator>,
    /// What is being written: name and bytes.
    writing: Option<(CheckpointId, String, Vec<u8>)>,
    restarting: bool,
}

/// What the writer learns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is there.
    Written,
    /// It is not, and will not be.
    Refused,
    /// Nobody knows.
    Unknown,
}

impl Driver {
    fn tasks(&self, world: &World) -> Vec<TaskId> {
        let (job, attempt) = (world.job(), self.attempt);
        let of = |vertex: u32| {
            let subtasks = 0..self.parallelism[vertex as usize];
            subtasks.map(move |s| TaskId {
                job,
                attempt,
                vertex,
                subtask: SubtaskIndex(s),
            })
        };
        of(0).chain(of(1)).collect()
    }
}

impl World {
    pub(crate) fn start_coordinator(&mut self) {
        self.incarnations += 1;
        let incarnation = self.incarnations;
        let last = self.records().iter().map(|r| r.attempt).max();
        self.driver = Some(Driver {
            incarnation,
            attempt: last.map_or(Attempt(0), Attempt::next),
            parallelism: [1, 1],
            coordinator: None,
            writing: None,
            restarting: true,
        });
        self.cancel_all_tasks();
        let delay = self.delay();
        self.after(delay, Event::Deploy { incarnation });
        self.after(5, Event::Tick { incarnation });
    }

    /// Their workers may take a while to hear of it.
    fn cancel_all_tasks(&mut self) {
        let tasks: Vec<TaskId> = self.tasks.keys().copied().collect();
        for task in tasks {
            let delay = self.rng.random_range(1..300);
            self.after(delay, Event::ToTask(task, ToTask::Cancel));
        }
    }

    fn records(&self) -> Vec<AttemptRecord> {
        let records = self.store.list("attempt-");
        records
            .map(|(_, bytes)| serde_json::from_slice(bytes).expect("written whole"))
            .collect()
    }

    /// The checkpoint to start from.
    fn choose(&mut self) -> Option<Manifest> {
        let sound: Vec<Manifest> = self
            .store
            .list("chk-")
            .filter_map(|(_, bytes)| Manifest::from_bytes(bytes).ok())
            .collect();
        let records = if self.heeds_records {
            self.records()
        } else {
            Vec::new()
        };
        let stored = sound.iter().map(|m| (m.checkpoint, m.attempt));
        let best = candidates(stored, &records).first().copied();
        let newest = sound.iter().map(|m| m.checkpoint).max();
        self.figures.passed_over += u64::from(best != newest);
        sound.into_iter().find(|m| Some(m.checkpoint) == best)
    }

    pub(crate) fn on_deploy(&mut self, incarnation: u32) -> Result<(), String> {
        let Some(mut driver) = self.driver.take_if(|d| d.incarnation == incarnation) else {
            return Ok(());
        };
        let result = self.deploy(&mut driver);
        self.driver = Some(driver);
        result
    }

    fn deploy(&mut self, driver: &mut Driver) -> Result<(), String> {
        let manifest = self.choose();
        let restored_from = manifest.as_ref().map(|m| m.checkpoint);
        if let Some(coordinator) = &driver.coordinator
            && self.heeds_records
            && coordinator.newest_completed() != restored_from
        {
            let newest = coordinator.newest_completed();
            return Err(format!(
                "{newest:?} is complete, but {restored_from:?} is restored"
            ));
        }
        let record = AttemptRecord {
            attempt: driver.attempt,
            restored_from,
        };
        let bytes = serde_json::to_vec(&record).map_err(|e| e.to_string())?;
        assert!(
            self.store
                .create(&format!("attempt-{}", driver.attempt), &bytes)
        );
        driver.parallelism = [self.rng.random_range(1..4), self.rng.random_range(1..4)];
        let tasks = driver.tasks(self);
        if let Some(coordinator) = &mut driver.coordinator {
            coordinator
                .restart(tasks.clone(), self.now)
                .map_err(|e| e.to_string())?;
        } else {
            let known = self
                .store
                .list("chk-")
                .map(|(id, _)| id.parse().expect("a number"));
            let first = CheckpointId(known.max().unwrap_or(0) + 1);
            let coordinator =
                CheckpointCoordinator::new(self.settings, tasks.clone(), first, self.now);
            driver.coordinator = Some(coordinator.with_completed(restored_from));
        }
        driver.restarting = false;
        self.start_tasks(driver, manifest.as_ref(), tasks)
    }

    fn start_tasks(
        &mut self,
        driver: &Driver,
        manifest: Option<&Manifest>,
        tasks: Vec<TaskId>,
    ) -> Result<(), String> {
        let [sources, counters] = driver.parallelism;
        let max = [MAX_PARALLELISM; 2];
        let restores = match manifest {
            None => std::collections::HashMap::new(),
            Some(manifest) => {
                self.figures.restored += 1;
                assign_restore(manifest, "sim:", &graph(), &driver.parallelism, &max, false)
                    .map_err(|error| error.to_string())?
            }
        };
        for id in tasks {
            let restore = restores.get(&(id.vertex, id.subtask.0));
            let task = if id.vertex == 0 {
                Task::Source(Source::new(id, (sources, counters), restore))
            } else {
                let outside = &mut self.outside;
                Task::Counter(Counter::new(id, (sources, counters), restore, outside)?)
            };
            self.start_task(id, task);
        }
        Ok(())
    }

    /// Does something with the coordinator, and carries out what it decides.
    fn with_coordinator(
        &mut self,
        act: impl FnOnce(&mut CheckpointCoordinator, u64) -> Vec<Decision>,
    ) {
        let Some(mut driver) = self.driver.take() else {
            return;
        };
        if let Some(coordinator) = &mut driver.coordinator {
            let decisions = act(coordinator, self.now);
            for decision in decisions {
                self.carry_out(&mut driver, decision);
            }
        }
        self.deploy_if_ready(&mut driver);
        self.driver = Some(driver);
    }

    fn carry_out(&mut self, driver: &mut Driver, decision: Decision) {
        let tasks = driver.tasks(self);
        match decision {
            Decision::Trigger { checkpoint, .. } => {
                for task in tasks.into_iter().filter(|task| task.vertex == 0) {
                    self.send_to_task(task, ToTask::Trigger(checkpoint));
                }
            }
            Decision::Publish(permit) => self.write(driver, permit),
            Decision::NotifyComplete { checkpoint } => {
                self.figures.completed += 1;
                for task in tasks {
                    self.send_to_task(task, ToTask::Complete(checkpoint));
                }
            }
            Decision::NotifyAborted { checkpoint, .. } => {
                self.figures.aborted += 1;
                for task in tasks {
                    self.send_to_task(task, ToTask::Aborted(checkpoint));
                }
            }
            Decision::Discard { checkpoint } => self.store.delete(&format!("chk-{checkpoint}")),
            Decision::FailJob { .. } => self.fail_attempt(driver),
        }
    }

    fn fail_attempt(&mut self, driver: &mut Driver) {
        if driver.restarting {
            return;
        }
        self.figures.restarts += 1;
        driver.restarting = true;
        self.cancel_all_tasks();
        if let Some(coordinator) = &mut driver.coordinator {
            self.figures.aborted += coordinator.abort_all("the attempt has failed").len() as u64;
        }
    }

    /// The next attempt starts when the fate of the last write is known.
    fn deploy_if_ready(&mut self, driver: &mut Driver) {
        let idle = driver
            .coordinator
            .as_ref()
            .is_some_and(|c| c.publishing().is_none());
        let recorded = self.records().iter().any(|r| r.attempt == driver.attempt);
        if driver.restarting && idle && recorded {
            driver.attempt = driver.attempt.next();
            let delay = self.delay();
            self.after(
                delay,
                Event::Deploy {
                    incarnation: driver.incarnation,
                },
            );
        }
    }

    fn write(&mut self, driver: &mut Driver, permit: PublishPermit) {
        let checkpoint = permit.checkpoint();
        let prefix = if permit.kind().is_savepoint() {
            "savepoint"
        } else {
            "chk"
        };
        let name = format!("{prefix}-{checkpoint}");
        let header = ManifestHeader {
            job: self.job(),
            job_name: "simulated".into(),
            tenant: TenantId::default_tenant(),
            created_at_ms: 0,
            module_hash: String::new(),
        };
        let max = [MAX_PARALLELISM; 2];
        let manifest = Manifest::new(header, &graph(), &driver.parallelism, &max, permit);
        let bytes = manifest.expect("the graph's own tasks").to_bytes();
        self.figures.savepoints += u64::from(prefix == "savepoint");
        driver.writing = Some((checkpoint, name.clone(), bytes.clone()));
        let (soon, later) = (self.delay(), self.rng.random_range(1..400));
        let chance = if self.calm() {
            0
        } else {
            self.rng.random_range(0..100)
        };
        let (landing, outcome) = match chance {
            0..80 => (Some((soon, bytes)), Outcome::Written),
            80..86 => (None, Outcome::Refused),
            86..90 => (None, Outcome::Unknown),
            90..96 => (Some((later, bytes)), Outcome::Unknown),
            _ => {
                let cut = self.rng.random_range(0..bytes.len());
                (Some((later, bytes[..cut].to_vec())), Outcome::Unknown)
            }
        };
        if let Some((delay, bytes)) = landing {
            self.after(delay, Event::Land { name, bytes });
        }
        let incarnation = driver.incarnation;
        self.after(
            soon + 1,
            Event::Written {
                incarnation,
                checkpoint,
                outcome,
            },
        );
    }

    pub(crate) fn on_written(
        &mut self,
        incarnation: u32,
        checkpoint: CheckpointId,
        outcome: Outcome,
    ) {
        let Some(driver) = self
            .driver
            .as_mut()
            .filter(|d| d.incarnation == incarnation)
        else {
            return;
        };
        let (_, name, bytes) = driver.writing.take().expect("one write at a time");
        self.figures.unknown_writes += u64::from(outcome == Outcome::Unknown);
        if outcome == Outcome::Unknown {
            // Take the name: either this succeeds, and the write can no longer, or it is there.
            self.store.create(&name, b"given up");
        }
        // A name that somebody else has taken is no success either.
        let written =
            outcome != Outcome::Refused && self.store.get(&name) == Some(bytes.as_slice());
        self.with_coordinator(|coordinator, now| {
            if written {
                coordinator.stored(checkpoint, now)
            } else {
                coordinator.store_failed(checkpoint, "the simulation", now)
            }
        });
    }

    pub(crate) fn on_tick(&mut self, incarnation: u32) {
        if self
            .driver
            .as_ref()
            .is_some_and(|d| d.incarnation == incarnation)
        {
            let restarting = self.driver.as_ref().is_some_and(|d| d.restarting);
            self.with_coordinator(|coordinator, now| {
                if restarting || coordinator.next_wakeup().is_none_or(|at| at > now) {
                    Vec::new()
                } else {
                    coordinator.tick(now)
                }
            });
            self.after(3, Event::Tick { incarnation });
        }
    }

    pub(crate) fn on_report(&mut self, message: ToCoordinator) {
        if let ToCoordinator::Failed(task) = &message {
            let Some(mut driver) = self.driver.take() else {
                return;
            };
            if task.attempt == driver.attempt {
                self.fail_attempt(&mut driver);
                self.deploy_if_ready(&mut driver);
            }
            self.driver = Some(driver);
            return;
        }
        self.with_coordinator(|coordinator, now| match message {
            ToCoordinator::Running(task) => {
                coordinator.task_running(task);
                Vec::new()
            }
            ToCoordinator::Finished(task, state) => coordinator.task_finished(task, &state),
            ToCoordinator::Ack(task, checkpoint, state) => coordinator.ack(task, checkpoint, state),
            ToCoordinator::Decline(task, checkpoint) => {
                coordinator.decline(task, checkpoint, "it was overtaken", now)
            }
            ToCoordinator::Failed(_) => Vec::new(),
        });
    }

    pub(crate) fn request_savepoint(&mut self) {
        let kind = CheckpointKind::Savepoint {
            stop: false,
            drain: false,
        };
        if self.driver.as_ref().is_some_and(|d| !d.restarting) {
            self.with_coordinator(|coordinator, now| {
                coordinator
                    .request(kind, now)
                    .map(|(_, decisions)| decisions)
                    .unwrap_or_default()
            });
        }
    }
}
