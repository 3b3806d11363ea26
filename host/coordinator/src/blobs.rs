//! The copies of modules that jobs run from: `blobs/<hash>.wasm` in the storage directory.
//!
//! # Invariants
//!
//! 1. A copy exists as long as somebody holds a lease on it, whatever happens to the upload.
//! 2. It appears whole or not at all.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;

/// All copies.
#[derive(Debug)]
pub(crate) struct Blobs {
    folder: PathBuf,
    leases: Mutex<HashMap<String, usize>>,
}

impl Blobs {
    /// Opens the folder. Copies of an earlier life are of no use and go.
    pub(crate) async fn open(storage: &Path) -> std::io::Result<Self> {
        let folder = storage.join("blobs");
        if folder.exists() {
            tokio::fs::remove_dir_all(&folder).await?;
        }
        tokio::fs::create_dir_all(&folder).await?;
        Ok(Self {
            folder,
            leases: Mutex::default(),
        })
    }

    /// The copy of a module, kept until the lease is dropped.
    pub(crate) async fn lease(
        self: &Arc<Self>,
        hash: &str,
        module: &Path,
    ) -> std::io::Result<BlobLease> {
        // Counted before it is made, so that the end of another job cannot delete it meanwhile.
        *self.leases.lock().entry(hash.to_owned()).or_insert(0) += 1;
        let lease = BlobLease {
            blobs: Arc::clone(self),
            hash: hash.to_owned(),
            path: self.path(hash),
        };
        if !lease.path.exists() {
            let temporary = self.folder.join(format!("{}.part", uuid::Uuid::new_v4()));
            tokio::fs::copy(module, &temporary).await?;
            tokio::fs::rename(&temporary, &lease.path).await?;
        }
        Ok(lease)
    }

    /// The file of a module that some job runs from.
    pub(crate) fn find(&self, hash: &str) -> Option<PathBuf> {
        let leased = self.leases.lock().contains_key(hash);
        leased.then(|| self.path(hash))
    }

    fn path(&self, hash: &str) -> PathBuf {
        self.folder.join(format!("{hash}.wasm"))
    }
}

/// Keeps a job's module on disk while the job lives.
#[derive(Debug)]
pub(crate) struct BlobLease {
    blobs: Arc<Blobs>,
    /// SHA-256 in hexadecimal.
    pub(crate) hash: String,
    pub(crate) path: PathBuf,
}

impl Drop for BlobLease {
    fn drop(&mut self) {
        let mut leases = self.blobs.leases.lock();
        let Some(count) = leases.get_mut(&self.hash) else {
            return;
        };
        *count -= 1;
        if *count > 0 {
            return;
        }
        leases.remove(&self.hash);
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(path = %self.path.display(), %error, "deleting a module's copy failed");
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_copy_lives_as_long_as_its_last_lease() {
        let dir = tempfile::tempdir().unwrap();
        let module = dir.path().join("upload.wasm");
        std::fs::write(&module, b"module").unwrap();
        let blobs = Arc::new(Blobs::open(dir.path()).await.unwrap());
        let first = blobs.lease("ab", &module).await.unwrap();
        std::fs::remove_file(&module).unwrap();
        let second = blobs.lease("ab", &module).await.unwrap();
        drop(first);
        assert_eq!(std::fs::read(blobs.find("ab").unwrap()).unwrap(), b"module");
        let path = second.path.clone();
        drop(second);
        assert!(!path.exists() && blobs.find("ab").is_none());
    }
}
