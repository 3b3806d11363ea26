//! Configuration from file and command line, and the directories it names.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use tidemill_types::config::{Config, KeyStatus, keys};

use crate::args::Global;

/// Reads the file, then what `-D` says on top.
pub(crate) fn load(global: &Global) -> anyhow::Result<Config> {
    let mut config = match file(global) {
        Some(path) => read(&path)?,
        None => Config::default(),
    };
    for define in &global.define {
        let Some((key, value)) = define.split_once('=') else {
            bail!("-D {define}: expected KEY=VALUE");
        };
        if config.set(key, value)? == KeyStatus::WithoutMeaning {
            warn_without_meaning(key);
        }
    }
    Ok(config)
}

fn file(global: &Global) -> Option<PathBuf> {
    global.config.clone().or_else(|| {
        let dir = PathBuf::from(std::env::var_os("TIDEMILL_CONF_DIR")?);
        Some(dir.join("config.yaml"))
    })
}

fn read(path: &Path) -> anyhow::Result<Config> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let (config, ignored) =
        Config::parse(&text).with_context(|| format!("in {}", path.display()))?;
    for key in ignored {
        warn_without_meaning(&key);
    }
    Ok(config)
}

fn warn_without_meaning(key: &str) {
    tracing::warn!(
        key,
        "this key of Flink's has no meaning here and is ignored"
    );
}

/// Directories of this process.
#[derive(Debug, Clone)]
pub(crate) struct Directories {
    pub(crate) temporary: PathBuf,
    pub(crate) code_cache: PathBuf,
}

impl Directories {
    /// Creates what does not exist.
    pub(crate) fn create(config: &Config) -> anyhow::Result<Self> {
        let temporary = base(config);
        let code_cache = match config.get(&keys::CODE_CACHE_DIR) {
            dir if dir.is_empty() => temporary.join("code"),
            dir => PathBuf::from(dir),
        };
        create_private(&temporary)?;
        create_private(&code_cache)?;
        Ok(Self {
            temporary,
            code_cache,
        })
    }
}

/// The directory for everything that is not named otherwise.
pub(crate) fn base(config: &Config) -> PathBuf {
    match config.get(&keys::TMP_DIRS) {
        dir if dir.is_empty() => {
            let user = rustix::process::getuid().as_raw();
            std::env::temp_dir().join(format!("tidemill-{user}"))
        }
        dir => PathBuf::from(dir),
    }
}

fn create_private(dir: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(|| format!("cannot create directory {}", dir.display()))
}
