//! What the host offers a job, called through one thin layer: the imports of the component in
//! Wasm, and a [`Host`] of the calling thread everywhere else, so that jobs run natively.

use crate::bindings::tidemill::job::{logging::Level, state::Entries, types};

#[cfg(not(target_family = "wasm"))]
pub use imp::with_host;
pub(crate) use imp::*;

/// A stand-in for the host on other targets than Wasm: what a test or a benchmark provides.
///
/// The functions are those of the contract's imported interfaces (`wit/job.wit`).
#[cfg(not(target_family = "wasm"))]
pub trait Host {
    /// Takes what a chain sends out by a port.
    fn emit(&mut self, port: u32, records: &types::Batch);
    /// Reads state entries.
    fn state_get_many(
        &mut self,
        state: u32,
        keys: &types::Column,
        subkeys: &types::Column,
    ) -> types::Column;
    /// Writes state entries.
    fn state_put_many(&mut self, state: u32, entries: &Entries);
    /// Reads the entries of a key in order.
    fn state_scan(
        &mut self,
        state: u32,
        key: &[u8],
        after: Option<&[u8]>,
        max_bytes: u32,
    ) -> Entries;
    /// Sets timers.
    fn timers_set_many(&mut self, timers: &types::TimerBatch);
    /// Deletes timers.
    fn timers_delete_many(&mut self, timers: &types::TimerBatch);
    /// Adds to a counter.
    fn metrics_add(&mut self, operator: u32, name: &str, delta: u64);
    /// Sets a gauge.
    fn metrics_set(&mut self, operator: u32, name: &str, value: f64);
    /// Takes a line of the log.
    fn log(&mut self, level: Level, operator: Option<u32>, message: &str);
    /// Milliseconds since the epoch.
    fn now_ms(&mut self) -> i64;
}

#[cfg(target_family = "wasm")]
mod imp {
    use super::{Entries, Level, types};
    use crate::bindings::tidemill::job::{logging, metrics, output, state, timers};

    pub(crate) fn emit(port: u32, records: &types::Batch) {
        output::emit(port, records);
    }

    pub(crate) fn state_get_many(
        index: u32,
        keys: &types::Column,
        subkeys: &types::Column,
    ) -> types::Column {
        state::get_many(index, keys, subkeys)
    }

    pub(crate) fn state_put_many(index: u32, entries: &Entries) {
        state::put_many(index, entries);
    }

    pub(crate) fn timers_set_many(batch: &types::TimerBatch) {
        timers::set_many(batch);
    }

    pub(crate) fn timers_delete_many(batch: &types::TimerBatch) {
        timers::delete_many(batch);
    }

    pub(crate) fn metrics_add(operator: u32, name: &str, delta: u64) {
        metrics::add(operator, name, delta);
    }

    pub(crate) fn metrics_set(operator: u32, name: &str, value: f64) {
        metrics::set(operator, name, value);
    }

    pub(crate) fn log(level: Level, operator: Option<u32>, message: &str) {
        logging::log(level, operator, message);
    }

    pub(crate) fn panicked(operator: Option<u32>, message: &str) {
        logging::panicked(operator, message);
    }

    #[expect(
        clippy::disallowed_types,
        reason = "this is where the clock of a job comes from"
    )]
    pub(crate) fn now_ms() -> i64 {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
    }
}

#[cfg(not(target_family = "wasm"))]
mod imp {
    use std::cell::RefCell;

    use super::{Entries, Host, Level, types};

    thread_local! {
        static HOST: RefCell<Option<Box<dyn Host>>> = const { RefCell::new(None) };
    }

    /// Makes `host` the host of this thread while `f` runs, and returns it with `f`'s answer.
    pub fn with_host<R>(host: Box<dyn Host>, f: impl FnOnce() -> R) -> (Box<dyn Host>, R) {
        let before = HOST.with(|slot| slot.borrow_mut().replace(host));
        let answer = f();
        let host = HOST.with(|slot| std::mem::replace(&mut *slot.borrow_mut(), before));
        (
            host.expect("a host that was put in place stays until it is taken"),
            answer,
        )
    }

    fn call<R>(f: impl FnOnce(&mut (dyn Host + 'static)) -> R) -> Option<R> {
        HOST.with(|slot| {
            let mut host = slot.borrow_mut();
            host.as_deref_mut().map(f)
        })
    }

    pub(crate) fn emit(port: u32, records: &types::Batch) {
        call(|host| host.emit(port, records));
    }

    pub(crate) fn state_get_many(
        index: u32,
        keys: &types::Column,
        subkeys: &types::Column,
    ) -> types::Column {
        call(|host| host.state_get_many(index, keys, subkeys)).unwrap_or_else(crate::batch::empty)
    }

    pub(crate) fn state_put_many(index: u32, entries: &Entries) {
        call(|host| host.state_put_many(index, entries));
    }

    pub(crate) fn timers_set_many(batch: &types::TimerBatch) {
        call(|host| host.timers_set_many(batch));
    }

    pub(crate) fn timers_delete_many(batch: &types::TimerBatch) {
        call(|host| host.timers_delete_many(batch));
    }

    pub(crate) fn metrics_add(operator: u32, name: &str, delta: u64) {
        call(|host| host.metrics_add(operator, name, delta));
    }

    pub(crate) fn metrics_set(operator: u32, name: &str, value: f64) {
        call(|host| host.metrics_set(operator, name, value));
    }

    pub(crate) fn log(level: Level, operator: Option<u32>, message: &str) {
        call(|host| host.log(level, operator, message));
    }

    pub(crate) fn now_ms() -> i64 {
        call(|host| host.now_ms()).unwrap_or(0)
    }
}
