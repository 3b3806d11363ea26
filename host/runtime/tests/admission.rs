//! What may not be uploaded, and what the uploader is told.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use support::{Bench, guest, guest_with_memory};
use tidemill_runtime::{Error, Interruption};
use tidemill_types::ErrorKind;

fn refusal(bytes: &[u8]) -> String {
    let mut texts: Vec<String> = support::MECHANISMS
        .iter()
        .map(|mechanism| {
            let error = Bench::new(*mechanism).runtime.compile(bytes).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
            error.to_string()
        })
        .collect();
    texts.dedup();
    texts.join("; ")
}

fn wat(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap()
}

#[test]
fn things_that_are_not_components_are_named() {
    assert!(refusal(b"hello").contains("not a WebAssembly component"));
    assert!(refusal(b"").contains("not a WebAssembly component"));
    assert!(refusal(b"PK\x03\x04....").contains("Java archive"));
    assert!(refusal(&[0x1f, 0x8b, 8, 0]).contains("compressed file"));
    assert!(refusal(&wat("(module)")).contains("core WebAssembly module"));
    assert!(refusal(&wat("(component)")).contains("does not export tidemill:job/planner"));
}

#[test]
fn damaged_components_are_refused_and_crash_nothing() {
    let whole = guest(&[], "");
    for len in (8..whole.len()).step_by(whole.len() / 60) {
        let text = refusal(&whole[..len]);
        assert!(
            text.contains("damaged") || text.contains("export"),
            "{text}"
        );
    }
    // Bit flips: most are refused, none may panic.
    let bench = Bench::new(Interruption::Page);
    for at in (8..whole.len()).step_by(whole.len() / 120) {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        match bench.runtime.compile(&flipped) {
            Ok(hash) => drop(bench.runtime.load(&hash)),
            Err(error) => assert!(matches!(error, Error::Rejected(_)), "{error}"),
        }
    }
}

#[test]
fn imports_that_jobs_are_not_given_are_named() {
    let component = wat(r#"(component (import "wasi:http/outgoing-handler@0.2.0" (instance)))"#);
    assert!(refusal(&component).contains("\"wasi:http/outgoing-handler@0.2.0\""));
    let component = wat(r#"(component (import "evil:other/state" (instance)))"#);
    assert!(refusal(&component).contains("\"evil:other/state\""));
}

#[test]
fn another_version_of_the_contract_is_named() {
    let component =
        wat(r#"(component (instance $i) (export "tidemill:job/planner@7.0.0" (instance $i)))"#);
    let text = refusal(&component);
    assert!(
        text.contains("planner@7.0.0") && text.contains("planner@0.1.0"),
        "{text}"
    );
}

#[test]
fn deep_nesting_is_refused() {
    let mut text = String::new();
    for _ in 0..50 {
        text += "(component ";
    }
    text += &")".repeat(50);
    assert!(refusal(&wat(&text)).contains("nested or divided too much"));
}

#[test]
fn features_that_interruption_does_not_cover_are_refused() {
    let tail = guest_error("(func $again (return_call $again))");
    assert!(tail.contains("tail call"), "{tail}");
    let threads = refusal(&guest_with_memory(
        &[],
        "",
        r#"(memory (export "memory") 4) (memory $s 1 1 shared)"#,
    ));
    assert!(
        threads.contains("damaged") && threads.contains("shared"),
        "{threads}"
    );
    let reserved = refusal(&guest_with_memory(
        &[],
        "",
        r#"(memory (export "memory") 4) (memory $r 1 47119)"#,
    ));
    assert!(reserved.contains("reserved"), "{reserved}");
}

fn guest_error(extra: &str) -> String {
    refusal(&guest(&[], extra))
}

#[test]
fn a_component_whose_export_has_another_type_is_refused() {
    let component = wat(r#"(component (instance $i)
            (export "tidemill:job/planner@0.1.0" (instance $i))
            (export "tidemill:job/task@0.1.0" (instance $i)))"#);
    let bench = Bench::new(Interruption::Page);
    let hash = bench.runtime.compile(&component).unwrap();
    let error = bench.runtime.load(&hash).unwrap_err();
    assert!(
        error.to_string().contains("does not fit this version"),
        "{error}"
    );
}
