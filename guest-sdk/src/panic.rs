//! Panics: their message goes to the host just before the trap that follows.

/// Installs the hook, in Wasm.
pub(crate) fn report_panics() {
    #[cfg(target_family = "wasm")]
    std::panic::set_hook(Box::new(|info| {
        let message = info.payload_as_str().unwrap_or("a panic without a message");
        let text = match info.location() {
            Some(at) => format!("{message} ({}:{}:{})", at.file(), at.line(), at.column()),
            None => message.to_owned(),
        };
        crate::host::panicked(crate::context::current_operator(), &text);
    }));
}
