//! A real job, by hand: what the worker does with its two tasks, without the worker.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use support::{job, task::Task, under_each_mechanism};
use tidemill_runtime::Guest;

const ARGS: [&str; 6] = [
    "--event-time",
    "--chaining",
    "--source",
    "datagen",
    "--sink",
    "blackhole",
];

/// Delivers timers until none is due, then the watermark.
async fn advance(guest: &mut Guest, task: &Task, watermark: i64) {
    loop {
        let due = task.0.lock().take_due(watermark);
        let Some(due) = due else { break };
        guest.fire_timers(&due, watermark).await.unwrap();
    }
    task.0.lock().watermark = Some(watermark);
    guest.watermark(watermark).await.unwrap();
}

#[test]
fn click_event_count_counts_each_page_and_window_exactly() {
    under_each_mechanism(async |bench| {
        let module = job::load(&bench.runtime, "click_event_count");
        let (mut source, source_task) = job::opened(&module, &ARGS, 0).await;
        let (mut counter, counter_task) = job::opened(&module, &ARGS, 1).await;
        let mut watermark = i64::MIN;
        for start in (0..24_000).step_by(500) {
            let progress = source
                .process(0, 0, &job::clicks(start..start + 500))
                .await
                .unwrap();
            assert!(progress.rejected.is_empty(), "{:?}", progress.rejected);
            watermark = progress.watermark;
            let emitted = std::mem::take(&mut source_task.0.lock().emitted);
            for (_, batch) in emitted {
                counter.process(0, 0, &batch).await.unwrap();
            }
            if start == 12_000 {
                // A barrier in the middle: what is cached must reach the host.
                source.snapshot(1).await.unwrap();
                counter.snapshot(1).await.unwrap();
                assert!(!counter_task.0.lock().entries.is_empty());
            }
            advance(&mut counter, &counter_task, watermark).await;
        }
        assert_eq!(watermark, 3_999 * 15 - 200 - 1);
        counter.end_of_input(0).await.unwrap();
        advance(&mut counter, &counter_task, i64::MAX).await;

        let emitted = std::mem::take(&mut counter_task.0.lock().emitted);
        let mut lines: Vec<String> = Vec::new();
        for (_, batch) in &emitted {
            lines.extend(
                batch
                    .values
                    .iter()
                    .map(|v| String::from_utf8(v.unwrap().to_vec()).unwrap()),
            );
        }
        assert_eq!(lines.len(), 24, "{lines:#?}");
        assert!(
            lines.iter().all(|line| line.ends_with(r#""count":1000}"#)),
            "{lines:#?}"
        );
    });
}

#[test]
fn every_instance_plans_the_same_graph() {
    under_each_mechanism(async |bench| {
        let module = job::load(&bench.runtime, "click_event_count");
        let (_, first) = job::planned(&module, &ARGS, &Task::default()).await;
        let (_, second) = job::planned(&module, &ARGS, &Task::default()).await;
        assert_eq!(first, second);
        assert_eq!(first.vertices.len(), 2);
    });
}

#[test]
fn a_record_that_is_not_json_is_rejected_and_the_others_are_not() {
    under_each_mechanism(async |bench| {
        let module = job::load(&bench.runtime, "click_event_count");
        let (mut source, _) = job::opened(&module, &ARGS, 0).await;
        let mut batch = tidemill_types::BatchBuilder::new();
        batch.push_from(&job::clicks(0..1), 0);
        batch.push(0, None, Some(b"{oops"));
        batch.push_from(&job::clicks(0..1), 0);
        let progress = source.process(0, 0, &batch.take()).await.unwrap();
        assert_eq!(progress.rejected.len(), 1);
        assert_eq!(progress.rejected[0].record, 1);
    });
}
