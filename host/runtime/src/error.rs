//! How the runtime and its guests fail.

use std::{fmt, time::Duration};

use tidemill_types::ErrorKind;

/// The longest text that is taken over from a guest.
pub const GUEST_TEXT_BYTES_MAX: usize = 64 << 10;
/// The most frames of a backtrace that are kept.
const FRAMES_MAX: usize = 40;
/// So many frames of so few functions are a recursion.
const RECURSION_FRAMES: usize = 16;
/// See [`RECURSION_FRAMES`].
const RECURSION_FUNCTIONS: usize = 4;

/// Why the runtime could not do something, whatever guest it was for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The module is not acceptable; the text tells its author what to change.
    #[error("{0}")]
    Rejected(String),
    /// The code cache cannot be used.
    #[error("code cache {path}: {message}")]
    Cache {
        /// Where.
        path: String,
        /// Why.
        message: String,
    },
    /// Wasmtime or the operating system failed us.
    #[error("{0}")]
    Engine(String),
}

impl Error {
    /// What a caller can do.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Rejected(_) => ErrorKind::Invalid,
            Self::Cache { .. } => ErrorKind::Retry,
            Self::Engine(_) => ErrorKind::Bug,
        }
    }
}

/// Where a guest was, innermost frame first, with function names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frames(pub Vec<String>);

impl fmt::Display for Frames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for frame in &self.0 {
            write!(f, "\n    at {frame}")?;
        }
        Ok(())
    }
}

/// How a call into a guest ended badly. The text is a cause for people and goes on from the name of
/// the operator or task, which it leaves to the caller. The instance is unusable afterwards, except after [`GuestError::Failed`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GuestError {
    /// The guest panicked, or executed what cannot be executed.
    #[error("{message}{backtrace}")]
    Trap {
        /// The operator that reported a panic.
        operator: Option<u32>,
        /// The panic's message or the trap's name.
        message: String,
        /// Where.
        backtrace: Frames,
    },
    /// The call took too long.
    #[error("was interrupted after {:.1} s in one call; the limit is {:.1} s{backtrace}", after.as_secs_f64(), limit.as_secs_f64())]
    Interrupted {
        /// The guest's own time in the call.
        after: Duration,
        /// The limit.
        limit: Duration,
        /// Where.
        backtrace: Frames,
    },
    /// The guest wanted more memory than it may have.
    #[error("exceeded {} MiB of memory (asked for {} MiB){backtrace}", limit >> 20, wanted.div_ceil(1 << 20))]
    Memory {
        /// The limit in bytes.
        limit: u64,
        /// What it would have had.
        wanted: u64,
        /// Where.
        backtrace: Frames,
    },
    /// The guest's stack is exhausted.
    #[error("exceeded its stack; is a recursion endless?{backtrace}")]
    Stack {
        /// Where.
        backtrace: Frames,
    },
    /// The guest returned an error of its own.
    #[error("failed: {message}")]
    Failed {
        /// The operator that failed.
        operator: Option<u32>,
        /// Why.
        message: String,
    },
    /// The guest broke the contract.
    #[error("broke the contract: {message}{backtrace}")]
    Violation {
        /// Which rule, and how.
        message: String,
        /// Where.
        backtrace: Frames,
    },
    /// The guest called `exit`.
    #[error("exited with status {status} instead of returning{backtrace}")]
    Exited {
        /// The status.
        status: i32,
        /// Where.
        backtrace: Frames,
    },
    /// The call was interrupted from outside.
    #[error("was cancelled: {0}")]
    Cancelled(String),
    /// The host failed while it served the guest.
    #[error("could not be served: {0}")]
    Host(String),
    /// An earlier call has ended this instance.
    #[error("was ended by an earlier call")]
    Gone,
}

impl GuestError {
    /// What a caller can do.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Cancelled(_) | Self::Host(_) => ErrorKind::Retry,
            Self::Gone => ErrorKind::Bug,
            _ => ErrorKind::GuestFault,
        }
    }

    /// The operator at fault, if the guest said so: its position in the vertex.
    #[must_use]
    pub const fn operator(&self) -> Option<u32> {
        match self {
            Self::Trap { operator, .. } | Self::Failed { operator, .. } => *operator,
            _ => None,
        }
    }

    pub(crate) fn with_backtrace(mut self, trace: Frames) -> Self {
        match &mut self {
            Self::Trap { backtrace, .. }
            | Self::Interrupted { backtrace, .. }
            | Self::Memory { backtrace, .. }
            | Self::Stack { backtrace }
            | Self::Violation { backtrace, .. }
            | Self::Exited { backtrace, .. } => *backtrace = trace,
            Self::Failed { .. } | Self::Cancelled(_) | Self::Host(_) | Self::Gone => {}
        }
        self
    }

    /// What a wasmtime error means that no limit or host function has explained.
    pub(crate) fn from_wasmtime(error: &wasmtime::Error) -> Self {
        let backtrace = Frames::of(error);
        if let Some(exit) = error.downcast_ref::<wasmtime_wasi::I32Exit>() {
            return Self::Exited {
                status: exit.0,
                backtrace,
            };
        }
        match error.downcast_ref::<wasmtime::Trap>() {
            Some(wasmtime::Trap::StackOverflow) => Self::Stack { backtrace },
            // Compilers keep a second stack at the bottom of the memory: it ends out of bounds.
            Some(wasmtime::Trap::MemoryOutOfBounds) if backtrace.is_recursion() => {
                Self::Stack { backtrace }
            }
            Some(wasmtime::Trap::CannotEnterComponent) => Self::Gone,
            Some(trap) => Self::Trap {
                operator: None,
                message: format!("trapped: {trap}"),
                backtrace,
            },
            None => Self::Violation {
                message: tidy(&root_cause(error)),
                backtrace,
            },
        }
    }
}

fn root_cause(error: &wasmtime::Error) -> String {
    error
        .chain()
        .last()
        .map_or_else(|| error.to_string(), ToString::to_string)
}

impl Frames {
    /// Whether the innermost frames are many calls of a few functions.
    fn is_recursion(&self) -> bool {
        let mut names: Vec<_> = self.0.iter().take(RECURSION_FRAMES).collect();
        let frames = names.len();
        names.sort_unstable();
        names.dedup();
        frames == RECURSION_FRAMES && names.len() <= RECURSION_FUNCTIONS
    }

    /// The backtrace that wasmtime has attached to an error.
    pub(crate) fn of(error: &wasmtime::Error) -> Self {
        let Some(trace) = error.downcast_ref::<wasmtime::WasmBacktrace>() else {
            return Self::default();
        };
        let name = |frame: &wasmtime::FrameInfo| {
            let symbol = frame.symbols().iter().find_map(wasmtime::FrameSymbol::name);
            let name = symbol.or_else(|| frame.func_name());
            let name = name.map_or_else(|| format!("function {}", frame.func_index()), demangled);
            shortened(&tidy(&name), 300)
        };
        Self(trace.frames().iter().take(FRAMES_MAX).map(name).collect())
    }
}

fn demangled(name: &str) -> String {
    format!("{:#}", rustc_demangle::demangle(name))
}

/// A guest's text without control characters (line breaks and tabs stay) and of bounded length.
pub(crate) fn tidy(text: &str) -> String {
    let clean: String = text
        .chars()
        .filter(|c| !c.is_control() || matches!(c, '\n' | '\t'))
        .collect();
    shortened(&clean, GUEST_TEXT_BYTES_MAX)
}

fn shortened(text: &str, bytes: usize) -> String {
    if text.len() <= bytes {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(bytes);
    format!("{}… ({} bytes more)", &text[..end], text.len() - end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guest_text_is_bounded_and_printable() {
        assert_eq!(tidy("a\u{1b}[31mb\nc"), "a[31mb\nc");
        let long = tidy(&"é".repeat(GUEST_TEXT_BYTES_MAX));
        assert!(long.len() < GUEST_TEXT_BYTES_MAX + 40, "{}", long.len());
        assert!(long.ends_with("bytes more)"));
    }
}
