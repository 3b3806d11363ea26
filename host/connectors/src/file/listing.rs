//! Which files there are.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::path::name;
use crate::ConnectorError;

/// More files than this mean that the path was a mistake.
const FILES_MAX: usize = 1_000_000;
/// Folders deeper than this mean a loop.
const DEPTH_MAX: usize = 64;

/// All files at `path`, sorted by name.
pub(super) fn list(path: &Path, recursive: bool) -> Result<Vec<String>, ConnectorError> {
    let failed = |path: &Path, e: &std::io::Error| {
        ConnectorError::invalid(format!("file source: cannot read {}: {e}", path.display()))
    };
    let root = fs::canonicalize(path).map_err(|e| failed(path, &e))?;
    if fs::metadata(&root)
        .map_err(|e| failed(&root, &e))?
        .is_file()
    {
        return Ok(vec![name(&root)?]);
    }
    let mut files = Vec::new();
    let mut folders: Vec<(PathBuf, usize)> = vec![(root, 0)];
    while let Some((folder, depth)) = folders.pop() {
        if depth > DEPTH_MAX {
            let folder = folder.display();
            return Err(ConnectorError::invalid(format!(
                "file source: {folder} lies too deep"
            )));
        }
        for entry in fs::read_dir(&folder).map_err(|e| failed(&folder, &e))? {
            let path = entry.map_err(|e| failed(&folder, &e))?.path();
            if is_hidden(&path) {
                continue;
            }
            // A file that vanished in between was not there.
            let Ok(metadata) = fs::metadata(&path) else {
                continue;
            };
            if metadata.is_dir() && recursive {
                folders.push((path, depth + 1));
            } else if metadata.is_file() {
                files.push(name(&path)?);
            }
        }
        if files.len() > FILES_MAX {
            let path = path.display();
            return Err(ConnectorError::invalid(format!(
                "file source: {path} has more than {FILES_MAX} files"
            )));
        }
    }
    files.sort();
    Ok(files)
}

fn is_hidden(path: &Path) -> bool {
    let name = path
        .file_name()
        .map(std::ffi::OsStr::to_string_lossy)
        .unwrap_or_default();
    name.starts_with('.') || name.starts_with('_')
}
