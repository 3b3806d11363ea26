//! The thread that looks at the clock for everyone.

use std::{
    io,
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::{Condvar, Mutex};
use wasmtime::Engine;

use super::{Interruption, Watch};
use crate::clock::now;

/// How often the watches are looked at: the precision of the time limit.
const TICK: Duration = Duration::from_millis(10);

/// Owns the thread; it ends when this is dropped.
pub(crate) struct Watchdog {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    watched: Mutex<Watched>,
    changed: Condvar,
}

#[derive(Default)]
struct Watched {
    watches: Vec<Weak<Watch>>,
    ended: bool,
}

impl Watchdog {
    pub(crate) fn start(engine: &Engine, interruption: Interruption) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let seen = Arc::clone(&shared);
        let engine = (interruption == Interruption::Epoch).then(|| engine.clone());
        std::thread::Builder::new()
            .name("guest-watchdog".into())
            .spawn(move || seen.run(engine.as_ref()))?;
        Ok(Self { shared })
    }

    /// Looks after a watch for as long as it lives.
    pub(crate) fn add(&self, watch: &Arc<Watch>) {
        let mut watched = self.shared.watched.lock();
        watched.watches.retain(|watch| watch.strong_count() > 0);
        watched.watches.push(Arc::downgrade(watch));
        self.shared.changed.notify_one();
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.shared.watched.lock().ended = true;
        self.shared.changed.notify_one();
    }
}

impl Shared {
    fn run(&self, engine: Option<&Engine>) {
        let mut watched = self.watched.lock();
        while !watched.ended {
            let at = now();
            watched.watches.retain(|watch| {
                let watch = watch.upgrade();
                if let Some(watch) = &watch {
                    watch.check(at);
                }
                watch.is_some()
            });
            if let Some(engine) = engine {
                engine.increment_epoch();
            }
            if watched.watches.is_empty() {
                self.changed.wait(&mut watched);
            } else {
                self.changed.wait_for(&mut watched, TICK);
            }
        }
    }
}
