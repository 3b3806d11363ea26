//! Where files are.

use std::path::{Path, PathBuf};

use crate::{ConnectorError, options::OptionReader};

/// The option `path`.
pub(super) fn read(reader: &mut OptionReader<'_>) -> Result<PathBuf, ConnectorError> {
    let text = reader.required("path")?;
    match text.split_once(':') {
        Some(("file", _)) => {
            let url = url::Url::parse(text).ok();
            url.and_then(|url| url.to_file_path().ok()).ok_or_else(|| {
                reader.invalid(&format!(
                    "`path` is \"{text}\"; a local path is written file:///dir"
                ))
            })
        }
        Some((scheme, rest)) if rest.starts_with("//") => Err(reader.invalid(&format!(
            "`path` is on {scheme}, which this version does not support yet; use a local path"
        ))),
        _ => Ok(PathBuf::from(text)),
    }
}

/// The path as text, which names a split.
pub(super) fn name(path: &Path) -> Result<String, ConnectorError> {
    path.to_str().map(str::to_owned).ok_or_else(|| {
        ConnectorError::invalid(format!(
            "file source: the name {} is not UTF-8; rename it",
            path.display()
        ))
    })
}
