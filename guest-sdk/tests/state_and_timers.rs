//! Keyed state and timers, as a job's author sees them.

use std::time::Duration;

use tidemill::prelude::*;
use tidemill::testing::JobTest;

/// Counts the values of each key.
struct Counting {
    count: ValueState<u64>,
    last: ValueState<String>,
}

impl KeyedProcess<String, (String, String)> for Counting {
    type Out = String;

    fn process(
        &mut self,
        (key, value): (String, String),
        cx: &mut KeyedContext<'_, String, String>,
    ) -> Result<()> {
        if value == "forget" {
            self.count.clear();
            return Ok(());
        }
        let before = self.last.get().unwrap_or_default();
        let count = self.count.update(|count| {
            *count += 1;
            *count
        });
        cx.emit(format!("{key} {count} {before}"));
        self.last.set(value);
        Ok(())
    }
}

#[expect(clippy::unnecessary_wraps, reason = "a job returns a result")]
fn counting(env: &Env, _args: &Args) -> Result<()> {
    env.source("in", kafka::source("in"))
        .decode(Json::<(String, String)>::new())
        .key_by_ref(|(key, _)| key)
        .process(|states| Counting {
            count: states.value("count"),
            last: states.value("last"),
        })
        .name("counting")
        .encode(Text)
        .sink("out", blackhole::sink());
    Ok(())
}

fn pair(key: usize, value: &str) -> String {
    format!(r#"["key {key}","{value}"]"#)
}

#[test]
fn keys_that_do_not_fit_the_cache_keep_their_state() {
    let mut job = JobTest::new(counting).cache_bytes(10_000).start().unwrap();
    for round in 1..=3 {
        for keys in (0..1_000).collect::<Vec<_>>().chunks(50) {
            job.send(
                "in",
                keys.iter().map(|key| pair(*key, &format!("v{round}"))),
            )
            .unwrap();
            let before = if round == 1 {
                String::new()
            } else {
                format!("v{}", round - 1)
            };
            let expected: Vec<_> = keys
                .iter()
                .map(|key| format!("key {key} {round} {before}"))
                .collect();
            assert_eq!(job.texts("out"), expected);
        }
    }
}

#[test]
fn a_cleared_value_stays_cleared_after_eviction_and_restart() {
    let mut job = JobTest::new(counting).cache_bytes(10_000).start().unwrap();
    job.send("in", [pair(1, "a"), pair(2, "a")]).unwrap();
    job.checkpoint().unwrap();
    job.send("in", [pair(1, "forget")]).unwrap();
    job.send("in", (1_000..2_000).map(|key| pair(key, "x")))
        .unwrap();
    job.send("in", (2_000..3_000).map(|key| pair(key, "x")))
        .unwrap();
    job.checkpoint().unwrap();
    job.restart_from_checkpoint().unwrap();
    job.texts("out");
    job.send("in", [pair(1, "b"), pair(2, "b")]).unwrap();
    assert_eq!(job.texts("out"), ["key 1 1 a", "key 2 2 a"]);
}

#[test]
fn a_checkpoint_writes_only_what_changed() {
    let mut job = JobTest::new(counting).start().unwrap();
    job.send("in", (0..100).map(|key| pair(key, "x"))).unwrap();
    job.checkpoint().unwrap();
    let (reads, first) = job.host("counting -> out").unwrap().state_traffic();
    assert_eq!((reads, first), (0, 200));
    job.send("in", [pair(7, "y")]).unwrap();
    job.checkpoint().unwrap();
    let (reads, second) = job.host("counting -> out").unwrap().state_traffic();
    assert_eq!((reads, second), (0, 202));
}

/// Does with timers what its input says, and notes what happens.
struct Timing;

impl KeyedProcess<String, (i64, String)> for Timing {
    type Out = String;

    fn process(
        &mut self,
        (timestamp, what): (i64, String),
        cx: &mut KeyedContext<'_, String, String>,
    ) -> Result<()> {
        match what.as_str() {
            "clock" => cx.set_processing_timer(timestamp),
            "none" => {}
            _ => cx.set_event_timer(timestamp),
        }
        Ok(())
    }

    fn on_timer(&mut self, timer: Timer, cx: &mut KeyedContext<'_, String, String>) -> Result<()> {
        let at = timer.timestamp;
        cx.emit(format!("{} {at}", cx.key()?));
        match cx.key()?.as_str() {
            // Sets one in between, one in the past, and one that exists.
            "insert" if at == 10 => [15, 5, 30]
                .into_iter()
                .for_each(|at| cx.set_event_timer(at)),
            "delete" if at == 10 => cx.delete_event_timer(20),
            "again" if at == 10 => {
                cx.delete_event_timer(20);
                cx.set_event_timer(20);
            }
            "chain" if at < 14 => cx.set_event_timer(at + 1),
            _ => {}
        }
        Ok(())
    }
}

#[expect(clippy::unnecessary_wraps, reason = "a job returns a result")]
fn timing(env: &Env, _args: &Args) -> Result<()> {
    env.source("in", kafka::source("in"))
        .decode(Json::<(i64, String)>::new())
        .assign_timestamps(WatermarkStrategy::monotonous(), |(_, what)| {
            if what == "none" { 1_001 } else { 0 }
        })
        .key_by(|(_, what)| what.clone())
        .process(|_| Timing)
        .encode(Text)
        .sink("out", blackhole::sink());
    Ok(())
}

/// What fires when timers were set for these times and event time comes to 1,000.
#[expect(clippy::unwrap_used, reason = "a part of tests")]
fn fired(what: &str, times: &[i64]) -> Vec<String> {
    let mut job = JobTest::new(timing).start().unwrap();
    job.send("in", times.iter().map(|at| format!(r#"[{at},"{what}"]"#)))
        .unwrap();
    assert!(job.texts("out").is_empty());
    job.send("in", [r#"[0,"none"]"#]).unwrap();
    let texts = job.texts("out").into_iter();
    texts
        .map(|text| text.replace(&format!("{what} "), ""))
        .collect()
}

#[test]
fn timers_fire_in_time_order_and_once_each() {
    assert_eq!(
        fired("plain", &[30, 10, 20, 10, 40, 50]),
        ["10", "20", "30", "40", "50"]
    );
}

#[test]
fn timers_set_by_timers_take_their_place_in_time() {
    // The one at 5 is in the past by then and runs next, as in Flink.
    assert_eq!(
        fired("insert", &[10, 20, 30]),
        ["10", "5", "15", "20", "30"]
    );
    assert_eq!(fired("chain", &[10]), ["10", "11", "12", "13", "14"]);
    assert_eq!(
        fired("chain", &[10, 20]),
        ["10", "11", "12", "13", "14", "20"]
    );
}

#[test]
fn timers_deleted_by_timers_do_not_fire() {
    assert_eq!(fired("delete", &[10, 20, 30]), ["10", "30"]);
    assert_eq!(fired("delete", &[10, 15, 20]), ["10", "15"]);
    assert_eq!(fired("again", &[10, 20, 30]), ["10", "20", "30"]);
    assert_eq!(fired("again", &[10, 15, 20]), ["10", "15", "20"]);
}

#[test]
fn timers_of_the_clock_fire_by_the_clock() {
    let mut job = JobTest::new(timing).start().unwrap();
    job.send("in", [r#"[500,"clock"]"#]).unwrap();
    job.advance_clock(Duration::from_millis(499)).unwrap();
    assert!(job.texts("out").is_empty());
    job.advance_clock(Duration::from_millis(1)).unwrap();
    assert_eq!(job.texts("out"), ["clock 500"]);
}

#[test]
fn timers_survive_a_restart() {
    let mut job = JobTest::new(timing).start().unwrap();
    job.send("in", [r#"[10,"plain"]"#]).unwrap();
    job.checkpoint().unwrap();
    job.restart_from_checkpoint().unwrap();
    job.end_input().unwrap();
    assert_eq!(job.texts("out"), ["plain 10"]);
}
