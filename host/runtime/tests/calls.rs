//! Ordinary calls, and guests that break the contract.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use support::{Recorder, batch, guest, limits, open_request, under_each_mechanism};
use tidemill_runtime::{Guest, GuestError};
use tidemill_types::ErrorKind;

/// Emits the batch it was given.
const ECHO: &str =
    "(memory.copy (i32.const 2052) (i32.add (local.get $p) (i32.const 8)) (i32.const 64))
    (i32.store (i32.const 2048) (i32.const 1)) (call $emit (i32.const 2048)) ok";

async fn opened(bench: &support::Bench, component: &[u8], host: &Recorder) -> Guest {
    let mut guest = bench.start(component, limits(2_000), host).await.unwrap();
    guest.open(&open_request()).await.unwrap();
    guest
}

#[test]
fn a_batch_goes_in_and_comes_out() {
    under_each_mechanism(async |bench| {
        let host = Recorder::default();
        let mut guest = opened(&bench, &guest(&[("process", ECHO)], ""), &host).await;
        let input = batch(1_000);
        let progress = guest.process(0, 0, &input).await.unwrap();
        assert!(progress.rejected.is_empty());
        assert_eq!(host.seen.lock().emitted, [(1, input)]);
        assert!(guest.memory_bytes() >= 4 << 16);
        assert!(!guest.last_call_time().is_zero());
        assert!(guest.snapshot(1).await.unwrap().is_empty());
        guest.checkpoint_complete(1).await.unwrap();
    });
}

#[test]
fn headers_and_absent_columns_cross_unchanged() {
    under_each_mechanism(async |bench| {
        let host = Recorder::default();
        let mut guest = opened(&bench, &guest(&[("process", ECHO)], ""), &host).await;
        let mut builder = tidemill_types::BatchBuilder::new();
        builder.push(1, None, None);
        builder.header("trace".into(), Some(b"abc".to_vec()));
        builder.header("empty".into(), None);
        builder.push(2, None, Some(b""));
        let input = builder.take();
        guest.process(0, 0, &input).await.unwrap();
        assert_eq!(host.seen.lock().emitted[0].1, input);
    });
}

#[test]
fn a_panic_reaches_the_host_with_message_operator_and_backtrace() {
    under_each_mechanism(async |bench| {
        let body = "(call $panicked (i32.const 1) (i32.const 3) (i32.const 512) (i32.const 11))
            (call $inner) ok";
        let extra = r#"(data (i32.const 512) "no such key") (func $inner unreachable)"#;
        let component = guest(&[("process", body)], extra);
        let mut guest = opened(&bench, &component, &Recorder::default()).await;
        let error = guest.process(0, 0, &batch(1)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::GuestFault);
        assert_eq!(error.operator(), Some(3));
        assert!(
            error
                .to_string()
                .starts_with("panicked: no such key\n    at inner"),
            "{error}"
        );
        assert_eq!(
            guest.process(0, 0, &batch(1)).await.unwrap_err(),
            GuestError::Gone
        );
    });
}

#[test]
fn a_returned_failure_leaves_the_instance_usable() {
    under_each_mechanism(async |bench| {
        // err(failure { operator: some(2), message: "full" }), at 3072.
        let body = "(i32.store8 (i32.const 3072) (i32.const 1))
            (i32.store8 (i32.const 3080) (i32.const 1)) (i32.store (i32.const 3084) (i32.const 2))
            (i32.store (i32.const 3088) (i32.const 512)) (i32.store (i32.const 3092) (i32.const 4))
            (i32.const 3072)";
        let component = guest(&[("process", body)], r#"(data (i32.const 512) "full")"#);
        let mut guest = opened(&bench, &component, &Recorder::default()).await;
        let error = guest.process(0, 0, &batch(1)).await.unwrap_err();
        assert_eq!(
            error,
            GuestError::Failed {
                operator: Some(2),
                message: "full".into()
            }
        );
        guest.watermark(5).await.unwrap();
    });
}

/// (what, body of `process`, further definitions, part of the message)
const VIOLATIONS: [(&str, &str, &str, &str); 7] = [
    (
        "a port out of range",
        "(i32.store (i32.const 2048) (i32.const 77)) (call $emit (i32.const 2048)) ok",
        "",
        "port 77",
    ),
    (
        "ends that decrease",
        // One value column: data 4 bytes at 512, ends [4, 2] at 768, two timestamps at 600.
        "(i32.store (i32.const 2052) (i32.const 600)) (i32.store (i32.const 2056) (i32.const 2))
         (i32.store (i32.const 2084) (i32.const 512)) (i32.store (i32.const 2088) (i32.const 4))
         (i32.store (i32.const 2092) (i32.const 768)) (i32.store (i32.const 2096) (i32.const 2))
         (call $emit (i32.const 2048)) ok",
        r#"(data (i32.const 768) "\04\00\00\00\02\00\00\00")"#,
        "the end of entry 1",
    ),
    (
        "a list past the end of memory",
        "(i32.store (i32.const 2052) (i32.const 0)) (i32.store (i32.const 2056) (i32.const -1))
         (call $emit (i32.const 2048)) ok",
        "",
        "",
    ),
    (
        "a batch of more bytes than allowed",
        // 4,200 headers that all name the same 64 KiB.
        "(local $i i32) (local $h i32)
         (drop (memory.grow (i32.const 40)))
         (loop $l
           (local.set $h (i32.add (i32.const 262144) (i32.mul (local.get $i) (i32.const 24))))
           (i32.store offset=4 (local.get $h) (i32.const 0))
           (i32.store offset=8 (local.get $h) (i32.const 65536))
           (local.set $i (i32.add (local.get $i) (i32.const 1)))
           (br_if $l (i32.lt_u (local.get $i) (i32.const 4200))))
         (i32.store (i32.const 2108) (i32.const 262144)) (i32.store (i32.const 2112) (i32.const 4200))
         (call $emit (i32.const 2048)) ok",
        "",
        "fuel",
    ),
    (
        "an unknown state",
        "(call $get_many (i32.const 9) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
          (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
          (i32.const 0) (i32.const 0) (i32.const 2048)) ok",
        "",
        "state 9",
    ),
    (
        "a state key of two megabytes",
        // put-many: state 0; keys: data 2 MiB at 0, ends [2 MiB] at 768.
        "(drop (memory.grow (i32.const 40)))
         (i32.store (i32.const 768) (i32.const 2097152))
         (i32.store (i32.const 2052) (i32.const 0)) (i32.store (i32.const 2056) (i32.const 2097152))
         (i32.store (i32.const 2060) (i32.const 768)) (i32.store (i32.const 2064) (i32.const 1))
         (call $put_many (i32.const 2048)) ok",
        "",
        "longer than",
    ),
    (
        "a metric with a nameless name",
        "(call $add_metric (i32.const 0) (i32.const 0) (i32.const 0) (i64.const 1)) ok",
        "",
        "metric",
    ),
];

#[test]
fn contract_violations_end_the_call_with_a_cause() {
    under_each_mechanism(async |bench| {
        for (what, body, extra, message) in VIOLATIONS {
            let component = guest(&[("process", body)], extra);
            let mut guest = opened(&bench, &component, &Recorder::default()).await;
            let error = guest.process(0, 0, &batch(1)).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::GuestFault, "{what}: {error:?}");
            assert!(
                matches!(error, GuestError::Violation { .. }),
                "{what}: {error:?}"
            );
            assert!(error.to_string().contains(message), "{what}: {error}");
        }
    });
}

#[test]
fn data_and_state_are_out_of_reach_before_open() {
    under_each_mechanism(async |bench| {
        let component = guest(&[("process", ECHO)], "");
        let mut guest = bench
            .start(&component, limits(2_000), &Recorder::default())
            .await
            .unwrap();
        let error = guest.process(0, 0, &batch(1)).await.unwrap_err();
        assert!(error.to_string().contains("before open"), "{error}");
    });
}

#[test]
fn rejected_records_must_exist() {
    under_each_mechanism(async |bench| {
        // ok(progress { rejected: [{ record: 7, operator: 0, message: "" }] })
        let body = "(i32.store (i32.const 3072) (i32.const 7))
            (i32.store (i32.const 1040) (i32.const 3072)) (i32.store (i32.const 1044) (i32.const 1)) ok";
        let component = guest(&[("process", body)], "");
        let mut guest = opened(&bench, &component, &Recorder::default()).await;
        guest.process(0, 0, &batch(8)).await.unwrap();
        let error = guest.process(0, 0, &batch(7)).await.unwrap_err();
        assert!(error.to_string().contains("record 7 of 7"), "{error}");
    });
}

#[test]
fn a_planned_graph_is_validated() {
    under_each_mechanism(async |bench| {
        let mut guest = opened(&bench, &guest(&[], ""), &Recorder::default()).await;
        let error = guest.plan(&Default::default()).await.unwrap_err();
        assert!(error.to_string().contains("invalid job"), "{error}");
    });
}

#[test]
fn log_floods_are_bounded_and_counted() {
    under_each_mechanism(async |bench| {
        let body = "(local $i i32) (loop $l
            (call $log (i32.const 2) (i32.const 0) (i32.const 0) (i32.const 512) (i32.const 100))
            (local.set $i (i32.add (local.get $i) (i32.const 1)))
            (br_if $l (i32.lt_u (local.get $i) (i32.const 100000)))) ok";
        let extra = r#"(data (i32.const 512) "loud\1b[31m")"#;
        let host = Recorder::default();
        let mut guest = opened(&bench, &guest(&[("process", body)], extra), &host).await;
        guest.process(0, 0, &batch(1)).await.unwrap();
        let seen = host.seen.lock();
        let bytes: usize = seen.logs.iter().map(|(_, line)| line.len()).sum();
        assert!(bytes > 0 && bytes < 1 << 20, "{bytes} bytes of log");
        assert!(seen.logs.iter().all(|(_, line)| !line.contains('\u{1b}')));
    });
}
