//! The engine: one per worker, with its code cache and its watchdog.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;
use tidemill_types::ModuleHash;
use wasmtime::{Config, Engine, component::Component};

use crate::{
    bindings::JobPre,
    cache::CodeCache,
    error::Error,
    guest::Module,
    imports,
    instance::Instance,
    interrupt::{Interruption, Watchdog, epoch},
};

/// The stack that Wasm may use; recursion beyond it traps.
const WASM_STACK_BYTES: usize = 1 << 20;
/// The stack of a call: Wasm's and that of the host functions it calls.
const CALL_STACK_BYTES: usize = 2 << 20;

/// How a runtime is set up.
#[derive(Debug, Clone)]
pub struct RuntimeConfig {
    /// Where compiled code is kept; created, for this user alone, if it does not exist.
    pub cache_dir: PathBuf,
    /// How guests are interrupted.
    pub interruption: Interruption,
}

impl RuntimeConfig {
    /// The defaults with this cache directory.
    #[must_use]
    pub fn new(cache_dir: impl Into<PathBuf>) -> Self {
        Self {
            cache_dir: cache_dir.into(),
            interruption: Interruption::default(),
        }
    }
}

/// What all modules of a runtime share.
pub(crate) struct Shared {
    pub(crate) engine: Engine,
    pub(crate) interruption: Interruption,
    pub(crate) watchdog: Watchdog,
    cache: CodeCache,
    linker: wasmtime::component::Linker<Instance>,
    loaded: Mutex<HashMap<ModuleHash, Weak<JobPre<Instance>>>>,
}

/// Loads modules and runs instances of them. Cheap to clone.
#[derive(Clone)]
pub struct Runtime {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runtime")
            .field("interruption", &self.shared.interruption)
            .finish()
    }
}

impl Runtime {
    /// A runtime of its own.
    ///
    /// # Errors
    ///
    /// When the engine cannot be set up, or the cache directory is not ours alone.
    pub fn new(config: RuntimeConfig) -> Result<Self, Error> {
        let engine = new_engine(config.interruption)?;
        let cache = CodeCache::open(config.cache_dir, &engine)?;
        let mut linker = wasmtime::component::Linker::new(&engine);
        imports::add_to_linker(&mut linker).map_err(|error| Error::Engine(format!("{error:#}")))?;
        let watchdog = Watchdog::start(&engine, config.interruption)
            .map_err(|error| Error::Engine(format!("no thread for the watchdog: {error}")))?;
        Ok(Self {
            shared: Arc::new(Shared {
                engine,
                interruption: config.interruption,
                watchdog,
                cache,
                linker,
                loaded: Mutex::default(),
            }),
        })
    }

    /// The compiled code of the module with this content hash; `None` if it is not in the cache:
    /// ask the planner process to compile it.
    ///
    /// # Errors
    ///
    /// When the cache cannot be read, or its code does not load.
    pub fn load(&self, module: &ModuleHash) -> Result<Option<Module>, Error> {
        let mut loaded = self.shared.loaded.lock();
        if let Some(linked) = loaded.get(module).and_then(Weak::upgrade) {
            return Ok(Some(self.module(linked)));
        }
        let Some(component) = self.shared.cache.load(module, &self.shared.engine)? else {
            return Ok(None);
        };
        let linked = Arc::new(self.link(&component)?);
        loaded.retain(|_, linked| linked.strong_count() > 0);
        loaded.insert(module.clone(), Arc::downgrade(&linked));
        Ok(Some(self.module(linked)))
    }

    /// Checks and compiles a module into the cache. Only the planner process does this: compiling
    /// what a stranger wrote may take any time and memory.
    ///
    /// # Errors
    ///
    /// [`Error::Rejected`] with a text for the module's author, or why the cache cannot be written.
    pub fn compile(&self, bytes: &[u8]) -> Result<ModuleHash, Error> {
        let module = tidemill_planner::hash_module(bytes);
        let admitted = crate::admission::admit(bytes, self.shared.interruption)?;
        let code = self
            .shared
            .engine
            .precompile_component(&admitted)
            .map_err(|error| {
                Error::Rejected(format!("the component cannot be compiled: {error:#}"))
            })?;
        self.shared.cache.store(&module, &code)?;
        Ok(module)
    }

    fn module(&self, linked: Arc<JobPre<Instance>>) -> Module {
        Module {
            shared: Arc::clone(&self.shared),
            linked,
        }
    }

    fn link(&self, component: &Component) -> Result<JobPre<Instance>, Error> {
        let rejected = |error: wasmtime::Error| {
            Error::Rejected(format!(
                "the component does not fit this version of tidemill: {error:#}"
            ))
        };
        let linked = self
            .shared
            .linker
            .instantiate_pre(component)
            .map_err(rejected)?;
        JobPre::new(linked).map_err(rejected)
    }
}

fn new_engine(interruption: Interruption) -> Result<Engine, Error> {
    let mut config = Config::new();
    config
        .concurrency_support(false)
        .cranelift_opt_level(wasmtime::OptLevel::Speed)
        .parallel_compilation(true)
        .max_wasm_stack(WASM_STACK_BYTES)
        .async_stack_size(CALL_STACK_BYTES)
        // Endless tail recursion would need no loop and no stack.
        .wasm_tail_call(false)
        .wasm_memory64(false)
        .wasm_relaxed_simd(false)
        .wasm_multi_memory(true);
    match interruption {
        Interruption::Epoch => epoch::configure(&mut config),
        #[cfg(target_os = "linux")]
        Interruption::Page => crate::interrupt::page::configure(&mut config),
        #[cfg(not(target_os = "linux"))]
        Interruption::Page => {
            return Err(Error::Engine(
                "interruption by page needs Linux; use epoch".into(),
            ));
        }
    }
    Engine::new(&config).map_err(|error| Error::Engine(format!("{error:#}")))
}
