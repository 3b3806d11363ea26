//! What a job's description becomes.

use tidemill::prelude::*;
use tidemill::testing::JobTest;
use tidemill::testing::planner::{JobGraph, ShipStrategy};

fn plan(job: fn(&Env, &Args) -> Result<()>) -> Result<JobGraph> {
    JobTest::new(job).plan()
}

fn lines(env: &Env, name: &str) -> Stream<impl Pipe<Out = String> + use<>> {
    env.source(name, kafka::source(name)).decode(Text)
}

#[test]
fn a_stream_that_leads_nowhere_is_refused() {
    let error = plan(|env, _| {
        drop(lines(env, "in").map(|line| line.len()));
        Ok(())
    });
    let error = error.unwrap_err().to_string();
    assert_eq!(
        error,
        "the stream after `in -> Map` leads nowhere: end it with a sink, or with `.discard()`"
    );
}

#[test]
fn a_job_without_a_source_is_refused() {
    let error = plan(|_, _| Ok(())).unwrap_err().to_string();
    assert_eq!(error, "the job has no source: begin with `env.source(…)`");
}

#[test]
fn ids_are_the_authors_or_follow_from_place_and_name() {
    let graph = plan(|env, _| {
        lines(env, "in")
            .filter(|line| !line.is_empty())
            .uid("not-empty")
            .name("Only Full Ones")
            .map(|line| line)
            .encode(Text)
            .sink("The Sink", print::sink())
            .uid("the-sink");
        Ok(())
    })
    .unwrap();
    let vertex = &graph.vertices[0];
    let uids: Vec<&str> = vertex
        .operators
        .iter()
        .map(|operator| operator.uid.as_str())
        .collect();
    assert_eq!(uids, ["0-0-decode", "not-empty", "0-2-map", "the-sink"]);
    assert_eq!(vertex.name, "in -> Only Full Ones -> Map -> The Sink");
    assert_eq!(
        (vertex.uid.as_str(), vertex.sinks[0].uid.as_str()),
        ("0-source-in", "the-sink")
    );
}

#[test]
fn exchanges_ship_as_they_say() {
    let graph = plan(|env, _| {
        lines(env, "in")
            .rebalance()
            .map(|line| line)
            .start_new_chain()
            .map(|line| line)
            .parallelism(3)
            .broadcast()
            .map(|line| line)
            .global()
            .discard();
        Ok(())
    })
    .unwrap();
    let strategies: Vec<_> = graph.edges.iter().map(|edge| edge.strategy).collect();
    // Forwarding needs the same parallelism on both sides.
    assert_eq!(
        strategies,
        [
            ShipStrategy::Rebalance,
            ShipStrategy::Rebalance,
            ShipStrategy::Broadcast,
            ShipStrategy::Global
        ]
    );
}

#[test]
fn a_shared_stream_gives_all_its_values_to_each_use() {
    let mut job = JobTest::new(|env, _| {
        let lines = lines(env, "in").share();
        lines
            .clone()
            .map(|line| line.to_uppercase())
            .encode(Text)
            .sink("loud", print::sink());
        lines
            .start_new_chain()
            .encode(Text)
            .sink("as they are", print::sink());
        Ok(())
    })
    .start()
    .unwrap();
    job.send("in", ["a", "b"]).unwrap();
    assert_eq!(job.texts("loud"), ["A", "B"]);
    assert_eq!(job.texts("as they are"), ["a", "b"]);
}

#[test]
fn a_union_has_the_values_of_both_and_the_slower_watermark() {
    let mut job = JobTest::new(|env, _| {
        let read = |name| {
            lines(env, name)
                .assign_timestamps(WatermarkStrategy::monotonous(), |line| line.len() as i64)
        };
        read("left")
            .union(read("right"))
            .key_by_ref(|line| line)
            .window(Tumbling::event_time(std::time::Duration::from_millis(5)))
            .reduce(|a, _b| a)
            .encode(Text)
            .sink("out", print::sink());
        Ok(())
    })
    .start()
    .unwrap();
    job.send("left", ["a", "a", "0123456789"]).unwrap();
    assert!(job.texts("out").is_empty());
    job.send("right", ["b", "0123456789"]).unwrap();
    let mut first = job.texts("out");
    first.sort();
    assert_eq!(first, ["a", "b"]);
}

#[test]
fn keys_timestamps_and_headers_are_kept() {
    use tidemill::Record;
    use tidemill::testing::types::{Batch, Column, Header};
    let mut job = JobTest::new(|env, _| {
        env.source("in", kafka::source("in"))
            .decode(Record::format())
            .start_new_chain()
            .encode(Record::format())
            .sink("out", kafka::sink("out"));
        env.disable_operator_chaining();
        Ok(())
    })
    .start()
    .unwrap();
    let batch = Batch {
        timestamps: vec![5, 6],
        keys: Column {
            data: b"k".to_vec(),
            ends: vec![1, 1],
            nulls: vec![1],
        },
        values: Column {
            data: b"v".to_vec(),
            ends: vec![0, 1],
            nulls: vec![0],
        },
        headers: vec![Header {
            record: 1,
            name: "h".to_owned(),
            value: Some(vec![7]),
        }],
    };
    job.send_batch("in", 0, &batch).unwrap();
    let tombstone = Record {
        key: Some(b"k".to_vec()),
        value: None,
        headers: Vec::new(),
    };
    let headers = vec![("h".to_owned(), Some(vec![7]))];
    let headed = Record {
        key: None,
        value: Some(b"v".to_vec()),
        headers,
    };
    assert_eq!(job.records("out"), [(5, tombstone), (6, headed)]);
}

#[test]
fn rejected_records_are_skipped_if_the_job_says_so() {
    let job = |env: &Env, args: &Args| {
        if args.flag("skip")? {
            env.on_rejected(RejectedRecords::Skip);
        }
        let numbers = lines(env, "in").try_map(|line| line.parse::<u32>());
        numbers
            .map(|n| (n + 1).to_string())
            .encode(Text)
            .sink("out", print::sink());
        Ok(())
    };
    let mut skipping = JobTest::new(job).args(["--skip"]).start().unwrap();
    skipping.send("in", ["1", "two", "3"]).unwrap();
    assert_eq!(skipping.texts("out"), ["2", "4"]);
    assert_eq!(skipping.rejected(), ["Map: invalid digit found in string"]);
    let mut failing = JobTest::new(job).start().unwrap();
    assert!(failing.send("in", ["two"]).is_err());
}

#[test]
fn combining_shows_in_the_plan_and_can_be_switched_off() {
    let job = |env: &Env, _: &Args| {
        lines(env, "in")
            .assign_timestamps(WatermarkStrategy::monotonous(), |_| 0)
            .key_by_ref(|line| line)
            .window(Tumbling::event_time(std::time::Duration::from_secs(15)))
            .aggregate(Count, |_, _, count| count.to_string())
            .encode(Text)
            .sink("out", print::sink());
        Ok(())
    };
    let descriptions = |on: &str| -> Vec<String> {
        let job = JobTest::new(job).config("tidemill.pipeline.combine", on);
        let vertex = job.plan().unwrap().vertices.remove(0);
        vertex
            .operators
            .into_iter()
            .map(|operator| operator.description)
            .collect()
    };
    let combine = "Combine(TumblingEventTimeWindows(15 s), Count)".to_owned();
    assert!(descriptions("true").contains(&combine));
    assert!(!descriptions("false").contains(&combine));
}
