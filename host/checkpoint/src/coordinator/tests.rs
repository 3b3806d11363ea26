//! Claims about when checkpoints begin, complete and fail.

use super::*;
use crate::fixture::{IntoId, count_state, source_state, task};

fn settings() -> CheckpointSettings {
    CheckpointSettings {
        interval_ms: Some(100),
        timeout_ms: 1_000,
        ..CheckpointSettings::default()
    }
}

fn running(settings: CheckpointSettings) -> CheckpointCoordinator {
    let tasks = [task(0, 0), task(1, 0)];
    let mut coordinator = CheckpointCoordinator::new(settings, tasks, 1.into_id(), 0);
    tasks
        .into_iter()
        .for_each(|task| coordinator.task_running(task));
    coordinator
}

fn ack_all(coordinator: &mut CheckpointCoordinator, checkpoint: u64) -> Vec<Decision> {
    let mut decisions = coordinator.ack(task(0, 0), checkpoint.into_id(), source_state(0));
    decisions.extend(coordinator.ack(task(1, 0), checkpoint.into_id(), count_state(0, 1)));
    decisions
}

fn names(decisions: &[Decision]) -> Vec<String> {
    let name = |decision: &Decision| match decision {
        Decision::Trigger { checkpoint, .. } => format!("trigger {checkpoint}"),
        Decision::Publish(permit) => format!("publish {}", permit.checkpoint()),
        Decision::NotifyComplete { checkpoint } => format!("complete {checkpoint}"),
        Decision::NotifyAborted { checkpoint, .. } => format!("aborted {checkpoint}"),
        Decision::Discard { checkpoint } => format!("discard {checkpoint}"),
        Decision::FailJob { .. } => "fail job".to_owned(),
    };
    decisions.iter().map(name).collect()
}

const SAVEPOINT: CheckpointKind = CheckpointKind::Savepoint {
    stop: false,
    drain: false,
};
const STOP: CheckpointKind = CheckpointKind::Savepoint {
    stop: true,
    drain: false,
};

#[test]
fn a_checkpoint_goes_from_trigger_to_discard() {
    let mut coordinator = running(settings());
    assert_eq!(coordinator.next_wakeup(), Some(100));
    assert!(coordinator.tick(99).is_empty());
    assert_eq!(names(&coordinator.tick(100)), ["trigger 1"]);
    assert_eq!(
        coordinator.next_wakeup(),
        Some(1_100),
        "only the time-out: one is under way"
    );
    assert!(coordinator.tick(250).is_empty());
    let mut decisions = ack_all(&mut coordinator, 1);
    let Some(Decision::Publish(permit)) = decisions.pop() else {
        panic!("{decisions:?}")
    };
    assert_eq!(
        permit.into_states(),
        [
            (task(0, 0), source_state(0)),
            (task(1, 0), count_state(0, 1))
        ]
    );
    assert_eq!(coordinator.newest_completed(), None);
    assert_eq!(names(&coordinator.stored(1.into_id(), 300)), ["complete 1"]);
    assert_eq!(coordinator.newest_completed(), Some(1.into_id()));
    assert_eq!(coordinator.next_wakeup(), Some(300), "it is overdue");
    assert_eq!(names(&coordinator.tick(300)), ["trigger 2"]);
    assert_eq!(names(&ack_all(&mut coordinator, 2)), ["publish 2"]);
    assert_eq!(
        names(&coordinator.stored(2.into_id(), 310)),
        ["complete 2", "discard 1"]
    );
}

#[test]
fn nothing_is_triggered_before_all_tasks_are_up() {
    let mut coordinator =
        CheckpointCoordinator::new(settings(), [task(0, 0), task(1, 0)], 1.into_id(), 0);
    coordinator.task_running(task(0, 0));
    assert_eq!(coordinator.next_wakeup(), None);
    assert!(coordinator.tick(500).is_empty());
    assert_eq!(
        coordinator.request(SAVEPOINT, 500).unwrap_err(),
        TriggerRefused::NotRunning
    );
    coordinator.task_running(task(1, 0));
    coordinator.task_running(task(1, 0));
    assert_eq!(names(&coordinator.tick(500)), ["trigger 1"]);
}

#[test]
fn repeated_late_and_foreign_acknowledgements_change_nothing() {
    let mut coordinator = running(settings());
    coordinator.tick(100);
    for _ in 0..3 {
        assert!(
            coordinator
                .ack(task(0, 0), 1.into_id(), source_state(0))
                .is_empty()
        );
    }
    assert!(
        coordinator
            .ack(task(7, 0), 1.into_id(), source_state(0))
            .is_empty()
    );
    assert!(
        coordinator
            .ack(task(1, 0), 9.into_id(), count_state(0, 1))
            .is_empty()
    );
    let older = TaskId {
        attempt: tidemill_types::Attempt(9),
        ..task(1, 0)
    };
    assert!(
        coordinator
            .ack(older, 1.into_id(), count_state(0, 1))
            .is_empty()
    );
    assert_eq!(
        names(&coordinator.ack(task(1, 0), 1.into_id(), count_state(0, 1))),
        ["publish 1"]
    );
    assert!(ack_all(&mut coordinator, 1).is_empty());
    assert!(
        coordinator
            .decline(task(0, 0), 1.into_id(), "late", 150)
            .is_empty(),
        "invariant 3"
    );
    assert!(
        coordinator.tick(50_000).is_empty(),
        "no time-out while the store decides"
    );
    assert_eq!(
        names(&coordinator.stored(1.into_id(), 50_000)),
        ["complete 1"]
    );
    assert!(coordinator.stored(1.into_id(), 50_000).is_empty());
}

#[test]
fn a_finished_task_takes_part_with_its_last_state() {
    let mut coordinator = running(settings());
    coordinator.tick(100);
    coordinator.ack(task(1, 0), 1.into_id(), count_state(0, 1));
    assert_eq!(
        names(&coordinator.task_finished(task(0, 0), &source_state(5))),
        ["publish 1"]
    );
    coordinator.stored(1.into_id(), 110);
    assert_eq!(names(&coordinator.tick(210)), ["trigger 2"]);
    let decisions = coordinator.ack(task(1, 0), 2.into_id(), count_state(0, 1));
    let [Decision::Publish(permit)] = &decisions[..] else {
        panic!("{decisions:?}")
    };
    assert_eq!(permit.states()[0], (task(0, 0), source_state(5)));
    coordinator.stored(2.into_id(), 220);
    assert!(
        coordinator
            .task_finished(task(1, 0), &count_state(0, 1))
            .is_empty()
    );
    assert!(coordinator.tick(10_000).is_empty());
    assert_eq!(
        coordinator.request(SAVEPOINT, 10_000).unwrap_err(),
        TriggerRefused::Finished
    );
}

#[test]
fn failures_beyond_the_tolerable_fail_the_job() {
    let mut coordinator = running(CheckpointSettings {
        tolerable_failures: Some(1),
        ..settings()
    });
    coordinator.tick(100);
    assert_eq!(names(&coordinator.tick(1_100)), ["aborted 1", "trigger 2"]);
    let decisions = coordinator.decline(task(1, 0), 2.into_id(), "disk full", 1_150);
    assert_eq!(names(&decisions), ["aborted 2", "fail job"]);
    let Decision::FailJob { reason } = &decisions[1] else {
        unreachable!()
    };
    assert!(
        reason.contains("disk full") && reason.contains("checkpoint 2"),
        "{reason}"
    );
}

#[test]
fn a_completed_checkpoint_forgives_earlier_failures() {
    let mut coordinator = running(CheckpointSettings {
        tolerable_failures: Some(1),
        ..settings()
    });
    for n in [1, 3, 5] {
        let now = n * 1_000;
        assert_eq!(names(&coordinator.tick(now)), [format!("trigger {n}")]);
        assert_eq!(
            names(&ack_all(&mut coordinator, n)),
            [format!("publish {n}")]
        );
        assert_eq!(
            names(&coordinator.store_failed(n.into_id(), "503", now)),
            [format!("aborted {n}")]
        );
        assert_eq!(
            names(&coordinator.tick(now + 100)),
            [format!("trigger {}", n + 1)]
        );
        ack_all(&mut coordinator, n + 1);
        let stored = names(&coordinator.stored((n + 1).into_id(), now + 150));
        assert_eq!(stored[0], format!("complete {}", n + 1));
    }
}

#[test]
fn the_time_out_says_who_is_missing() {
    let mut coordinator = running(CheckpointSettings {
        tolerable_failures: None,
        ..settings()
    });
    coordinator.tick(100);
    coordinator.ack(task(0, 0), 1.into_id(), source_state(0));
    let decisions = coordinator.tick(1_100);
    let Decision::NotifyAborted { reason, .. } = &decisions[0] else {
        panic!("{decisions:?}")
    };
    assert!(
        reason.contains("1 of 2 tasks") && reason.contains(&task(1, 0).to_string()),
        "{reason}"
    );
}

#[test]
fn the_minimum_pause_counts_from_the_end() {
    let mut coordinator = running(CheckpointSettings {
        min_pause_ms: 80,
        max_concurrent: 4,
        ..settings()
    });
    coordinator.tick(100);
    assert!(
        coordinator.tick(200).is_empty(),
        "a pause allows only one at a time"
    );
    ack_all(&mut coordinator, 1);
    coordinator.stored(1.into_id(), 250);
    assert_eq!(coordinator.next_wakeup(), Some(330));
    assert!(coordinator.tick(329).is_empty());
    assert_eq!(names(&coordinator.tick(330)), ["trigger 2"]);
}

#[test]
fn a_newer_completed_checkpoint_gives_up_older_ones() {
    let mut coordinator = running(CheckpointSettings {
        max_concurrent: 3,
        ..settings()
    });
    assert_eq!(names(&coordinator.tick(100)), ["trigger 1"]);
    assert_eq!(names(&coordinator.tick(200)), ["trigger 2"]);
    assert_eq!(names(&ack_all(&mut coordinator, 2)), ["publish 2"]);
    assert!(
        ack_all(&mut coordinator, 1).is_empty(),
        "one is stored at a time"
    );
    assert_eq!(
        names(&coordinator.stored(2.into_id(), 250)),
        ["complete 2", "aborted 1"]
    );
}

#[test]
fn when_the_newer_cannot_be_stored_the_older_is() {
    let settings = CheckpointSettings {
        max_concurrent: 3,
        tolerable_failures: None,
        ..settings()
    };
    let mut coordinator = running(settings);
    coordinator.tick(100);
    coordinator.tick(200);
    ack_all(&mut coordinator, 2);
    ack_all(&mut coordinator, 1);
    assert_eq!(
        names(&coordinator.store_failed(2.into_id(), "503", 250)),
        ["aborted 2", "publish 1"]
    );
    assert_eq!(names(&coordinator.stored(1.into_id(), 260)), ["complete 1"]);
}

#[test]
fn a_savepoint_neither_commits_nor_replaces() {
    let mut coordinator = running(settings());
    coordinator.tick(100);
    let (savepoint, decisions) = coordinator.request(SAVEPOINT, 120).unwrap();
    assert_eq!(names(&decisions), ["trigger 2"]);
    assert_eq!(
        coordinator
            .request(CheckpointKind::Checkpoint, 120)
            .unwrap_err(),
        TriggerRefused::Busy
    );
    ack_all(&mut coordinator, 1);
    assert_eq!(names(&coordinator.stored(1.into_id(), 130)), ["complete 1"]);
    assert_eq!(names(&ack_all(&mut coordinator, 2)), ["publish 2"]);
    assert!(coordinator.stored(savepoint, 140).is_empty());
    assert_eq!(coordinator.newest_completed(), Some(1.into_id()));
}

#[test]
fn after_a_stopping_savepoint_nothing_is_triggered() {
    let mut coordinator = running(settings());
    let (_, decisions) = coordinator.request(STOP, 50).unwrap();
    assert_eq!(names(&decisions), ["trigger 1"]);
    assert!(coordinator.tick(500).is_empty());
    assert_eq!(
        coordinator.request(SAVEPOINT, 500).unwrap_err(),
        TriggerRefused::Busy
    );
    ack_all(&mut coordinator, 1);
    assert_eq!(names(&coordinator.stored(1.into_id(), 600)), ["complete 1"]);
    assert_eq!(coordinator.newest_completed(), Some(1.into_id()));
}

#[test]
fn a_failed_stopping_savepoint_fails_the_job_since_its_sources_have_stopped() {
    let mut coordinator = running(CheckpointSettings {
        tolerable_failures: None,
        ..settings()
    });
    coordinator.request(STOP, 50).unwrap();
    let decisions = coordinator.decline(task(0, 0), 1.into_id(), "no", 60);
    assert_eq!(names(&decisions), ["aborted 1", "fail job"]);
}

#[test]
fn a_restart_waits_for_the_store_and_goes_on_with_the_numbers() {
    let mut coordinator = running(CheckpointSettings {
        max_concurrent: 2,
        ..settings()
    });
    coordinator.tick(100);
    coordinator.tick(200);
    ack_all(&mut coordinator, 1);
    assert_eq!(names(&coordinator.abort_all("task failed")), ["aborted 2"]);
    let next = TaskId {
        attempt: tidemill_types::Attempt(1),
        ..task(0, 0)
    };
    assert_eq!(
        coordinator.restart([next], 300),
        Err(StillPublishing(1.into_id()))
    );
    assert_eq!(names(&coordinator.stored(1.into_id(), 310)), ["complete 1"]);
    coordinator.restart([next], 320).unwrap();
    assert!(
        coordinator.tick(1_000).is_empty(),
        "the new tasks are not up yet"
    );
    coordinator.task_running(next);
    assert_eq!(names(&coordinator.tick(1_000)), ["trigger 3"]);
}

#[test]
fn earlier_lives_are_discarded_in_their_turn() {
    let settings = CheckpointSettings {
        retained: 2,
        ..settings()
    };
    let earlier = [3.into_id(), 7.into_id()];
    let mut coordinator =
        CheckpointCoordinator::new(settings, [task(0, 0)], 1.into_id(), 0).with_completed(earlier);
    assert_eq!(coordinator.newest_completed(), Some(7.into_id()));
    coordinator.task_running(task(0, 0));
    assert_eq!(names(&coordinator.tick(100)), ["trigger 8"]);
    coordinator.ack(task(0, 0), 8.into_id(), source_state(0));
    assert_eq!(
        names(&coordinator.stored(8.into_id(), 110)),
        ["complete 8", "discard 3"]
    );
}
