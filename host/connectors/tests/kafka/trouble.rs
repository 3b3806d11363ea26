//! Brokers that are absent, refuse, or go away.

use std::time::Duration;

use tidemill_connectors::{ConnectorError, Registry};
use tidemill_testkit::{Kafka, Record, free_port};
use tidemill_types::{
    BatchBuilder, CheckpointId, ConnectorConfig, JobGraph, SinkBinding, SourceBinding, Vertex,
};

use crate::{sink, source, suite};

fn graph(source: ConnectorConfig, sink: ConnectorConfig) -> JobGraph {
    let vertex = Vertex {
        uid: "v".into(),
        name: "v".into(),
        parallelism: None,
        max_parallelism: None,
        source: Some(SourceBinding {
            uid: "s".into(),
            name: "s".into(),
            connector: source,
            idle_timeout_ms: None,
        }),
        operators: Vec::new(),
        sinks: vec![SinkBinding {
            uid: "k".into(),
            name: "k".into(),
            port: 0,
            connector: sink,
        }],
        states: Vec::new(),
        wants_watermarks: false,
        makes_watermarks: false,
    };
    JobGraph {
        name: "job".into(),
        vertices: vec![vertex],
        edges: Vec::new(),
        config: Default::default(),
    }
}

async fn preflight(source: &ConnectorConfig, sink: &ConnectorConfig) -> Result<(), ConnectorError> {
    let start = tokio::time::Instant::now();
    let result = Registry::standard()
        .preflight(&graph(source.clone(), sink.clone()))
        .await;
    assert!(
        start.elapsed() < Duration::from_secs(8),
        "{:?}",
        start.elapsed()
    );
    result
}

#[tokio::test(flavor = "multi_thread")]
async fn preflight_finds_what_cannot_be_reached() {
    let kafka = Kafka::start().await.unwrap();
    kafka.create_topic("there", 1).await.unwrap();
    let (good_source, good_sink) = (source(&kafka, "there", &[]), sink(&kafka, "there", &[]));
    preflight(&good_source, &good_sink).await.unwrap();

    let error = preflight(&source(&kafka, "nowhere", &[]), &good_sink)
        .await
        .unwrap_err();
    assert!(
        matches!(&error, ConnectorError::Invalid(text) if text.contains("the topic \"nowhere\" does not exist")),
        "{error}"
    );
    let error = preflight(&good_source, &sink(&kafka, "nowhere", &[]))
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("the topic \"nowhere\" does not exist"),
        "{error}"
    );

    let nobody = format!("127.0.0.1:{}", free_port().unwrap());
    let absent = suite::config(
        "kafka",
        &[("topic", "x"), ("properties.bootstrap.servers", &nobody)],
    );
    let error = preflight(&good_source, &absent).await.unwrap_err();
    assert!(
        matches!(&error, ConnectorError::Unreachable(text) if text.contains(&nobody)),
        "{error}"
    );
    assert!(error.to_string().contains("Connection refused"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_speaks_no_tls_is_named() {
    let kafka = Kafka::start().await.unwrap();
    kafka.create_topic("tls", 1).await.unwrap();
    let config = source(&kafka, "tls", &[("properties.security.protocol", "ssl")]);
    let error = preflight(&config, &sink(&kafka, "tls", &[]))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("SSL"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_restart_loses_nothing() {
    let kafka = Kafka::start_own().await.unwrap();
    kafka.create_topic("in", 2).await.unwrap();
    kafka.create_topic("out", 1).await.unwrap();
    let records = |from: usize| (from..from + 100).map(|n| Record::value(n.to_string()));
    kafka.produce("in", records(0)).await.unwrap();
    let mut reader = suite::open_one(&source(&kafka, "in", &[])).await;
    let mut given = suite::Given::default();
    given
        .read(&mut reader, 10, |given| given.caught_up)
        .await
        .unwrap();
    let config = sink(&kafka, "out", &[]);
    let mut writer = Registry::standard()
        .open_sink(&config, suite::sink_context(0, 1), Vec::new())
        .await
        .unwrap();
    let mut batch = BatchBuilder::new();
    batch.push(0, None, Some(b"before"));
    writer.write(batch.take()).await.unwrap();
    writer.prepare(CheckpointId(1)).await.unwrap();

    kafka.kill().await.unwrap();
    batch.push(0, None, Some(b"while it is away"));
    writer.write(batch.take()).await.unwrap();
    let down = tokio::time::timeout(
        Duration::from_secs(3),
        given.read(&mut reader, 10, |given| given.values.len() > 100),
    );
    assert!(down.await.is_err(), "a source waits for its brokers");
    kafka.start_again().await.unwrap();

    writer.prepare(CheckpointId(2)).await.unwrap();
    kafka.produce("in", records(100)).await.unwrap();
    given
        .read(&mut reader, 10, |given| given.values.len() >= 200)
        .await
        .unwrap();
    given
        .values
        .sort_by_key(|value| value.parse::<u64>().unwrap());
    assert_eq!(
        given.values,
        (0..200).map(|n| n.to_string()).collect::<Vec<_>>()
    );
    let written: Vec<_> = kafka
        .read_all("out")
        .await
        .unwrap()
        .iter()
        .map(|r| r.text())
        .collect();
    assert_eq!(written, ["before", "while it is away"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_that_stay_away_fail_the_job_after_a_while() {
    let kafka = Kafka::start_own().await.unwrap();
    kafka.create_topic("in", 1).await.unwrap();
    kafka.create_topic("out", 1).await.unwrap();
    let mut reader = suite::open_one(&source(&kafka, "in", &[])).await;
    let mut given = suite::Given::default();
    given
        .read(&mut reader, 10, |given| given.caught_up)
        .await
        .unwrap();
    let config = sink(&kafka, "out", &[("properties.message.timeout.ms", "2000")]);
    let mut writer = Registry::standard()
        .open_sink(&config, suite::sink_context(0, 1), Vec::new())
        .await
        .unwrap();
    kafka.kill().await.unwrap();
    let mut batch = BatchBuilder::new();
    batch.push(0, None, Some(b"lost"));
    writer.write(batch.take()).await.unwrap();
    let error = writer.prepare(CheckpointId(1)).await.unwrap_err();
    assert!(matches!(error, ConnectorError::Unreachable(_)), "{error:?}");
    let waiting = tokio::time::timeout(Duration::from_secs(50), reader.next(suite::budget(10)));
    let error = waiting.await.expect("an error in time").unwrap_err();
    assert!(matches!(error, ConnectorError::Unreachable(_)), "{error:?}");
}
