//! One planner process: a question in, an answer out.

use std::{ffi::OsString, io, process::Stdio};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::Command,
};

use crate::{Answer, PlanError, PlannerConfig, Request};

/// The longest answer: a graph of the largest permitted size, as JSON.
const ANSWER_BYTES_MAX: u64 = 64 << 20;
/// How much of what a dying process says is kept.
const STDERR_BYTES_MAX: u64 = 8 << 10;

/// Starts a process and asks it. The process is killed when the future is dropped.
pub(crate) async fn ask(config: &PlannerConfig, request: &Request) -> Result<Answer, PlanError> {
    let fail = |source| PlanError::Io {
        program: config.program.clone(),
        source,
    };
    let question = serde_json::to_vec(request).map_err(|error| fail(error.into()))?;
    let mut child = Command::new(&config.program)
        .args(&config.args)
        // It runs what strangers wrote, and needs nothing of what the environment may hold.
        .env_clear()
        .envs(kept_environment())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(fail)?;
    let mut stdin = child.stdin.take().expect("stdin is piped");
    let stdout = child.stdout.take().expect("stdout is piped");
    let stderr = child.stderr.take().expect("stderr is piped");
    let asked = async move {
        // A process that dies early is reported by its status, not by the broken pipe.
        let written = stdin.write_all(&question).await;
        drop(stdin);
        written.or_else(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Ok(()),
            _ => Err(error),
        })
    };
    let (asked, answer, complaint) = tokio::join!(
        asked,
        read(stdout, ANSWER_BYTES_MAX),
        read(stderr, STDERR_BYTES_MAX)
    );
    asked.map_err(fail)?;
    let (answer, complaint) = (answer.map_err(fail)?, complaint.map_err(fail)?);
    let status = child.wait().await.map_err(fail)?;
    match serde_json::from_slice(&answer) {
        Ok(answer) if status.success() => Ok(answer),
        _ => Err(PlanError::Crashed {
            status,
            stderr: printable(&complaint),
        }),
    }
}

/// Where libraries and certificates are, for the preflight check.
const KEPT: [&str; 4] = [
    "LD_LIBRARY_PATH",
    "RUST_BACKTRACE",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
];

fn kept_environment() -> impl Iterator<Item = (&'static str, OsString)> {
    KEPT.into_iter()
        .filter_map(|name| Some((name, std::env::var_os(name)?)))
}

async fn read(stream: impl AsyncRead + Unpin, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.take(limit).read_to_end(&mut bytes).await?;
    Ok(bytes)
}

fn printable(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.trim()
        .chars()
        .filter(|c| !c.is_control() || *c == '\n')
        .collect()
}
