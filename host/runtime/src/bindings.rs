//! The Rust side of `wit/job.wit`, generated.
//!
//! Only this module and `convert` know the generated names. Batches are borrowed on their way into
//! a guest, so that a call copies each column once: from the host's vector into guest memory.

#![expect(missing_docs, unreachable_pub, reason = "generated code")]

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
