//! Uploaded modules.
//!
//! A module is a file `<tenant>/<uuid>_<name>` in `web.upload.dir` (by default `modules` in the
//! storage directory); it appears there only after it has been received whole and compiled.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tidemill_types::{ModuleId, TenantId};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{
    clock::Clock,
    plan::{Plan, PlanFailure},
};

/// The most modules that a tenant may keep.
pub(crate) const MODULES_MAX: usize = 10_000;
/// Where uploads are received, beside the tenants' folders, none of which can have this name.
const UPLOADS: &str = ".uploads";
/// The longest file name that is kept of an upload; with the id before it, it fits a file name.
const NAME_BYTES_MAX: usize = 200;

/// Why a module cannot be had or kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ModuleError {
    /// There is none with this id.
    #[error("module \"{0}\" does not exist")]
    NotFound(String),
    /// The upload is not acceptable.
    #[error("{0}")]
    Refused(String),
    /// The upload is too large.
    #[error("the upload is larger than {0} bytes (rest.server.max-content-length)")]
    TooLarge(u64),
    /// The module does not compile, or the compiler failed.
    #[error(transparent)]
    Compile(#[from] PlanFailure),
    /// The disk failed.
    #[error("cannot {action} {path}: {error}")]
    Io {
        action: &'static str,
        path: String,
        error: std::io::Error,
    },
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> ModuleError {
    let path = path.display().to_string();
    move |error| ModuleError::Io {
        action,
        path,
        error,
    }
}

/// An uploaded module.
#[derive(Debug, Clone)]
pub(crate) struct Module {
    pub(crate) id: ModuleId,
    pub(crate) tenant: TenantId,
    /// The name of the uploaded file.
    pub(crate) name: String,
    pub(crate) uploaded_ms: i64,
    /// SHA-256 in hexadecimal.
    pub(crate) hash: String,
    pub(crate) path: PathBuf,
}

/// All modules.
#[derive(Debug)]
pub(crate) struct ModuleStore {
    folder: PathBuf,
    clock: Clock,
    upload_bytes_max: u64,
    modules: Mutex<BTreeMap<(TenantId, ModuleId), Module>>,
}

impl ModuleStore {
    /// Opens the store and finds the modules that are there.
    pub(crate) async fn open(
        folder: PathBuf,
        clock: Clock,
        upload_bytes_max: u64,
    ) -> Result<Self, ModuleError> {
        // What broke off is of no use.
        let uploads = folder.join(UPLOADS);
        if uploads.exists() {
            tokio::fs::remove_dir_all(&uploads)
                .await
                .map_err(io("clear", &uploads))?;
        }
        tokio::fs::create_dir_all(&uploads)
            .await
            .map_err(io("create", &uploads))?;
        let store = Self {
            folder,
            clock,
            upload_bytes_max,
            modules: Mutex::default(),
        };
        store.find_existing().await?;
        Ok(store)
    }

    async fn find_existing(&self) -> Result<(), ModuleError> {
        let root = self.folder.clone();
        let mut tenants = tokio::fs::read_dir(&root)
            .await
            .map_err(io("list", &root))?;
        while let Some(folder) = tenants.next_entry().await.map_err(io("list", &root))? {
            let Some(tenant) = folder
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<TenantId>().ok())
            else {
                continue;
            };
            let mut files = tokio::fs::read_dir(folder.path())
                .await
                .map_err(io("list", &folder.path()))?;
            while let Some(file) = files
                .next_entry()
                .await
                .map_err(io("list", &folder.path()))?
            {
                let Some(id) = file
                    .file_name()
                    .to_str()
                    .and_then(|name| name.parse::<ModuleId>().ok())
                else {
                    continue;
                };
                self.adopt(tenant.clone(), id, &file.path()).await?;
            }
        }
        Ok(())
    }

    async fn adopt(&self, tenant: TenantId, id: ModuleId, path: &Path) -> Result<(), ModuleError> {
        let hash = hash_file(path).await?;
        let meta = tokio::fs::metadata(path)
            .await
            .map_err(io("look at", path))?;
        let modified = meta
            .modified()
            .ok()
            .and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
        let uploaded_ms = modified.map_or(0, crate::clock::millis);
        let name = id
            .as_str()
            .split_once('_')
            .map_or(id.as_str(), |(_, name)| name)
            .to_owned();
        let module = Module {
            id,
            tenant,
            name,
            uploaded_ms,
            hash,
            path: path.to_owned(),
        };
        self.insert(module);
        Ok(())
    }

    fn insert(&self, module: Module) {
        self.modules
            .lock()
            .insert((module.tenant.clone(), module.id.clone()), module);
    }

    /// Receives a module, compiles it and keeps it.
    pub(crate) async fn upload<S, E>(
        &self,
        tenant: &TenantId,
        file_name: &str,
        body: S,
        planner: &Arc<dyn Plan>,
    ) -> Result<Module, ModuleError>
    where
        S: Stream<Item = Result<Bytes, E>> + Unpin + Send,
        E: std::fmt::Display + Send,
    {
        let name = checked_name(file_name)?;
        if self.list(tenant).len() >= MODULES_MAX {
            return Err(ModuleError::Refused(format!(
                "{MODULES_MAX} modules are kept already; delete some first"
            )));
        }
        let temporary = self
            .folder
            .join(UPLOADS)
            .join(format!("{}.wasm", uuid::Uuid::new_v4()));
        // Also when the client hangs up, and this future is dropped.
        let _received = Received(temporary.clone());
        let hash = self.receive(&temporary, body).await?;
        planner.compile(&temporary).await?;
        self.admit(tenant, &name, &temporary, hash).await
    }

    async fn admit(
        &self,
        tenant: &TenantId,
        name: &str,
        temporary: &Path,
        hash: String,
    ) -> Result<Module, ModuleError> {
        let id: ModuleId = format!("{}_{name}", uuid::Uuid::new_v4())
            .parse()
            .map_err(|e: tidemill_types::ids::InvalidId| ModuleError::Refused(e.to_string()))?;
        let folder = self.folder.join(tenant.as_str());
        tokio::fs::create_dir_all(&folder)
            .await
            .map_err(io("create", &folder))?;
        let path = folder.join(id.as_str());
        tokio::fs::rename(temporary, &path)
            .await
            .map_err(io("move the upload to", &path))?;
        let module = Module {
            id,
            tenant: tenant.clone(),
            name: name.to_owned(),
            uploaded_ms: self.clock.now_ms(),
            hash,
            path,
        };
        self.insert(module.clone());
        Ok(module)
    }

    async fn receive<S, E>(&self, path: &Path, mut body: S) -> Result<String, ModuleError>
    where
        S: Stream<Item = Result<Bytes, E>> + Unpin + Send,
        E: std::fmt::Display + Send,
    {
        let mut file = tokio::fs::File::create(path)
            .await
            .map_err(io("create", path))?;
        let (mut hasher, mut received) = (Sha256::new(), 0u64);
        while let Some(chunk) = body.next().await {
            let chunk =
                chunk.map_err(|e| ModuleError::Refused(format!("the upload broke off: {e}")))?;
            received += chunk.len() as u64;
            if received > self.upload_bytes_max {
                return Err(ModuleError::TooLarge(self.upload_bytes_max));
            }
            hasher.update(&chunk);
            file.write_all(&chunk).await.map_err(io("write", path))?;
        }
        if received == 0 {
            return Err(ModuleError::Refused("the uploaded file is empty".into()));
        }
        file.sync_all().await.map_err(io("write", path))?;
        Ok(hex(&hasher.finalize()))
    }

    /// A tenant's module.
    pub(crate) fn get(&self, tenant: &TenantId, id: &str) -> Result<Module, ModuleError> {
        let modules = self.modules.lock();
        let found = modules
            .values()
            .find(|module| module.tenant == *tenant && module.id.as_str() == id);
        found
            .cloned()
            .ok_or_else(|| ModuleError::NotFound(id.chars().take(255).collect()))
    }

    /// A tenant's modules, newest first.
    pub(crate) fn list(&self, tenant: &TenantId) -> Vec<Module> {
        let modules = self.modules.lock();
        let mut found: Vec<_> = modules
            .values()
            .filter(|module| module.tenant == *tenant)
            .cloned()
            .collect();
        found.sort_by_key(|module| std::cmp::Reverse(module.uploaded_ms));
        found
    }

    /// Deletes a module. Jobs that run from it go on.
    pub(crate) async fn delete(&self, tenant: &TenantId, id: &str) -> Result<(), ModuleError> {
        let module = self.get(tenant, id)?;
        self.modules.lock().remove(&(module.tenant, module.id));
        tokio::fs::remove_file(&module.path)
            .await
            .map_err(io("delete", &module.path))
    }
}

/// The part of an uploaded file's name that is kept.
fn checked_name(file_name: &str) -> Result<String, ModuleError> {
    let name = file_name.rsplit(['/', '\\']).next().unwrap_or_default();
    let extension = Path::new(name)
        .extension()
        .and_then(|e| e.to_str())
        .unwrap_or_default();
    if !extension.eq_ignore_ascii_case("wasm") && !extension.eq_ignore_ascii_case("jar") {
        return Err(ModuleError::Refused(
            "only files whose name ends in .wasm (or .jar) can be uploaded".into(),
        ));
    }
    let fine = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '+');
    let name: String = name
        .chars()
        .map(|c| if fine(c) { c } else { '_' })
        .collect();
    if name.starts_with('.') || name.len() > NAME_BYTES_MAX {
        return Err(ModuleError::Refused(format!(
            "the name of the uploaded file must have 1 to {NAME_BYTES_MAX} bytes and not begin with a dot"
        )));
    }
    Ok(name)
}

async fn hash_file(path: &Path) -> Result<String, ModuleError> {
    let mut file = tokio::fs::File::open(path)
        .await
        .map_err(io("open", path))?;
    let (mut hasher, mut buffer) = (Sha256::new(), vec![0; 1 << 16]);
    loop {
        let read = file.read(&mut buffer).await.map_err(io("read", path))?;
        if read == 0 {
            return Ok(hex(&hasher.finalize()));
        }
        hasher.update(&buffer[..read]);
    }
}

/// A file that is being received; it goes unless it was moved away.
struct Received(PathBuf);

impl Drop for Received {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.0.display(), %error, "deleting a refused upload failed");
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            write!(text, "{byte:02x}").expect("writing to a string cannot fail");
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_in_file_names_are_dropped() {
        assert_eq!(checked_name("../../etc/x.wasm").unwrap(), "x.wasm");
        assert_eq!(checked_name("C:\\jobs\\my job.jar").unwrap(), "my_job.jar");
        assert!(checked_name("evil.so").is_err());
        assert!(checked_name(".wasm").is_err());
        assert!(checked_name("a/..").is_err());
        assert!(checked_name(&format!("{}.wasm", "x".repeat(300))).is_err());
    }

    /// A planner that never answers.
    struct Stuck;

    #[async_trait::async_trait]
    impl Plan for Stuck {
        async fn compile(&self, _: &Path) -> Result<(), PlanFailure> {
            std::future::pending().await
        }

        async fn plan(
            &self,
            _: &Path,
            _: tidemill_planner::PlanJob,
        ) -> Result<tidemill_types::JobGraph, PlanFailure> {
            std::future::pending().await
        }
    }

    #[tokio::test]
    async fn an_upload_that_nobody_waits_for_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let store = ModuleStore::open(dir.path().to_owned(), Clock::system(), 1 << 20)
            .await
            .unwrap();
        let files = || std::fs::read_dir(dir.path().join(UPLOADS)).unwrap().count();
        let planner: Arc<dyn Plan> = Arc::new(Stuck);
        let tenant = TenantId::default_tenant();
        let body = futures::stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"module"))]);
        {
            let mut upload = std::pin::pin!(store.upload(&tenant, "job.wasm", body, &planner));
            while files() == 0 {
                assert!(futures::poll!(upload.as_mut()).is_pending());
                tokio::task::yield_now().await;
            }
        }
        assert_eq!(files(), 0);
    }
}
