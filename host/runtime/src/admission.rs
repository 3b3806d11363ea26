//! What a module must be before it is compiled.
//!
//! Everything here is read from bytes of a stranger: sizes are bounded before anything recurses,
//! validation comes before rewriting, and each refusal tells the author what to change.

use wasmparser::{
    ComponentExternalKind, Encoding, Operator, Parser, Payload, TypeRef, Validator, WasmFeatures,
};

use crate::{error::Error, interrupt::Interruption};

/// The largest module.
pub(crate) const MODULE_BYTES_MAX: u64 = 256 << 20;
/// How deep components may lie in components.
const DEPTH_MAX: usize = 10;
/// How many core modules and components a component may hold.
const PARTS_MAX: usize = 200;
/// How many sections of one kind a component may have.
const SECTIONS_MAX: usize = 20_000;
/// How many loops one function may have: each needs a check of its own (see `rewrite`).
const FUNCTION_LOOPS_MAX: usize = 50_000;

/// Our interfaces that a job exports.
const EXPORTS: [&str; 2] = ["tidemill:job/planner@0.1.0", "tidemill:job/task@0.1.0"];
/// What a job may import, by prefix of the interface's name. Files and sockets are there for
/// linking only: there are none.
const IMPORTS: [&str; 7] = [
    "tidemill:job/",
    "wasi:cli/",
    "wasi:clocks/",
    "wasi:filesystem/",
    "wasi:io/",
    "wasi:random/",
    "wasi:sockets/",
];

/// How one builds a job; ends the messages to people who uploaded something else.
const HOW_TO_BUILD: &str =
    "build the job with `cargo build --target wasm32-wasip2` and the tidemill crate";

fn rejected(message: impl Into<String>) -> Error {
    Error::Rejected(message.into())
}

fn malformed(error: &wasmparser::BinaryReaderError) -> Error {
    rejected(format!("the module is damaged: {error}"))
}

/// Checks a module and prepares it for compilation.
///
/// # Errors
///
/// [`Error::Rejected`] with a text for the module's author.
pub(crate) fn admit(bytes: &[u8], interruption: Interruption) -> Result<Vec<u8>, Error> {
    check_kind(bytes)?;
    check_size(bytes)?;
    check_interfaces(bytes)?;
    Validator::new_with_features(features())
        .validate_all(bytes)
        .map_err(|e| malformed(&e))?;
    match interruption {
        Interruption::Epoch => Ok(bytes.to_vec()),
        #[cfg(target_os = "linux")]
        Interruption::Page => crate::interrupt::rewrite::rewrite(bytes).map_err(Error::Rejected),
        #[cfg(not(target_os = "linux"))]
        Interruption::Page => Err(rejected("interruption by page needs Linux")),
    }
}

/// What the engine supports too; see there for what is left out and why.
fn features() -> WasmFeatures {
    WasmFeatures::WASM2
        | WasmFeatures::COMPONENT_MODEL
        | WasmFeatures::MULTI_MEMORY
        | WasmFeatures::EXTENDED_CONST
}

fn check_kind(bytes: &[u8]) -> Result<(), Error> {
    if bytes.len() as u64 > MODULE_BYTES_MAX {
        let (len, limit) = (bytes.len() >> 20, MODULE_BYTES_MAX >> 20);
        return Err(rejected(format!(
            "the module has {len} MiB; at most {limit} are allowed"
        )));
    }
    if Parser::is_component(bytes) {
        Ok(())
    } else if Parser::is_core_wasm(bytes) {
        Err(rejected(format!(
            "a core WebAssembly module, not a component; {HOW_TO_BUILD}"
        )))
    } else if bytes.starts_with(b"PK\x03\x04") {
        Err(rejected(format!(
            "a Java archive or zip file, not a WebAssembly component; {HOW_TO_BUILD}"
        )))
    } else if bytes.starts_with(&[0x1f, 0x8b]) {
        Err(rejected(
            "a compressed file; upload the WebAssembly component itself",
        ))
    } else {
        Err(rejected(format!(
            "not a WebAssembly component; {HOW_TO_BUILD}"
        )))
    }
}

/// Walks the module without recursion and bounds everything that later steps recurse over.
fn check_size(bytes: &[u8]) -> Result<(), Error> {
    let (mut depth, mut parts, mut sections) = (0usize, 0usize, 0usize);
    for payload in Parser::new(0).parse_all(bytes) {
        sections += 1;
        match payload.map_err(|e| malformed(&e))? {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => {
                (depth, parts) = (depth + 1, parts + 1);
            }
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::MemorySection(section) => {
                for memory in section {
                    check_memory(&memory.map_err(|e| malformed(&e))?)?;
                }
            }
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    if let TypeRef::Memory(memory) = import.map_err(|e| malformed(&e))?.ty {
                        check_memory(&memory)?;
                    }
                }
            }
            Payload::CodeSectionEntry(body) => {
                // Entries are not sections.
                sections -= 1;
                check_loops(&body)?;
            }
            _ => {}
        }
        if depth > DEPTH_MAX || parts > PARTS_MAX || sections > SECTIONS_MAX {
            return Err(rejected(format!(
                "the component is nested or divided too much; at most {DEPTH_MAX} levels, \
                 {PARTS_MAX} modules and {SECTIONS_MAX} sections are allowed"
            )));
        }
    }
    Ok(())
}

#[cfg(target_os = "linux")]
fn check_memory(memory: &wasmparser::MemoryType) -> Result<(), Error> {
    use crate::interrupt::page::{EXTRA_MAXIMUM_PAGES, EXTRA_MINIMUM_PAGES};
    if memory.initial == EXTRA_MINIMUM_PAGES && memory.maximum == Some(EXTRA_MAXIMUM_PAGES) {
        return Err(rejected(format!(
            "a memory of {EXTRA_MINIMUM_PAGES} to {EXTRA_MAXIMUM_PAGES} pages is reserved; choose other limits"
        )));
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
const fn check_memory(_memory: &wasmparser::MemoryType) -> Result<(), Error> {
    Ok(())
}

fn check_loops(body: &wasmparser::FunctionBody<'_>) -> Result<(), Error> {
    // A loop takes three bytes at least.
    if body.range().len() < 3 * FUNCTION_LOOPS_MAX {
        return Ok(());
    }
    let mut operators = body.get_operators_reader().map_err(|e| malformed(&e))?;
    let mut loops = 0;
    while !operators.eof() {
        let operator = operators.read().map_err(|e| malformed(&e))?;
        loops += usize::from(matches!(operator, Operator::Loop { .. }));
    }
    if loops > FUNCTION_LOOPS_MAX {
        return Err(rejected(format!(
            "a function with more than {FUNCTION_LOOPS_MAX} loops"
        )));
    }
    Ok(())
}

/// The component's own imports and exports.
fn check_interfaces(bytes: &[u8]) -> Result<(), Error> {
    let mut exports = Vec::new();
    let mut depth = 0usize;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(|e| malformed(&e))? {
            Payload::Version {
                encoding: Encoding::Component | Encoding::Module,
                ..
            } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 1 => {
                for import in section {
                    check_import(import.map_err(|e| malformed(&e))?.name.name)?;
                }
            }
            Payload::ComponentExportSection(section) if depth == 1 => {
                for export in section {
                    let export = export.map_err(|e| malformed(&e))?;
                    if export.kind == ComponentExternalKind::Instance {
                        exports.push(export.name.name.to_owned());
                    }
                }
            }
            _ => {}
        }
    }
    EXPORTS
        .iter()
        .try_for_each(|wanted| check_export(wanted, &exports))
}

fn check_import(name: &str) -> Result<(), Error> {
    if IMPORTS.iter().any(|allowed| name.starts_with(allowed)) {
        return Ok(());
    }
    let name: String = name.chars().take(200).filter(|c| !c.is_control()).collect();
    Err(rejected(format!(
        "the component imports \"{name}\", which jobs are not given; they have tidemill:job and \
         the clocks, random, io and cli parts of WASI"
    )))
}

fn check_export(wanted: &str, exports: &[String]) -> Result<(), Error> {
    if exports.iter().any(|name| name == wanted) {
        return Ok(());
    }
    let interface = wanted.split('@').next().unwrap_or(wanted);
    let other = exports
        .iter()
        .find(|name| name.split('@').next() == Some(interface));
    match other {
        Some(other) => Err(rejected(format!(
            "the component exports {other}, this version of tidemill runs {wanted}; rebuild the job \
             with the tidemill crate of this version"
        ))),
        None => Err(rejected(format!(
            "a component of another world: it does not export {wanted}; {HOW_TO_BUILD}, and mark \
             the job's function with #[tidemill::job]"
        ))),
    }
}
