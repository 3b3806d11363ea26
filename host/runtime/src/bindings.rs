//! The Rust side of `wit/job.wit`, generated.
//!
//! Only `convert`, `imports` and `guest` know the generated names. Batches are borrowed on their
//! way into a guest, so that a call copies each column once: from the host's vector into guest
//! memory.

#![allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    unused_qualifications,
    unsafe_code,
    clippy::all,
    reason = "generated code; its only unsafe blocks name the types it has checked before"
)]

wasmtime::component::bindgen!({
    path: "../../wit",
    world: "job",
    ownership: Borrowing { duplicate_if_necessary: true },
    imports: {
        "tidemill:job/output.emit": async | trappable,
        default: trappable,
    },
    exports: { default: async },
});
