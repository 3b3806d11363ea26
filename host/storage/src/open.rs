//! From a URI to a store and the prefix in it.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Component, Path as FilePath, PathBuf},
    sync::{Arc, OnceLock},
};

use object_store::{ObjectStore, local::LocalFileSystem, memory::InMemory, path::Path};
use parking_lot::Mutex;
use url::Url;

use crate::{StorageError, s3};

/// A store and where in it a URI points.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) prefix: Path,
    /// The URI, without a slash at its end.
    pub(crate) uri: String,
    /// The folder, if the store is the local file system.
    pub(crate) folder: Option<PathBuf>,
}

pub(crate) fn open(uri: &str, config: &BTreeMap<String, String>) -> Result<Opened, StorageError> {
    if uri.starts_with('/') {
        return open_local(FilePath::new(uri));
    }
    let refused = |text: String| StorageError::Refused(format!("the location \"{uri}\" {text}"));
    let url = Url::parse(uri).map_err(|e| {
        refused(format!(
            "is neither an absolute path nor a URI such as file:///dir ({e})"
        ))
    })?;
    match url.scheme() {
        "file" => {
            let path = url.to_file_path().map_err(|()| {
                refused("names a host; a local path is written file:///dir".to_owned())
            })?;
            open_local(&path)
        }
        "s3" | "s3a" => {
            let bucket = url
                .host_str()
                .ok_or_else(|| refused("names no bucket".to_owned()))?;
            let store =
                s3::open(bucket, config).map_err(|e| refused(format!("cannot be used: {e}")))?;
            Ok(Opened {
                store,
                prefix: prefix_of(&url)?,
                uri: without_slash(uri),
                folder: None,
            })
        }
        "memory" => Ok(Opened {
            store: memory(url.host_str().unwrap_or_default()),
            prefix: prefix_of(&url)?,
            uri: without_slash(uri),
            folder: None,
        }),
        scheme @ ("hdfs" | "gs" | "abfs" | "abfss" | "wasb" | "wasbs" | "oss" | "alluxio") => {
            Err(refused(format!(
                "is on {scheme}, which this version does not support yet; use file:// or s3://"
            )))
        }
        scheme => Err(refused(format!(
            "has the unknown scheme {scheme}; use file:// or s3://"
        ))),
    }
}

fn without_slash(uri: &str) -> String {
    uri.trim_end_matches('/').to_owned()
}

fn prefix_of(url: &Url) -> Result<Path, StorageError> {
    Path::from_url_path(url.path())
        .map_err(|e| StorageError::Refused(format!("the location \"{url}\" has a bad path: {e}")))
}

fn open_local(path: &FilePath) -> Result<Opened, StorageError> {
    let name = path.display();
    if path
        .components()
        .any(|part| matches!(part, Component::ParentDir))
    {
        return Err(StorageError::Refused(format!(
            "the path \"{name}\" contains \"..\""
        )));
    }
    let prefix = Path::from_absolute_path(path)
        .map_err(|e| StorageError::Refused(format!("the path \"{name}\" cannot be used: {e}")))?;
    // Checkpoints rely on what was written being on the disk.
    let store = LocalFileSystem::new().with_fsync(true);
    let uri = without_slash(&format!("file://{name}"));
    Ok(Opened {
        store: Arc::new(store),
        prefix,
        uri,
        folder: Some(path.to_owned()),
    })
}

/// The store of that name in this process.
fn memory(name: &str) -> Arc<dyn ObjectStore> {
    static STORES: OnceLock<Mutex<HashMap<String, Arc<InMemory>>>> = OnceLock::new();
    let mut stores = STORES.get_or_init(Mutex::default).lock();
    let store = stores.entry(name.to_owned()).or_default();
    Arc::clone(store) as Arc<dyn ObjectStore>
}
