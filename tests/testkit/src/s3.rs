//! An S3 server (`s3s-fs`), with one bucket.

use std::{
    collections::BTreeMap, fs, path::PathBuf, process::Command, sync::OnceLock, time::Duration,
};

use anyhow::ensure;
use parking_lot::Mutex;

use crate::process::{Server, data_dir, free_port, target_dir};

const VERSION: &str = "0.14.1";
const BUCKET: &str = "test-bucket";

/// An S3 server of one's own.
#[derive(Debug)]
pub struct S3 {
    port: u16,
    dir: PathBuf,
    _server: Server,
}

impl S3 {
    /// Starts a server; installs it first if need be.
    ///
    /// # Errors
    ///
    /// When it cannot be installed or does not come up.
    pub async fn start() -> anyhow::Result<Self> {
        tokio::task::spawn_blocking(|| {
            let binary = install()?;
            let port = free_port()?;
            let dir = data_dir("s3")?;
            fs::create_dir_all(dir.join(BUCKET))?;
            let mut command = Command::new(binary);
            command.args([
                "--access-key",
                "key",
                "--secret-key",
                "secret",
                "--host",
                "127.0.0.1",
            ]);
            command.arg("--port").arg(port.to_string()).arg(&dir);
            let mut server = Server::spawn("s3s-fs", &command, dir.with_extension("log"))?;
            server.wait_for_port(port, Duration::from_secs(20))?;
            Ok(Self {
                port,
                dir,
                _server: server,
            })
        })
        .await?
    }

    /// The bucket that exists.
    #[must_use]
    pub const fn bucket(&self) -> &'static str {
        BUCKET
    }

    /// The folder in which the server keeps the bucket.
    #[must_use]
    pub fn bucket_dir(&self) -> PathBuf {
        self.dir.join(BUCKET)
    }

    /// The configuration with which it is reached.
    #[must_use]
    pub fn config(&self) -> BTreeMap<String, String> {
        let endpoint = format!("http://127.0.0.1:{}", self.port);
        [
            ("s3.endpoint", endpoint.as_str()),
            ("s3.access-key", "key"),
            ("s3.secret-key", "secret"),
            ("s3.path.style.access", "true"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        // What stays behind is removed by the next process.
        fs::remove_dir_all(&self.dir).ok();
    }
}

/// The path of the server's binary.
fn install() -> anyhow::Result<PathBuf> {
    static ONE_AT_A_TIME: OnceLock<Mutex<()>> = OnceLock::new();
    let _guard = ONE_AT_A_TIME.get_or_init(Mutex::default).lock();
    let root = target_dir().join("tools");
    let binary = root.join("bin/s3s-fs");
    if !binary.exists() {
        let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .args([
                "install",
                "s3s-fs",
                "--version",
                VERSION,
                "--features",
                "binary",
                "--root",
            ])
            .arg(&root)
            .arg("--target-dir")
            .arg(root.join("build"))
            .status()?;
        ensure!(status.success(), "cargo install s3s-fs: {status}");
    }
    Ok(binary)
}
