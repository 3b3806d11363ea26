//! Jobs that misbehave, built with the SDK: each fails alone, with a clear cause.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use support::{Bench, MECHANISMS, job, task::Task};
use tidemill_runtime::{Guest, GuestError, Limits, Module, PlanRequest};
use tidemill_types::BatchBuilder;

fn limits() -> Limits {
    Limits {
        memory_bytes: 64 << 20,
        call: std::time::Duration::from_millis(700),
        ..Limits::default()
    }
}

async fn plan(module: &Module, mode: &str, task: &Task) -> Result<Guest, GuestError> {
    let mut guest = module
        .instantiate(limits(), support::env(), Box::new(task.clone()))
        .await?;
    let args = vec!["--mode".to_owned(), mode.to_owned()];
    guest
        .plan(&PlanRequest {
            args,
            config: vec![],
        })
        .await?;
    Ok(guest)
}

async fn open(module: &Module, mode: &str, vertex: u32, task: &Task) -> Result<Guest, GuestError> {
    let mut guest = plan(module, mode, task).await?;
    let request = tidemill_runtime::OpenRequest {
        vertex,
        ..support::open_request()
    };
    guest.open(&request).await?;
    Ok(guest)
}

/// Runs three records through both vertices, with snapshots.
async fn run(module: &Module, mode: &str, task: &Task) -> Result<usize, GuestError> {
    let source_task = Task::default();
    let mut source = open(module, mode, 0, &source_task).await?;
    let mut numbers = BatchBuilder::new();
    for number in ["0", "1", "2"] {
        numbers.push(0, None, Some(number.as_bytes()));
    }
    source.process(0, 0, &numbers.take()).await?;
    let emitted = std::mem::take(&mut source_task.0.lock().emitted);
    let mut guilty = open(module, mode, 1, task).await?;
    let mut rejected = 0;
    for (_, batch) in emitted {
        rejected += guilty.process(0, 0, &batch).await?.rejected.len();
    }
    guilty.snapshot(1).await?;
    Ok(rejected)
}

/// What a mode must end in: a variant, and a part of its text.
const MODES: [(&str, &str, &str); 26] = [
    ("loop", "Interrupted", "interrupted after"),
    ("spin", "Interrupted", "interrupted after"),
    ("sleep", "Interrupted", "interrupted after"),
    ("recurse", "Stack", "exceeded its stack"),
    ("memory", "Memory", "exceeded 64 MiB of memory"),
    ("panic", "Trap", "is bad luck"),
    ("huge-panic", "Trap", "bytes more)"),
    ("bad-port", "", ""),
    ("bad-ends", "Violation", "output.emit"),
    ("decreasing-ends", "Violation", "output.emit"),
    ("short-column", "Violation", "output.emit"),
    ("bad-null", "Violation", "output.emit"),
    ("bad-header", "Violation", "output.emit"),
    ("huge-key", "Memory", "exceeded 64 MiB of memory"),
    ("timer-flood", "", ""),
    ("emit-flood", "Interrupted", "interrupted after"),
    ("metric-flood", "Violation", "metrics"),
    ("fail", "", ""),
    ("loop-in-plan", "Interrupted", "interrupted after"),
    ("recurse-in-plan", "Stack", "exceeded its stack"),
    ("memory-in-plan", "Memory", "exceeded 64 MiB of memory"),
    ("panic-in-plan", "Trap", "no plan today"),
    ("fail-in-plan", "Failed", "does not want to be planned"),
    ("huge-name", "", ""),
    ("control-characters", "Violation", "control characters"),
    ("many-operators", "Violation", "more than"),
];

#[tokio::test]
async fn each_misdeed_ends_with_its_cause() {
    for mechanism in MECHANISMS {
        let bench = Bench::new(mechanism);
        let module = job::load(&bench.runtime, "hostile");
        for (mode, variant, text) in MODES {
            // What is emitted by the million is not kept.
            let task = Task::default();
            task.0.lock().blackhole = true;
            let ended = run(&module, mode, &task).await;
            if variant.is_empty() {
                // The worker's host decides about these; here they only must not hurt.
                continue;
            }
            let Err(error) = ended else {
                panic!("{mode} was tolerated")
            };
            assert!(
                format!("{error:?}").starts_with(variant),
                "{mode}: {error:?}"
            );
            assert!(error.to_string().contains(text), "{mode}: {error}");
            assert!(error.to_string().len() < 128 << 10, "{mode}");
        }
        assert_eq!(run(&module, "none", &Task::default()).await, Ok(0));
    }
}

#[tokio::test]
async fn floods_of_output_are_tolerated_but_bounded() {
    for mechanism in MECHANISMS {
        let bench = Bench::new(mechanism);
        let module = job::load(&bench.runtime, "hostile");
        for mode in ["stdout-flood", "stderr-flood", "log-flood"] {
            let task = Task::default();
            // A slow machine may interrupt it; that is fine too.
            let ended = run(&module, mode, &task).await;
            assert!(
                matches!(ended, Ok(_) | Err(GuestError::Interrupted { .. })),
                "{mode}: {ended:?}"
            );
            let logs = std::mem::take(&mut task.0.lock().logs);
            let bytes: usize = logs.iter().map(String::len).sum();
            assert!(
                (1..1 << 20).contains(&bytes),
                "{mode}: {bytes} bytes of log"
            );
        }
    }
}

#[tokio::test]
async fn planning_twice_gives_the_same_graph_whatever_the_module_tries() {
    let bench = Bench::new(MECHANISMS[0]);
    let module = job::load(&bench.runtime, "hostile");
    let request = PlanRequest {
        args: vec!["--mode".into(), "unstable-plan".into()],
        config: vec![],
    };
    let mut graphs = Vec::new();
    for _ in 0..2 {
        let mut guest = module
            .instantiate(limits(), support::env(), Box::new(Task::default()))
            .await
            .unwrap();
        graphs.push(guest.plan(&request).await.unwrap());
    }
    // Clock and randomness are fixed by the job.
    assert_eq!(graphs[0], graphs[1]);
}
