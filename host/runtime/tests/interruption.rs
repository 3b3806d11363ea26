//! Guests that do not come back by themselves, under both mechanisms.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use std::{sync::Arc, time::Duration};

use support::{
    Bench, Recorder, batch, guest, guest_with_memory, limits, open_request, under_each_mechanism,
};
use tidemill_runtime::{Guest, GuestError, Limits};

/// Ways never to end.
const LOOPS: [(&str, &str, &str); 9] = [
    ("a loop that touches no memory", "(loop $l (br $l)) ok", ""),
    (
        "a loop that writes memory",
        "(local $i i32) (loop $l (i32.store (i32.const 2048) (local.get $i))
           (local.set $i (i32.add (local.get $i) (i32.const 1))) (br $l)) ok",
        "",
    ),
    (
        "a loop within a loop, both without memory",
        "(loop $outer (loop $inner (br_if $inner (global.get $yes))) (br $outer)) ok",
        "(global $yes (mut i32) (i32.const 1))",
    ),
    (
        "a loop after a loop, both without memory",
        "(local $i i32)
         (loop $first (local.set $i (i32.add (local.get $i) (i32.const 1)))
           (br_if $first (i32.lt_u (local.get $i) (i32.const 10))))
         (loop $second (br $second)) ok",
        "",
    ),
    (
        "calls in a loop",
        "(loop $l (call $nothing) (br $l)) ok",
        "(func $nothing)",
    ),
    (
        "a loop in a called function",
        "(call $spin) ok",
        "(func $spin (loop $l (br $l)))",
    ),
    (
        "a loop by br_table with a parameter",
        "(i32.const 5) (loop $l (param i32) (br_table $l $l (i32.const 5) (i32.const 0))) ok",
        "",
    ),
    (
        "calls that double at each level, without a loop",
        "(call $double (i32.const 60)) ok",
        "(func $double (param $n i32)
           (if (local.get $n)
             (then (call $double (i32.sub (local.get $n) (i32.const 1)))
                   (call $double (i32.sub (local.get $n) (i32.const 1))))))",
    ),
    (
        "the same by indirect calls",
        "(call $double (i32.const 60)) ok",
        "(table 1 1 funcref) (elem (i32.const 0) $double)
         (func $double (param $n i32)
           (if (local.get $n)
             (then (call_indirect (param i32) (i32.sub (local.get $n) (i32.const 1)) (i32.const 0))
                   (call_indirect (param i32) (i32.sub (local.get $n) (i32.const 1)) (i32.const 0)))))",
    ),
];

async fn opened(bench: &Bench, component: &[u8], limits: Limits) -> Guest {
    let mut guest = bench
        .start(component, limits, &Recorder::default())
        .await
        .unwrap();
    guest.open(&open_request()).await.unwrap();
    guest
}

#[test]
fn every_kind_of_loop_is_interrupted() {
    under_each_mechanism(async |bench| {
        for (what, body, extra) in LOOPS {
            let mut guest = opened(&bench, &guest(&[("process", body)], extra), limits(100)).await;
            let error = guest.process(0, 0, &batch(1)).await.unwrap_err();
            let GuestError::Interrupted {
                after,
                limit,
                backtrace,
            } = &error
            else {
                panic!("{what}: {error:?}");
            };
            assert!(
                *after >= *limit && *after < Duration::from_secs(5),
                "{what}: {after:?}"
            );
            assert!(!backtrace.0.is_empty(), "{what}: {error}");
        }
    });
}

#[test]
fn a_module_without_a_memory_of_its_own_kind_is_interrupted() {
    under_each_mechanism(async |bench| {
        let memory = r#"(memory $m (export "memory") 4 1000) (memory $second 1 1)"#;
        let component = guest_with_memory(&[("process", "(loop $l (br $l)) ok")], "", memory);
        let mut guest = opened(&bench, &component, limits(100)).await;
        let error = guest.process(0, 0, &batch(1)).await.unwrap_err();
        assert!(matches!(error, GuestError::Interrupted { .. }), "{error:?}");
    });
}

#[test]
fn a_loop_in_the_start_function_or_in_plan_is_interrupted() {
    under_each_mechanism(async |bench| {
        let component = guest(&[], "(start $spin) (func $spin (loop $l (br $l)))");
        let error = bench
            .start(&component, limits(100), &Recorder::default())
            .await
            .unwrap_err();
        assert!(matches!(error, GuestError::Interrupted { .. }), "{error:?}");

        let component = guest(&[("plan", "(loop $l (br $l)) ok")], "");
        let mut guest = bench
            .start(&component, limits(100), &Recorder::default())
            .await
            .unwrap();
        let error = guest.plan(&Default::default()).await.unwrap_err();
        assert!(
            error.to_string().starts_with("was interrupted after 0.1 s"),
            "{error}"
        );
    });
}

/// Epochs are looked at by loops and functions only.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn long_operations_in_a_row_are_interrupted_by_the_page() {
    // As many as take seconds, without a loop or a call of the guest's own functions.
    let fill = "(memory.fill (i32.const 65536) (i32.const 1) (i32.const 33554432))".repeat(2_000);
    let memory = r#"(memory $m (export "memory") 640)"#;
    let bench = Bench::new(tidemill_runtime::Interruption::Page);
    let component = guest_with_memory(&[("process", &format!("{fill} ok"))], "", memory);
    let mut guest = opened(&bench, &component, limits(100)).await;
    let error = guest.process(0, 0, &batch(1)).await.unwrap_err();
    assert!(matches!(error, GuestError::Interrupted { .. }), "{error:?}");
}

#[test]
fn endless_recursion_ends_at_the_stack_limit() {
    under_each_mechanism(async |bench| {
        let component = guest(
            &[("process", "(call $deeper) ok")],
            "(func $deeper (call $deeper) (call $deeper))",
        );
        let mut guest = opened(&bench, &component, limits(5_000)).await;
        let error = guest.process(0, 0, &batch(1)).await.unwrap_err();
        assert!(matches!(error, GuestError::Stack { .. }), "{error:?}");
    });
}

#[test]
fn waiting_for_room_does_not_count_and_can_be_cancelled() {
    under_each_mechanism(async |bench| {
        let component = guest(&[("process", "(call $emit (i32.const 2048)) ok")], "");
        let host = Recorder {
            emit_blocks: true,
            ..Recorder::default()
        };
        let mut guest = bench.start(&component, limits(50), &host).await.unwrap();
        guest.open(&open_request()).await.unwrap();
        let handle = guest.interrupt_handle();
        let input = batch(1);
        let waited = {
            let mut call = std::pin::pin!(guest.process(0, 0, &input));
            // Far longer than the limit of a call: still waiting.
            let early = tokio::time::timeout(Duration::from_millis(300), call.as_mut()).await;
            assert!(early.is_err(), "{early:?}");
            handle.interrupt("the job was cancelled");
            call.await
        };
        assert_eq!(
            waited,
            Err(GuestError::Cancelled("the job was cancelled".into()))
        );
    });
}

#[test]
fn a_running_call_is_cancelled_from_another_thread_and_no_other_begins() {
    under_each_mechanism(async |bench| {
        let component = guest(&[("process", "(loop $l (br $l)) ok")], "");
        let mut guest = opened(&bench, &component, limits(60_000)).await;
        let handle = guest.interrupt_handle();
        let canceller = std::thread::spawn(move || {
            std::thread::park_timeout(Duration::from_millis(100));
            handle.interrupt("enough");
        });
        let error = guest.process(0, 0, &batch(1)).await.unwrap_err();
        assert_eq!(error, GuestError::Cancelled("enough".into()));
        canceller.join().unwrap();

        let mut idle = opened(&bench, &component, limits(60_000)).await;
        idle.interrupt_handle().interrupt("before it began");
        let error = idle.process(0, 0, &batch(1)).await.unwrap_err();
        assert_eq!(error, GuestError::Cancelled("before it began".into()));
    });
}

/// A long call, and short ones after it.
async fn calls(guest: &mut Guest) -> Result<(), GuestError> {
    guest.open(&open_request()).await?;
    guest.process(0, 0, &batch(1)).await?;
    guest.watermark(1).await?;
    guest.snapshot(1).await.map(drop)
}

fn assert_timely(error: &GuestError, limits: Limits) {
    let GuestError::Interrupted { after, .. } = error else {
        panic!("{error:?}");
    };
    assert!(
        *after >= limits.call,
        "interrupted after {after:?} of {:?}",
        limits.call
    );
}

#[test]
fn returning_while_being_interrupted_leaves_nothing_behind() {
    under_each_mechanism(async |bench| {
        // Calls of about the length of the limit: some return, some are interrupted.
        let body = "(local $i i32) (loop $l (local.set $i (i32.add (local.get $i) (i32.const 1)))
            (br_if $l (i32.lt_u (local.get $i) (global.get $n)))) ok";
        let component = guest(
            &[("process", body)],
            "(global $n (mut i32) (i32.const 30000000))",
        );
        let hash = bench.runtime.compile(&component).unwrap();
        let module = bench.runtime.load(&hash).unwrap().unwrap();
        let mut ended = [0, 0];
        for round in 0..200 {
            let limits = limits(1 + round % 25);
            let host = Box::new(Recorder::default());
            let guest = module.instantiate(limits, support::env(), host).await;
            // On a busy machine even the short calls may take longer than the shortest limits;
            // what must not happen is an interruption before the time is up.
            match guest {
                Ok(mut guest) => match calls(&mut guest).await {
                    Ok(()) => ended[0] += 1,
                    Err(error) => {
                        assert_timely(&error, limits);
                        ended[1] += 1;
                    }
                },
                Err(error) => assert_timely(&error, limits),
            }
        }
        assert!(
            ended[1] > 0,
            "{} returned, {} interrupted",
            ended[0],
            ended[1]
        );
    });
}

#[test]
fn a_dropped_call_ends_the_instance_and_nothing_else() {
    under_each_mechanism(async |bench| {
        let component = guest(&[("process", "(call $emit (i32.const 2048)) ok")], "");
        let host = Recorder {
            emit_blocks: true,
            ..Recorder::default()
        };
        let mut guest = bench.start(&component, limits(1_000), &host).await.unwrap();
        guest.open(&open_request()).await.unwrap();
        let dropped =
            tokio::time::timeout(Duration::from_millis(20), guest.process(0, 0, &batch(1))).await;
        assert!(dropped.is_err());
        assert_eq!(guest.watermark(1).await.unwrap_err(), GuestError::Gone);
        drop(guest);
        let mut next = opened(&bench, &component, limits(1_000)).await;
        next.watermark(1).await.unwrap();
    });
}

#[test]
fn neighbours_are_undisturbed_by_an_interruption() {
    under_each_mechanism(async |bench| {
        let spins = guest(&[("process", "(loop $l (br $l)) ok")], "");
        let bench = Arc::new(bench);
        let mut bad = opened(&bench, &spins, limits(50)).await;
        let fine = guest(
            &[(
                "process",
                "(local $i i32) (loop $l (local.set $i (i32.add (local.get $i) (i32.const 1)))
                (br_if $l (i32.lt_u (local.get $i) (i32.const 100000)))) ok",
            )],
            "",
        );
        let mut good = opened(&bench, &fine, limits(60_000)).await;
        bad.process(0, 0, &batch(1)).await.unwrap_err();
        for _ in 0..100 {
            good.process(0, 0, &batch(10)).await.unwrap();
        }
        drop(bad);
        good.process(0, 0, &batch(10)).await.unwrap();
    });
}
