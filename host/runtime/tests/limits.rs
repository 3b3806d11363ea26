//! Each limit on what a guest may have, reached.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use support::{
    Recorder, batch, guest, guest_with_memory, limits, open_request, under_each_mechanism,
};
use tidemill_runtime::{GuestError, Limits};

fn small() -> Limits {
    Limits {
        memory_bytes: 16 << 20,
        ..limits(5_000)
    }
}

#[test]
fn a_memory_bomb_is_stopped_at_the_limit() {
    under_each_mechanism(async |bench| {
        let body = "(loop $l (drop (memory.grow (i32.const 16))) (br $l)) ok";
        let component = guest(&[("process", body)], "");
        let mut guest = bench
            .start(&component, small(), &Recorder::default())
            .await
            .unwrap();
        guest.open(&open_request()).await.unwrap();
        let error = guest.process(0, 0, &batch(1)).await.unwrap_err();
        assert!(
            error.to_string().starts_with("exceeded 16 MiB of memory"),
            "{error}"
        );
        assert!(guest.memory_bytes() <= 16 << 20);
    });
}

#[test]
fn a_memory_that_is_too_large_from_the_start_is_refused() {
    under_each_mechanism(async |bench| {
        let component = guest_with_memory(&[], "", r#"(memory (export "memory") 1000)"#);
        let error = bench
            .start(&component, small(), &Recorder::default())
            .await
            .unwrap_err();
        assert!(
            matches!(error, GuestError::Memory { limit, .. } if limit == 16 << 20),
            "{error:?}"
        );
    });
}

#[test]
fn a_table_bomb_counts_as_memory() {
    under_each_mechanism(async |bench| {
        let extra = "(table $t 1 funcref)";
        let body = "(loop $l (drop (table.grow $t (ref.null func) (i32.const 100000))) (br $l)) ok";
        let component = guest(&[("process", body)], extra);
        let limits = Limits {
            memory_bytes: 4 << 20,
            ..limits(5_000)
        };
        let mut guest = bench
            .start(&component, limits, &Recorder::default())
            .await
            .unwrap();
        guest.open(&open_request()).await.unwrap();
        let error = guest.process(0, 0, &batch(1)).await.unwrap_err();
        assert!(matches!(error, GuestError::Memory { .. }), "{error:?}");
    });
}

#[test]
fn many_memories_share_one_limit() {
    under_each_mechanism(async |bench| {
        let extra = "(memory $a 100) (memory $b 100) (memory $c 100)";
        let component = guest(&[], extra);
        let error = bench
            .start(&component, small(), &Recorder::default())
            .await
            .unwrap_err();
        assert!(matches!(error, GuestError::Memory { .. }), "{error:?}");
    });
}

#[test]
fn an_emit_flood_of_empty_batches_ends_with_the_time_limit() {
    under_each_mechanism(async |bench| {
        let body = "(loop $l (call $emit (i32.const 2048)) (br $l)) ok";
        let component = guest(&[("process", body)], "");
        let mut guest = bench
            .start(&component, limits(100), &Recorder::default())
            .await
            .unwrap();
        guest.open(&open_request()).await.unwrap();
        let error = guest.process(0, 0, &batch(1)).await.unwrap_err();
        assert!(matches!(error, GuestError::Interrupted { .. }), "{error:?}");
    });
}

#[test]
fn a_huge_error_text_is_cut() {
    under_each_mechanism(async |bench| {
        let body = "(call $panicked (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 262144)) unreachable";
        let component = guest(&[("process", body)], "");
        let mut guest = bench
            .start(&component, small(), &Recorder::default())
            .await
            .unwrap();
        guest.open(&open_request()).await.unwrap();
        let error = guest.process(0, 0, &batch(1)).await.unwrap_err();
        let text = error.to_string();
        assert!(text.len() < 128 << 10, "{} bytes", text.len());
        assert!(!text.contains('\0'));
    });
}
