//! What a job does when things happen to it: asserted on the actions that are returned.

use std::{collections::BTreeMap, sync::Arc};

use tidemill_types::{
    ConnectorConfig, Edge, JobGraph, ShipStrategy, SourceBinding, Vertex, config::Config,
};

use super::*;
use crate::job::restart::RestartStrategy;

fn vertex(uid: &str, source: bool) -> Vertex {
    Vertex {
        uid: uid.into(),
        name: uid.into(),
        parallelism: None,
        max_parallelism: None,
        source: source.then(|| SourceBinding {
            uid: "s".into(),
            name: "s".into(),
            connector: ConnectorConfig {
                kind: "datagen".into(),
                options: BTreeMap::new(),
            },
            idle_timeout_ms: None,
        }),
        operators: vec![],
        sinks: vec![],
        states: vec![],
        wants_watermarks: false,
        makes_watermarks: false,
    }
}

/// A job of two vertices at parallelism 2, which may be restarted twice.
fn machine() -> Machine {
    let graph = JobGraph {
        name: "job".into(),
        vertices: vec![vertex("a", true), vertex("b", false)],
        edges: vec![Edge {
            from: 0,
            port: 0,
            to: 1,
            input: 0,
            strategy: ShipStrategy::Hash,
        }],
        config: BTreeMap::new(),
    };
    let mut config = Config::default();
    config.set("restart-strategy.type", "fixed-delay").unwrap();
    config
        .set("restart-strategy.fixed-delay.attempts", "2")
        .unwrap();
    config
        .set("restart-strategy.fixed-delay.delay", "500 ms")
        .unwrap();
    let policy = RestartPolicy::new(RestartStrategy::from_config(&config), 0);
    let tasks = ExecutionGraph::new(Arc::new(graph), vec![2, 2], vec![128, 128], 1);
    Machine::new(tasks, policy, 4, 1, 2)
}

fn slots() -> Vec<Placement> {
    let slot = |index: u64| Placement {
        worker: format!("w{index}").parse().unwrap(),
        session: index,
        data_address: format!("127.0.0.1:{index}"),
        slot: 0,
    };
    vec![slot(0), slot(1)]
}

fn report(attempt: u32, vertex: u32, subtask: u32, status: TaskStatus) -> TaskReport {
    TaskReport {
        attempt: Attempt(attempt),
        vertex,
        subtask,
        status,
        cause: "boom".into(),
        unrecoverable: false,
    }
}

/// Reports the same about every task; the actions of the last report.
fn report_all(machine: &mut Machine, status: TaskStatus) -> Vec<Action> {
    let attempt = machine.attempt().0;
    let mut actions = Vec::new();
    for (vertex, subtask) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        actions = machine.task_reported(report(attempt, vertex, subtask, status), 10);
    }
    actions
}

fn running() -> Machine {
    let mut machine = machine();
    assert_eq!(machine.start(3), [Action::RequestSlots(2)]);
    assert_eq!(machine.slots_granted(&slots(), 4), [Action::Deploy]);
    assert_eq!(
        report_all(&mut machine, TaskStatus::Running),
        [Action::AllRunning]
    );
    machine
}

#[test]
fn a_bounded_job_finishes_when_all_tasks_have() {
    let mut machine = running();
    assert_eq!(
        report_all(&mut machine, TaskStatus::Finished),
        [
            Action::StopCheckpoints,
            Action::ReleaseSlots,
            Action::End(JobStatus::Finished)
        ]
    );
    assert!(machine.cancel(20).is_empty());
    assert!(
        machine
            .task_reported(report(0, 0, 0, TaskStatus::Failed), 20)
            .is_empty()
    );
}

#[test]
fn a_failed_task_takes_the_attempt_with_it() {
    let mut machine = running();
    assert_eq!(
        machine.task_reported(report(0, 0, 0, TaskStatus::Failed), 20),
        [
            Action::ScheduleRestart(500),
            Action::WithdrawRequest,
            Action::StopCheckpoints,
            Action::CancelTasks
        ]
    );
    assert_eq!(machine.status(), JobStatus::Restarting);
    assert_eq!(
        machine.failures().iter().next().unwrap().summary(),
        "a (1/2): boom"
    );
}

#[test]
fn the_next_attempt_waits_for_the_delay_and_for_every_task() {
    let mut machine = running();
    machine.task_reported(report(0, 0, 0, TaskStatus::Failed), 20);
    assert!(machine.restart_due(520).is_empty());
    assert_eq!(machine.attempt(), Attempt(0));
    for (vertex, subtask) in [(0, 1), (1, 0)] {
        assert!(
            machine
                .task_reported(report(0, vertex, subtask, TaskStatus::Canceled), 530)
                .is_empty()
        );
    }
    let last = machine.task_reported(report(0, 1, 1, TaskStatus::Canceled), 540);
    assert_eq!(last, [Action::RequestSlots(2)]);
    assert_eq!(
        (machine.attempt(), machine.status(), machine.restarts()),
        (Attempt(1), JobStatus::Running, 1)
    );
}

#[test]
fn tasks_that_stop_early_wait_for_the_delay() {
    let mut machine = running();
    machine.task_reported(report(0, 0, 0, TaskStatus::Failed), 20);
    report_all(&mut machine, TaskStatus::Canceled);
    assert_eq!(machine.attempt(), Attempt(0));
    assert_eq!(machine.restart_due(520), [Action::RequestSlots(2)]);
}

#[test]
fn reports_of_an_older_attempt_change_nothing() {
    let mut machine = running();
    machine.task_reported(report(0, 0, 0, TaskStatus::Failed), 20);
    report_all(&mut machine, TaskStatus::Canceled);
    machine.restart_due(520);
    machine.slots_granted(&slots(), 530);
    assert!(
        machine
            .task_reported(report(0, 0, 0, TaskStatus::Failed), 540)
            .is_empty()
    );
    assert_eq!(machine.status(), JobStatus::Running);
}

#[test]
fn a_lost_worker_fails_only_its_tasks_at_once() {
    let mut machine = running();
    let actions = machine.worker_lost(&"w0".parse().unwrap(), 0, 20);
    assert!(actions.contains(&Action::CancelTasks));
    let status = |v, s| machine.tasks().task(v, s).unwrap().status;
    assert_eq!([status(0, 0), status(1, 0)], [TaskStatus::Failed; 2]);
    assert_eq!([status(0, 1), status(1, 1)], [TaskStatus::Canceling; 2]);
}

#[test]
fn failures_in_the_wake_of_one_do_not_use_up_attempts() {
    let mut machine = running();
    machine.worker_lost(&"w0".parse().unwrap(), 0, 20);
    machine.task_reported(report(0, 0, 1, TaskStatus::Failed), 21);
    machine.task_reported(report(0, 1, 1, TaskStatus::Failed), 22);
    assert_eq!(machine.failures().iter().count(), 1);
    assert_eq!(
        machine.failures().iter().next().unwrap().concurrent.len(),
        2
    );
    assert_eq!(machine.restart_due(520), [Action::RequestSlots(2)]);
}

#[test]
fn a_job_fails_when_its_restarts_are_used_up() {
    let mut machine = running();
    for _ in 0..2 {
        let attempt = machine.attempt().0;
        machine.task_reported(report(attempt, 0, 0, TaskStatus::Failed), 20);
        report_all(&mut machine, TaskStatus::Canceled);
        machine.restart_due(600);
        machine.slots_granted(&slots(), 610);
        report_all(&mut machine, TaskStatus::Running);
    }
    machine.task_reported(report(2, 0, 0, TaskStatus::Failed), 700);
    assert_eq!(machine.status(), JobStatus::Failing);
    let last = report_all(&mut machine, TaskStatus::Canceled);
    assert_eq!(last, [Action::ReleaseSlots, Action::End(JobStatus::Failed)]);
    assert!(machine.cause().is_some());
}

#[test]
fn an_unrecoverable_failure_is_not_retried() {
    let mut machine = running();
    let report = TaskReport {
        unrecoverable: true,
        ..report(0, 0, 0, TaskStatus::Failed)
    };
    machine.task_reported(report, 20);
    assert_eq!(machine.status(), JobStatus::Failing);
}

#[test]
fn cancelling_waits_for_the_tasks() {
    let mut machine = running();
    assert_eq!(
        machine.cancel(20),
        [
            Action::WithdrawRequest,
            Action::StopCheckpoints,
            Action::CancelTasks
        ]
    );
    let last = report_all(&mut machine, TaskStatus::Canceled);
    assert_eq!(
        last,
        [Action::ReleaseSlots, Action::End(JobStatus::Canceled)]
    );
}

#[test]
fn cancelling_a_job_without_slots_ends_it_at_once() {
    let mut machine = machine();
    machine.start(3);
    assert!(
        machine
            .cancel(4)
            .contains(&Action::End(JobStatus::Canceled))
    );
}

#[test]
fn cancelling_while_restarting_ends_the_job() {
    let mut machine = running();
    machine.task_reported(report(0, 0, 0, TaskStatus::Failed), 20);
    report_all(&mut machine, TaskStatus::Canceled);
    assert!(
        machine
            .cancel(30)
            .contains(&Action::End(JobStatus::Canceled))
    );
    assert!(machine.restart_due(600).is_empty());
}

#[test]
fn tasks_that_do_not_stop_are_fenced_off() {
    let mut machine = running();
    machine.cancel(20);
    let actions = machine.cancel_overdue(40_000);
    assert_eq!(
        actions,
        [Action::ReleaseSlots, Action::End(JobStatus::Canceled)]
    );
}

#[test]
fn a_job_ends_only_when_nothing_is_being_stored() {
    let mut machine = running();
    assert!(machine.set_storing(true, 15).is_empty());
    machine.cancel(20);
    assert!(report_all(&mut machine, TaskStatus::Canceled).is_empty());
    assert_eq!(machine.status(), JobStatus::Cancelling);
    let actions = machine.set_storing(false, 30);
    assert_eq!(
        actions,
        [Action::ReleaseSlots, Action::End(JobStatus::Canceled)]
    );
}

#[test]
fn an_attempt_begins_only_when_nothing_is_being_stored() {
    let mut machine = running();
    machine.set_storing(true, 15);
    machine.task_reported(report(0, 0, 0, TaskStatus::Failed), 20);
    report_all(&mut machine, TaskStatus::Canceled);
    assert!(machine.restart_due(520).is_empty());
    assert_eq!(machine.set_storing(false, 530), [Action::RequestSlots(2)]);
}

#[test]
fn slots_that_come_too_late_are_given_back() {
    let mut machine = machine();
    machine.start(3);
    machine.cancel(4);
    assert_eq!(machine.slots_granted(&slots(), 5), [Action::ReleaseSlots]);
}

#[test]
fn missing_slots_are_a_failure_like_another() {
    let mut machine = machine();
    machine.start(3);
    let actions = machine.slots_missing("too few".into(), 300_000);
    assert_eq!(
        actions[..2],
        [Action::ReleaseSlots, Action::ScheduleRestart(500)]
    );
    assert_eq!(machine.restart_due(300_500), [Action::RequestSlots(2)]);
}
