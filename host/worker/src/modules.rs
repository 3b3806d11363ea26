//! From a module's hash to compiled code.
//!
//! Compiled code comes from the cache. On a miss the module's bytes are fetched from the
//! coordinator and the planner process compiles them into the cache: never this process, which
//! runs other people's jobs. Each module is loaded once, however many tasks ask for it.

use std::{collections::HashMap, path::PathBuf, sync::Arc};

use parking_lot::Mutex;
use tidemill_planner::{ModuleHash, PlanError, Planner};
use tidemill_protocol::control::{ModuleRequest, coordinator_client::CoordinatorClient};
use tidemill_runtime::{Module, Runtime};
use tokio::{io::AsyncWriteExt, sync::OnceCell};
use tonic::transport::Channel;

/// The largest module that is fetched.
const MODULE_BYTES_MAX: u64 = 512 << 20;

/// Why a module cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The coordinator did not hand it over.
    #[error("cannot fetch module {hash} from the coordinator: {reason}")]
    Fetch {
        /// The module.
        hash: ModuleHash,
        /// What happened.
        reason: String,
    },
    /// It could not be written to the temporary directory.
    #[error("cannot store module {hash} in {dir}")]
    Store {
        /// The module.
        hash: ModuleHash,
        /// The directory.
        dir: String,
        /// What happened.
        source: std::io::Error,
    },
    /// It does not compile.
    #[error("cannot compile module {hash}: {source}")]
    Compile {
        /// The module.
        hash: ModuleHash,
        /// What happened.
        source: PlanError,
    },
    /// The compiled code does not load.
    #[error("cannot load the compiled code of module {hash}: {reason}")]
    Load {
        /// The module.
        hash: ModuleHash,
        /// What happened.
        reason: String,
    },
}

impl Error {
    /// Whether trying again cannot help.
    pub(crate) fn is_permanent(&self) -> bool {
        matches!(
            self,
            Self::Compile {
                source: PlanError::Rejected(_),
                ..
            }
        )
    }
}

/// The modules of a worker.
#[derive(Debug)]
pub(crate) struct Modules {
    runtime: Runtime,
    planner: Planner,
    dir: PathBuf,
    loaded: Mutex<HashMap<ModuleHash, Arc<OnceCell<Module>>>>,
}

impl Modules {
    pub(crate) fn new(runtime: Runtime, planner: Planner, dir: PathBuf) -> Self {
        Self {
            runtime,
            planner,
            dir,
            loaded: Mutex::new(HashMap::new()),
        }
    }

    /// The compiled module, from memory, the cache, or the coordinator.
    ///
    /// # Errors
    ///
    /// [`Error`] says which step failed.
    pub(crate) async fn get(
        &self,
        hash: &ModuleHash,
        worker_id: &str,
        coordinator: CoordinatorClient<Channel>,
    ) -> Result<Module, Error> {
        let cell = Arc::clone(self.loaded.lock().entry(hash.clone()).or_default());
        cell.get_or_try_init(|| self.load_or_compile(hash, worker_id, coordinator))
            .await
            .cloned()
    }

    /// Forgets modules that no task uses.
    pub(crate) fn retain(&self, used: impl Fn(&ModuleHash) -> bool) {
        self.loaded.lock().retain(|hash, _| used(hash));
    }

    async fn load_or_compile(
        &self,
        hash: &ModuleHash,
        worker_id: &str,
        coordinator: CoordinatorClient<Channel>,
    ) -> Result<Module, Error> {
        if let Some(module) = self.load(hash)? {
            return Ok(module);
        }
        let file = self.fetch(hash, worker_id, coordinator).await?;
        let compiled = self.planner.compile(file.path()).await;
        compiled.map_err(|source| Error::Compile {
            hash: hash.clone(),
            source,
        })?;
        self.load(hash)?.ok_or_else(|| Error::Load {
            hash: hash.clone(),
            reason: "it is not in the cache after it was compiled".to_owned(),
        })
    }

    fn load(&self, hash: &ModuleHash) -> Result<Option<Module>, Error> {
        self.runtime.load(hash).map_err(|error| Error::Load {
            hash: hash.clone(),
            reason: error.to_string(),
        })
    }

    async fn fetch(
        &self,
        hash: &ModuleHash,
        worker_id: &str,
        mut coordinator: CoordinatorClient<Channel>,
    ) -> Result<tempfile::NamedTempFile, Error> {
        let fetch_error = |reason: String| Error::Fetch {
            hash: hash.clone(),
            reason,
        };
        let store_error = |source| Error::Store {
            hash: hash.clone(),
            dir: self.dir.display().to_string(),
            source,
        };
        let request = ModuleRequest {
            module_hash: hash.to_string(),
            worker_id: worker_id.to_owned(),
        };
        let response = coordinator.fetch_module(request).await;
        let mut chunks = response
            .map_err(|s| fetch_error(s.message().to_owned()))?
            .into_inner();
        let file = tempfile::Builder::new()
            .prefix("module-")
            .suffix(".wasm")
            .tempfile_in(&self.dir)
            .map_err(store_error)?;
        let mut writer = tokio::fs::File::from_std(file.reopen().map_err(store_error)?);
        let mut bytes = 0u64;
        while let Some(chunk) = chunks
            .message()
            .await
            .map_err(|s| fetch_error(s.message().to_owned()))?
        {
            bytes += chunk.data.len() as u64;
            if bytes > MODULE_BYTES_MAX {
                return Err(fetch_error(format!(
                    "it is larger than {MODULE_BYTES_MAX} bytes"
                )));
            }
            writer.write_all(&chunk.data).await.map_err(store_error)?;
        }
        writer.flush().await.map_err(store_error)?;
        Ok(file)
    }
}
