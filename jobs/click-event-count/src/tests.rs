//! The job, run natively.

use tidemill::testing::{JobTest, RunningJob};

use super::*;

const SOURCE: &str = "ClickEvent Source";
const SINK: &str = "ClickEventStatistics Sink";

/// Clicks 15 ms apart on each of two pages.
fn clicks(numbers: std::ops::Range<i64>) -> impl Iterator<Item = String> {
    numbers.flat_map(|n| {
        ["/help", "/shop"].map(|page| format!(r#"{{"timestamp":{},"page":"{page}"}}"#, n * 15))
    })
}

fn start(args: &[&str]) -> RunningJob {
    JobTest::new(click_event_count)
        .args(args.iter().copied())
        .start()
        .unwrap()
}

fn statistics(window_start: i64, page: &str, count: u64) -> ClickEventStatistics {
    let page = page.to_owned();
    ClickEventStatistics {
        window_start,
        window_end: window_start + 15_000,
        page,
        count,
    }
}

fn results(job: &mut RunningJob) -> Vec<ClickEventStatistics> {
    let mut results: Vec<ClickEventStatistics> = job.json(SINK).unwrap();
    results.sort_by_key(|result| (result.window_start, result.page.clone()));
    results
}

#[test]
fn every_page_has_a_thousand_clicks_in_every_window() {
    for variant in [vec![], vec!["--chaining"]] {
        let mut job = start(&[vec!["--event-time"], variant].concat());
        job.send(SOURCE, clicks(0..1_500)).unwrap();
        assert_eq!(
            results(&mut job),
            [statistics(0, "/help", 1_000), statistics(0, "/shop", 1_000)]
        );
        job.send(SOURCE, clicks(1_500..2_000)).unwrap();
        job.end_input().unwrap();
        let second = [
            statistics(15_000, "/help", 1_000),
            statistics(15_000, "/shop", 1_000),
        ];
        assert_eq!(results(&mut job), second);
    }
}

#[test]
fn results_are_written_as_documented() {
    let mut job = start(&["--event-time"]);
    job.send(SOURCE, [r#"{"timestamp":1,"page":"/shop"}"#])
        .unwrap();
    job.end_input().unwrap();
    let expected = r#"{"windowStart":0,"windowEnd":15000,"page":"/shop","count":1}"#;
    assert_eq!(job.texts(SINK), [expected]);
}

#[test]
fn nothing_is_lost_or_repeated_by_a_restart() {
    for combine in ["true", "false"] {
        let job = JobTest::new(click_event_count).args(["--event-time"]);
        let mut job = job
            .config("tidemill.pipeline.combine", combine)
            .start()
            .unwrap();
        job.send(SOURCE, clicks(0..700)).unwrap();
        job.checkpoint().unwrap();
        job.send(SOURCE, clicks(700..900)).unwrap();
        job.restart_from_checkpoint().unwrap();
        job.send(SOURCE, clicks(700..1_000)).unwrap();
        job.end_input().unwrap();
        assert_eq!(
            results(&mut job),
            [statistics(0, "/help", 1_000), statistics(0, "/shop", 1_000)]
        );
    }
}

#[test]
fn a_click_after_its_window_is_dropped_and_counted() {
    let click = |timestamp: i64| format!(r#"{{"timestamp":{timestamp},"page":"/help"}}"#);
    for combine in ["true", "false"] {
        let job = JobTest::new(click_event_count).args(["--event-time"]);
        let mut job = job
            .config("tidemill.pipeline.combine", combine)
            .start()
            .unwrap();
        job.send(SOURCE, [click(0), click(15_199)]).unwrap();
        assert_eq!(results(&mut job), []);
        // Still in time: the watermark is 200 ms behind.
        job.send(SOURCE, [click(1)]).unwrap();
        job.send(SOURCE, [click(15_200)]).unwrap();
        assert_eq!(results(&mut job), [statistics(0, "/help", 2)]);
        job.send(SOURCE, [click(2), click(3)]).unwrap();
        job.end_input().unwrap();
        assert_eq!(results(&mut job), [statistics(15_000, "/help", 2)]);
        assert_eq!(job.metric("numLateRecordsDropped"), 2);
    }
}

#[test]
fn windows_of_the_clock_fire_by_the_clock() {
    let mut job = start(&[]);
    job.send(SOURCE, clicks(0..3)).unwrap();
    job.advance_clock(Duration::from_millis(14_998)).unwrap();
    assert_eq!(results(&mut job), []);
    job.advance_clock(Duration::from_millis(1)).unwrap();
    assert_eq!(
        results(&mut job),
        [statistics(0, "/help", 3), statistics(0, "/shop", 3)]
    );
}

#[test]
fn the_plan_has_the_playgrounds_vertices() {
    let names = |args: &[&str]| -> Vec<String> {
        let graph = JobTest::new(click_event_count)
            .args(args.iter().copied())
            .plan()
            .unwrap();
        graph
            .vertices
            .into_iter()
            .map(|vertex| vertex.name)
            .collect()
    };
    assert_eq!(
        names(&["--backpressure"]),
        [
            "ClickEvent Source",
            "Backpressure",
            "ClickEvent Counter",
            "ClickEventStatistics Sink"
        ]
    );
    let chained = "ClickEvent Counter -> ClickEventStatistics Sink";
    assert_eq!(names(&["--chaining"]), ["ClickEvent Source", chained]);
}

#[test]
fn a_record_that_is_not_json_names_the_position() {
    let mut job = start(&["--event-time"]);
    let error = job
        .send(SOURCE, ["{\"timestamp\":"])
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "Decode: EOF while parsing a value at line 1 column 13"
    );
}
