//! Interruption by epochs: compiled-in checks of a counter that the watchdog advances.

use std::sync::Arc;

use wasmtime::{Config, Store, UpdateDeadline};

use super::Watch;

pub(crate) fn configure(config: &mut Config) {
    config.epoch_interruption(true);
}

/// Makes every tick look at the watch.
pub(crate) fn attach<T>(store: &mut Store<T>, watch: &Arc<Watch>) {
    let watch = Arc::clone(watch);
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(move |_| {
        if watch.is_stopped() {
            Err(wasmtime::Trap::Interrupt.into())
        } else {
            Ok(UpdateDeadline::Continue(1))
        }
    });
}
