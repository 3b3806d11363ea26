//! Reading.

use std::time::Duration;

use tidemill_connectors::{ConnectorError, SourceEvent};
use tidemill_testkit::{Kafka, Record, wait_until};
use tidemill_types::CheckpointId;

use crate::{BOUNDED, source, suite};

fn numbered(range: std::ops::Range<usize>, partitions: i32) -> Vec<Record> {
    let record = |n: usize| {
        let partition = i32::try_from(n).unwrap() % partitions;
        Record::value(n.to_string()).in_partition(partition)
    };
    range.map(record).collect()
}

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

fn sorted(mut values: Vec<String>) -> Vec<String> {
    values.sort_by_key(|value| value.parse::<u64>().unwrap_or(u64::MAX));
    values
}

#[tokio::test(flavor = "multi_thread")]
async fn every_record_comes_exactly_once_at_any_parallelism() {
    let kafka = Kafka::start().await.unwrap();
    for topic in ["conform-a", "conform-b"] {
        kafka.create_topic(topic, 3).await.unwrap();
        kafka.produce(topic, numbered(0..600, 3)).await.unwrap();
    }
    let one = source(&kafka, "conform-a", &[BOUNDED]);
    suite::source_conforms(&one, &numbers(0..600), 8).await;
    let two = source(&kafka, "conform-a,conform-b", &[BOUNDED]);
    let twice = [numbers(0..600), numbers(0..600)].concat();
    suite::source_conforms(&two, &twice, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_timestamps_headers_and_tombstones_are_kept() {
    let kafka = Kafka::start().await.unwrap();
    kafka.create_topic("whole", 1).await.unwrap();
    let headers = vec![
        ("a".to_owned(), Some(b"1".to_vec())),
        ("b".to_owned(), None),
    ];
    let records = [
        Record {
            timestamp: Some(1_000),
            ..Record::value("plain")
        },
        Record {
            key: Some(b"k".to_vec()),
            timestamp: Some(2_000),
            headers,
            ..Record::default()
        },
        Record {
            key: Some(Vec::new()),
            timestamp: Some(3_000),
            ..Record::value("")
        },
    ];
    kafka.produce("whole", records).await.unwrap();
    let mut opened = suite::open_one(&source(&kafka, "whole", &[BOUNDED])).await;
    let batch = loop {
        if let SourceEvent::Batch { batch, .. } = opened.next(suite::budget(10)).await.unwrap() {
            break batch;
        }
    };
    batch.validate().unwrap();
    assert_eq!(batch.timestamps, [1_000, 2_000, 3_000]);
    let keys: Vec<_> = batch.keys.iter().collect();
    assert_eq!(keys, [None, Some(&b"k"[..]), Some(&b""[..])]);
    let values: Vec<_> = batch.values.iter().collect();
    assert_eq!(values, [Some(&b"plain"[..]), None, Some(&b""[..])]);
    let headers: Vec<_> = batch
        .headers
        .iter()
        .map(|h| (h.record, h.name.as_str(), h.value.as_deref()))
        .collect();
    assert_eq!(headers, [(1, "a", Some(&b"1"[..])), (1, "b", None)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_starts_and_ends_where_asked() {
    let kafka = Kafka::start().await.unwrap();
    kafka.create_topic("where", 2).await.unwrap();
    let at = |n: usize| Record {
        // Not 0, which librdkafka takes for "now".
        timestamp: Some(i64::try_from(n).unwrap() * 1_000 + 1),
        ..numbered(n..n + 1, 2).remove(0)
    };
    kafka.produce("where", (0..100).map(at)).await.unwrap();
    for (options, expected) in [
        (&[BOUNDED][..], 0..100),
        (&[BOUNDED, ("scan.startup.mode", "latest-offset")], 0..0),
        (
            &[
                BOUNDED,
                ("scan.startup.mode", "timestamp"),
                ("scan.startup.timestamp-millis", "59500"),
            ],
            60..100,
        ),
        (
            &[
                BOUNDED,
                ("scan.startup.mode", "timestamp"),
                ("scan.startup.timestamp-millis", "98500"),
            ],
            99..100,
        ),
        (
            &[
                BOUNDED,
                ("scan.startup.mode", "timestamp"),
                ("scan.startup.timestamp-millis", "1000000"),
            ],
            0..0,
        ),
        (
            &[
                ("scan.bounded.mode", "timestamp"),
                ("scan.bounded.timestamp-millis", "40000"),
            ],
            0..40,
        ),
        (
            &[
                ("scan.bounded.mode", "timestamp"),
                ("scan.bounded.timestamp-millis", "0"),
            ],
            0..0,
        ),
    ] {
        let values = suite::read_bounded(&source(&kafka, "where", options)).await;
        assert_eq!(sorted(values), numbers(expected), "{options:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_are_committed_when_a_checkpoint_completes() {
    let kafka = Kafka::start().await.unwrap();
    kafka.create_topic("committed", 2).await.unwrap();
    kafka
        .produce("committed", numbered(0..100, 2))
        .await
        .unwrap();
    let group = ("properties.group.id", "commit-group");
    let from_group = ("scan.startup.mode", "group-offsets");
    let config = source(&kafka, "committed", &[group]);
    let mut reader = suite::open_one(&config).await;
    let mut given = suite::Given::default();
    given
        .read(&mut reader, 10, |given| given.values.len() >= 60)
        .await
        .unwrap();
    reader.snapshot(CheckpointId(1)).unwrap();
    let before = given.values.len();
    given
        .read(&mut reader, 10, |given| given.caught_up)
        .await
        .unwrap();
    reader.checkpoint_complete(CheckpointId(1)).await.unwrap();
    wait_until(Duration::from_secs(10), "the commit", || async {
        let committed = kafka.committed("commit-group", "committed").await.unwrap();
        usize::try_from(committed.values().sum::<i64>()) == Ok(before)
    })
    .await
    .unwrap();
    let (name, count) = reader
        .metrics()
        .into_iter()
        .find(|(name, _)| name == "KafkaSourceReader.commitsSucceeded")
        .unwrap();
    assert!(count <= 1.0, "{name}");
    let rest =
        suite::read_bounded(&source(&kafka, "committed", &[group, from_group, BOUNDED])).await;
    assert_eq!(rest.len(), 100 - before);
    let nobody = source(
        &kafka,
        "committed",
        &[("properties.group.id", "nobody"), from_group],
    );
    let error = suite::open(&nobody, suite::source_context(0, 1), None)
        .await
        .err()
        .unwrap();
    assert!(
        error.to_string().contains("has committed no offset"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_and_topics_that_appear_are_read_from_their_start() {
    let kafka = Kafka::start().await.unwrap();
    kafka.create_topic("grow-1", 1).await.unwrap();
    kafka.produce("grow-1", numbered(0..10, 1)).await.unwrap();
    let options = [
        ("topic-pattern", "grow-[0-9]+"),
        ("properties.bootstrap.servers", kafka.bootstrap()),
        ("scan.startup.mode", "latest-offset"),
        ("scan.topic-partition-discovery.interval", "100 ms"),
    ];
    let mut reader = suite::open_one(&suite::config("kafka", &options)).await;
    let mut given = suite::Given::default();
    given
        .read(&mut reader, 10, |given| given.caught_up)
        .await
        .unwrap();
    kafka.add_partitions("grow-1", 2).await.unwrap();
    kafka.create_topic("grow-2", 1).await.unwrap();
    kafka.create_topic("grow-no", 1).await.unwrap();
    kafka
        .produce("grow-2", [Record::value("200")])
        .await
        .unwrap();
    kafka
        .produce("grow-no", [Record::value("no")])
        .await
        .unwrap();
    wait_until(
        Duration::from_secs(10),
        "a producer that knows the new partition",
        || async {
            kafka
                .produce("grow-1", [Record::value("100").in_partition(1)])
                .await
                .is_ok()
        },
    )
    .await
    .unwrap();
    given
        .read(&mut reader, 10, |given| given.values.len() >= 2)
        .await
        .unwrap();
    assert_eq!(sorted(given.values), ["100", "200"]);
    let names: Vec<_> = given.splits.values().cloned().collect();
    assert_eq!(names.len(), 3, "{names:?}");
    assert_eq!(reader.snapshot(CheckpointId(1)).unwrap().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_caught_up_goes_on_when_more_comes() {
    let kafka = Kafka::start().await.unwrap();
    for topic in ["more-a", "more-b"] {
        kafka.create_topic(topic, 1).await.unwrap();
    }
    // Two topics, so that librdkafka does not say whose end was met.
    let mut reader = suite::open_one(&source(&kafka, "more-a,more-b", &[])).await;
    let mut given = suite::Given::default();
    assert!(
        reader.is_behind(0) && reader.is_behind(1),
        "both may be full"
    );
    for round in 0..3 {
        given
            .read(&mut reader, 10, |given| given.caught_up)
            .await
            .unwrap();
        assert!(!reader.is_behind(0) && !reader.is_behind(1));
        kafka
            .produce("more-a", numbered(round..round + 1, 1))
            .await
            .unwrap();
        given
            .read(&mut reader, 10, |given| given.values.len() > round)
            .await
            .unwrap();
    }
    assert_eq!(given.values, numbers(0..3));
}

#[tokio::test(flavor = "multi_thread")]
async fn large_batches_are_cut_to_a_smaller_budget() {
    let kafka = Kafka::start().await.unwrap();
    kafka.create_topic("cut", 4).await.unwrap();
    kafka.produce("cut", numbered(0..400, 4)).await.unwrap();
    let mut reader = suite::open_one(&source(&kafka, "cut", &[BOUNDED])).await;
    let mut given = suite::Given::default();
    given
        .read(&mut reader, 300, |given| !given.values.is_empty())
        .await
        .unwrap();
    let before = given.values.len();
    // The others were pulled with the large budget.
    given
        .read(&mut reader, 1, |given| given.values.len() > before)
        .await
        .unwrap();
    assert_eq!(given.values.len(), before + 1);
    given
        .read(&mut reader, 7, |given| given.finished)
        .await
        .unwrap();
    assert_eq!(sorted(given.values), numbers(0..400));
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_can_be_cancelled_without_loss() {
    let kafka = Kafka::start().await.unwrap();
    kafka.create_topic("cancel", 2).await.unwrap();
    kafka
        .produce("cancel", numbered(0..2_000, 2))
        .await
        .unwrap();
    let mut reader = suite::open_one(&source(&kafka, "cancel", &[BOUNDED])).await;
    let mut given = suite::Given::default();
    while !given.finished {
        tokio::select! {
            biased;
            event = reader.next(suite::budget(3)) => given.take(event.unwrap()),
            () = tokio::task::yield_now() => {}
        }
    }
    assert_eq!(sorted(given.values), numbers(0..2_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn positions_that_were_deleted_fail_loudly() {
    let kafka = Kafka::start().await.unwrap();
    kafka.create_topic("gone", 1).await.unwrap();
    kafka.produce("gone", numbered(0..100, 1)).await.unwrap();
    let config = source(&kafka, "gone", &[BOUNDED]);
    let mut reader = suite::open_one(&config).await;
    let mut given = suite::Given::default();
    given
        .read(&mut reader, 10, |given| given.values.len() >= 10)
        .await
        .unwrap();
    let states = reader.snapshot(CheckpointId(1)).unwrap();
    kafka.delete_records("gone", 0, 50).await.unwrap();

    let cx = suite::source_context(0, 1);
    let mut reader = suite::open(&config, cx.clone(), Some(states.clone()))
        .await
        .unwrap();
    let error = suite::Given::default()
        .read(&mut reader, 10, |given| given.finished)
        .await
        .unwrap_err();
    assert!(matches!(error, ConnectorError::Lost(_)), "{error:?}");
    assert!(
        error
            .to_string()
            .contains("gone-0 at 10 (there are 50 to 100)"),
        "{error}"
    );

    let lenient = source(
        &kafka,
        "gone",
        &[BOUNDED, ("properties.auto.offset.reset", "earliest")],
    );
    let mut reader = suite::open(&lenient, cx.clone(), Some(states.clone()))
        .await
        .unwrap();
    let mut given = suite::Given::default();
    given
        .read(&mut reader, 10, |given| given.finished)
        .await
        .unwrap();
    assert_eq!(given.values, numbers(50..100));

    kafka.delete_topic("gone").await.unwrap();
    wait_until(Duration::from_secs(10), "the deletion", || async {
        let again = suite::open(&config, cx.clone(), Some(states.clone())).await;
        again.is_err_and(|error| error.to_string().contains("does not exist"))
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn only_committed_records_come_when_asked_for() {
    use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
    let kafka = Kafka::start().await.unwrap();
    kafka.create_topic("isolated", 1).await.unwrap();
    let bootstrap = kafka.bootstrap().to_owned();
    tokio::task::spawn_blocking(move || {
        let producer: BaseProducer = rdkafka::ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("transactional.id", "isolated")
            .create()
            .unwrap();
        let wait = Duration::from_secs(30);
        producer.init_transactions(wait).unwrap();
        for (value, commit) in [("1", true), ("2", false), ("3", true), ("4", false)] {
            producer.begin_transaction().unwrap();
            producer
                .send(BaseRecord::<(), str>::to("isolated").payload(value))
                .unwrap();
            producer.flush(wait).unwrap();
            if commit {
                producer.commit_transaction(wait).unwrap();
            } else {
                producer.abort_transaction(wait).unwrap();
            }
        }
    })
    .await
    .unwrap();
    for (isolation, expected) in [
        ("read_uncommitted", &["1", "2", "3", "4"][..]),
        ("read_committed", &["1", "3"]),
    ] {
        let config = source(
            &kafka,
            "isolated",
            &[BOUNDED, ("isolation-level", isolation)],
        );
        assert_eq!(suite::read_bounded(&config).await, expected, "{isolation}");
        let config = source(&kafka, "isolated", &[("isolation-level", isolation)]);
        assert_eq!(suite::read_to_rest(&config).await, expected, "{isolation}");
    }
}
