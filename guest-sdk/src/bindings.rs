//! The contract of `wit/job.wit` as Rust types, generated.
//!
//! The records (`Batch`, `JobGraph`, …) are used on every target; the imported functions only work
//! in a component, which is why everything else calls them through [`crate::host`].
#![allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    unused_qualifications,
    unsafe_code,
    clippy::all,
    clippy::too_many_arguments,
    clippy::allow_attributes_without_reason,
    clippy::undocumented_unsafe_blocks,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::use_self,
    clippy::semicolon_if_nothing_returned,
    clippy::uninlined_format_args,
    clippy::too_many_lines,
    reason = "generated code"
)]

wit_bindgen::generate!({
    path: "../wit",
    world: "job",
    pub_export_macro: true,
    export_macro_name: "export_component",
    default_bindings_module: "tidemill::bindings",
    additional_derives: [PartialEq, Clone],
});
