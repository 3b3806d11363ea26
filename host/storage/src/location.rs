//! A place in a store: the store and the prefix, kept together so that neither is forgotten.

use std::{collections::BTreeMap, fmt, ops::Range, path::Path as FilePath, sync::Arc};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::{
    ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload,
    path::{Path, PathPart},
};

use crate::{StorageError, open};

/// The most objects that one listing returns; more means that something was pointed at the wrong
/// place.
const LIST_MAX: usize = 1_000_000;
/// How many objects are deleted at a time.
const DELETES_AT_ONCE: usize = 16;

/// A place in a store. Names of objects are relative to it, with `/` between their parts.
#[derive(Clone)]
pub struct Location {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    uri: String,
    /// What was opened, on the local file system: folders below it that become empty are removed.
    folder: Option<Arc<FilePath>>,
}

/// An object that was found by listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectEntry {
    /// Relative to the location that was listed.
    pub name: String,
    /// In bytes.
    pub size: u64,
    /// When it was written, in milliseconds since the epoch.
    pub modified_ms: i64,
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Location({})", self.uri)
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri)
    }
}

impl Location {
    /// The place that a URI or an absolute path names. Nothing is touched yet.
    ///
    /// `config` is the cluster's configuration; the store takes what concerns it.
    ///
    /// # Errors
    ///
    /// [`StorageError::Refused`] when there is no such kind of place or its settings are wrong.
    pub fn open(uri: &str, config: &BTreeMap<String, String>) -> Result<Self, StorageError> {
        let open::Opened {
            store,
            prefix,
            uri,
            folder,
        } = open::open(uri, config)?;
        Ok(Self {
            store,
            prefix,
            uri,
            folder: folder.map(Arc::from),
        })
    }

    /// The place `name` inside of this one.
    ///
    /// # Errors
    ///
    /// [`StorageError::Refused`] for a name that leads outside.
    pub fn join(&self, name: &str) -> Result<Self, StorageError> {
        Ok(Self {
            store: Arc::clone(&self.store),
            prefix: self.path(name)?,
            uri: self.uri_of(name),
            folder: self.folder.clone(),
        })
    }

    /// The URI, without a slash at its end.
    #[must_use]
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// The URI of an object in it.
    #[must_use]
    pub fn uri_of(&self, name: &str) -> String {
        let name = name.trim_matches('/');
        if name.is_empty() {
            self.uri.clone()
        } else {
            format!("{}/{name}", self.uri)
        }
    }

    /// Writes an object, replacing an older one.
    ///
    /// # Errors
    ///
    /// [`StorageError`] by what can be done.
    pub async fn put(&self, name: &str, bytes: impl Into<Bytes>) -> Result<(), StorageError> {
        self.put_with(name, bytes.into(), PutMode::Overwrite).await
    }

    /// Writes an object that must not exist.
    ///
    /// # Errors
    ///
    /// [`StorageError::AlreadyExists`] if it does.
    pub async fn put_if_absent(
        &self,
        name: &str,
        bytes: impl Into<Bytes>,
    ) -> Result<(), StorageError> {
        self.put_with(name, bytes.into(), PutMode::Create).await
    }

    async fn put_with(&self, name: &str, bytes: Bytes, mode: PutMode) -> Result<(), StorageError> {
        let path = self.path(name)?;
        let options = PutOptions {
            mode,
            ..PutOptions::default()
        };
        let payload = PutPayload::from_bytes(bytes);
        let first = self
            .store
            .put_opts(&path, payload.clone(), options.clone())
            .await;
        let result = match first {
            // A local folder can be cleaned up just between its creation and its first file.
            Err(object_store::Error::NotFound { .. }) => {
                self.store.put_opts(&path, payload, options).await
            }
            other => other,
        };
        result.map(drop).map_err(|e| self.error("write", name, &e))
    }

    /// Reads an object.
    ///
    /// # Errors
    ///
    /// [`StorageError::NotFound`] if there is none.
    pub async fn get(&self, name: &str) -> Result<Bytes, StorageError> {
        let path = self.path(name)?;
        let read = async { self.store.get(&path).await?.bytes().await };
        read.await.map_err(|e| self.error("read", name, &e))
    }

    /// Reads a part of an object.
    ///
    /// # Errors
    ///
    /// [`StorageError::NotFound`] if there is no such object.
    pub async fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, StorageError> {
        let path = self.path(name)?;
        self.store
            .get_range(&path, range)
            .await
            .map_err(|e| self.error("read", name, &e))
    }

    /// The size of an object, or `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`StorageError`] when that cannot be found out.
    pub async fn size(&self, name: &str) -> Result<Option<u64>, StorageError> {
        let path = self.path(name)?;
        match self.store.head(&path).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(self.error("look at", name, &e)),
        }
    }

    /// All objects below `under` (everything, if that is empty), sorted by name.
    ///
    /// # Errors
    ///
    /// [`StorageError`] when they cannot be listed.
    pub async fn list(&self, under: &str) -> Result<Vec<ObjectEntry>, StorageError> {
        let path = self.path(under)?;
        let mut found = self.store.list(Some(&path));
        let mut entries = Vec::new();
        while let Some(meta) = found.next().await {
            let meta = meta.map_err(|e| self.error("list", under, &e))?;
            if entries.len() >= LIST_MAX {
                let uri = self.uri_of(under);
                return Err(StorageError::Refused(format!(
                    "{uri} has more than {LIST_MAX} objects"
                )));
            }
            if let Some(name) = self.relative(&meta.location) {
                let modified_ms = meta.last_modified.timestamp_millis();
                entries.push(ObjectEntry {
                    name,
                    size: meta.size,
                    modified_ms,
                });
            }
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// The names of the folders directly below `under`, relative to it, sorted.
    ///
    /// # Errors
    ///
    /// [`StorageError`] when they cannot be listed.
    pub async fn folders(&self, under: &str) -> Result<Vec<String>, StorageError> {
        let path = self.path(under)?;
        let listed = self.store.list_with_delimiter(Some(&path)).await;
        let listed = listed.map_err(|e| self.error("list", under, &e))?;
        let mut names: Vec<String> = listed
            .common_prefixes
            .iter()
            .filter_map(|folder| folder.filename().map(str::to_owned))
            .collect();
        names.sort();
        Ok(names)
    }

    /// Deletes an object; that it does not exist is no error.
    ///
    /// # Errors
    ///
    /// [`StorageError`] when it may still be there.
    pub async fn delete(&self, name: &str) -> Result<(), StorageError> {
        let path = self.path(name)?;
        match self.store.delete(&path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {
                self.remove_empty_folders(path).await;
                Ok(())
            }
            Err(e) => Err(self.error("delete", name, &e)),
        }
    }

    /// Object stores have no folders; the local file system's would stay behind, one for each
    /// checkpoint.
    async fn remove_empty_folders(&self, deleted: Path) {
        let Some(root) = self.folder.clone() else {
            return;
        };
        let remove = move || {
            let file = FilePath::new("/").join(deleted.as_ref());
            let below_root = |folder: &&FilePath| folder.starts_with(&root) && **folder != *root;
            for folder in file.ancestors().skip(1).take_while(below_root) {
                if std::fs::remove_dir(folder).is_err() {
                    break; // It is not empty.
                }
            }
        };
        if let Err(error) = tokio::task::spawn_blocking(remove).await {
            tracing::warn!(%error, "removing empty folders failed");
        }
    }

    /// Deletes all objects below `under`, which must not be empty.
    ///
    /// # Errors
    ///
    /// [`StorageError`] when some may still be there.
    pub async fn delete_all(&self, under: &str) -> Result<(), StorageError> {
        if under.trim_matches('/').is_empty() {
            let text = format!("refusing to delete everything in {}", self.uri);
            return Err(StorageError::Refused(text));
        }
        let entries = self.list(under).await?;
        futures::stream::iter(
            entries
                .into_iter()
                .map(|entry| async move { self.delete(&entry.name).await }),
        )
        .buffer_unordered(DELETES_AT_ONCE)
        .try_collect()
        .await
    }

    /// Finds out whether objects can be written here, by writing one and deleting it.
    ///
    /// # Errors
    ///
    /// [`StorageError`] says why not.
    pub async fn check_writable(&self) -> Result<(), StorageError> {
        static COUNTER: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let count = COUNTER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!(".tidemill-probe-{}-{count}", std::process::id());
        self.put(&name, Bytes::from_static(b"may be deleted"))
            .await?;
        self.delete(&name).await
    }

    /// The full path of a name.
    fn path(&self, name: &str) -> Result<Path, StorageError> {
        let mut path = self.prefix.clone();
        for part in name.split('/').filter(|part| !part.is_empty()) {
            let part = PathPart::parse(part).map_err(|_invalid| {
                let name = name.escape_debug();
                StorageError::Refused(format!("\"{name}\" is not a name for an object"))
            })?;
            path = path.join(part);
        }
        Ok(path)
    }

    /// The name of a full path, if it is inside.
    fn relative(&self, path: &Path) -> Option<String> {
        let parts: Vec<_> = path
            .prefix_match(&self.prefix)?
            .map(|p| p.as_ref().to_owned())
            .collect();
        Some(parts.join("/"))
    }

    fn error(&self, action: &str, name: &str, error: &object_store::Error) -> StorageError {
        StorageError::sort(action, self.uri_of(name), error)
    }
}
