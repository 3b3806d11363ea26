//! The same records at any number of subtasks, from any position.

use std::collections::BTreeMap;

use tidemill_types::{Attempt, JobId, TenantId};

use super::*;

fn config(options: &[(&str, &str)]) -> ConnectorConfig {
    let options = options
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    ConnectorConfig {
        kind: "datagen".into(),
        options,
    }
}

fn context(subtask: u32, parallelism: u32) -> SourceContext {
    SourceContext {
        job: JobId::from_name("job"),
        tenant: TenantId::default_tenant(),
        vertex_uid: "vertex".into(),
        source_uid: "source".into(),
        subtask,
        parallelism,
        max_parallelism: 128,
        attempt: Attempt(0),
    }
}

/// Everything that all subtasks give, in batches of varying sizes.
async fn read_all(options: &[(&str, &str)], parallelism: u32) -> Vec<(i64, String)> {
    let mut records = Vec::new();
    for subtask in 0..parallelism {
        let mut source =
            Datagen::new(&config(options), &context(subtask, parallelism), None).unwrap();
        let mut size = 1;
        loop {
            size = size % 29 + 1;
            match source
                .next(BatchBudget {
                    records: size,
                    bytes: 1 << 20,
                })
                .await
                .unwrap()
            {
                SourceEvent::Finished => break,
                SourceEvent::Batch { batch, .. } => {
                    batch.validate().unwrap();
                    assert!(!batch.is_empty() && batch.len() <= size);
                    records.extend((0..batch.len()).map(|i| {
                        let text = String::from_utf8(batch.values.bytes(i).to_vec()).unwrap();
                        (batch.timestamps[i], text)
                    }));
                }
                _ => {}
            }
        }
    }
    records.sort();
    records
}

#[tokio::test]
async fn records_are_the_same_at_any_number_of_splits_and_subtasks() {
    for format in ["click-event", "sequence", "random-text"] {
        let base = [
            ("format", format),
            ("records", "1007"),
            ("start-timestamp", "99990"),
        ];
        let one = read_all(&base, 1).await;
        assert_eq!(one.len(), 1007, "{format}");
        for (splits, parallelism) in [("1", 3), ("2", 2), ("5", 3), ("8", 1)] {
            let mut options = base.to_vec();
            options.push(("splits", splits));
            assert_eq!(
                read_all(&options, parallelism).await,
                one,
                "{format} {splits}"
            );
        }
    }
}

#[tokio::test]
async fn every_page_has_exactly_so_many_events_in_every_window() {
    let options = [
        ("records", "7200"),
        ("events-per-window", "300"),
        ("window-ms", "1000"),
        ("splits", "7"),
    ];
    let mut counts = BTreeMap::new();
    for (timestamp, text) in read_all(&options, 2).await {
        let page = text.split('"').nth(5).unwrap().to_owned();
        assert_eq!(
            text,
            format!("{{\"timestamp\":{timestamp},\"page\":\"{page}\"}}")
        );
        *counts.entry((timestamp / 1000, page)).or_insert(0) += 1;
    }
    assert_eq!(counts.len(), 24);
    assert!(counts.values().all(|count| *count == 300), "{counts:?}");
}

#[tokio::test]
async fn event_time_can_go_on_with_each_record() {
    let options = [
        ("records", "100"),
        ("us-per-record", "100"),
        ("splits", "3"),
    ];
    let records = read_all(&options, 1).await;
    let timestamps: Vec<i64> = records.iter().map(|(timestamp, _)| *timestamp).collect();
    assert_eq!(timestamps, (0..100).map(|n| n / 10).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn the_rate_holds_over_all_subtasks() {
    let options = config(&[("rate", "100"), ("splits", "2")]);
    let mut given = 0;
    for subtask in 0..2 {
        let mut source = Datagen::new(&options, &context(subtask, 2), None).unwrap();
        let start = Instant::now();
        while start.elapsed().as_secs() < 10 {
            let budget = BatchBudget {
                records: 1000,
                bytes: 1 << 20,
            };
            if let SourceEvent::Batch { batch, .. } = source.next(budget).await.unwrap() {
                given += batch.len();
            }
        }
    }
    assert!((1000..=1004).contains(&given), "{given}");
}

#[test]
fn wrong_options_are_named() {
    for (options, message) in [
        (
            &[("rate", "0")][..],
            "datagen: `rate` is \"0\", not a whole number above 0",
        ),
        (
            &[("recods", "5")],
            "datagen: there is no option `recods`; did you mean `records`?",
        ),
        (
            &[("format", "xml")],
            "datagen: `format` is \"xml\", not one of click-event, sequence, random-text",
        ),
    ] {
        assert_eq!(validate(&config(options)).unwrap_err().to_string(), message);
    }
}

#[test]
fn foreign_positions_are_refused() {
    let restored = vec![SplitState {
        split: "clicks-3".into(),
        state: b"{}".to_vec(),
    }];
    let error = Datagen::new(&config(&[]), &context(0, 1), Some(restored)).unwrap_err();
    assert!(matches!(error, ConnectorError::Lost(_)), "{error}");
}
