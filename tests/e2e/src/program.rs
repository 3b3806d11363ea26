//! The `tidemill` binary as a process: started, watched, signalled, and never left behind.

use std::{
    fs::File,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use tidemill_testkit::{eventually, wait_until};

use crate::binary;

/// A process of the binary under test. It is killed when this is dropped.
#[derive(Debug)]
pub struct Program {
    child: Child,
    out: PathBuf,
    log: PathBuf,
}

/// How a process ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to standard output.
    pub out: String,
    /// What it wrote to standard error.
    pub log: String,
}

impl Program {
    /// Starts the binary. Standard output goes to `<files>.out`, standard error to `<files>.log`.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub fn start(args: &[String], files: &Path) -> anyhow::Result<Self> {
        let (out, log) = (files.with_extension("out"), files.with_extension("log"));
        let mut command = Command::new(binary());
        command
            .args(args)
            .stdin(Stdio::null())
            .stdout(File::create(&out)?)
            .stderr(File::create(&log)?)
            // Not ended by a Ctrl-C that is meant for the tests, before they clean up.
            .process_group(0);
        let child = command.spawn().context("cannot start tidemill")?;
        Ok(Self { child, out, log })
    }

    /// Runs the binary to its end.
    ///
    /// # Errors
    ///
    /// If it does not end in time.
    pub async fn run(args: &[&str], dir: &Path, limit: Duration) -> anyhow::Result<Ended> {
        let number = std::fs::read_dir(dir)?.count();
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let mut program = Self::start(&args, &dir.join(format!("{number:03}-command")))?;
        program
            .ended(limit)
            .await
            .with_context(|| format!("tidemill {args:?}"))
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has not ended.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()));
        stat.is_ok_and(|stat| !stat.contains(") Z "))
    }

    /// Sends it a signal.
    ///
    /// # Errors
    ///
    /// If it has ended.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.context("a process has an id")?, signal)?;
        Ok(())
    }

    /// What it has written to standard output so far.
    #[must_use]
    pub fn out(&self) -> String {
        std::fs::read_to_string(&self.out).unwrap_or_default()
    }

    /// What it has written to standard error so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits for a line of standard output that begins like this; returns the rest of it.
    ///
    /// # Errors
    ///
    /// If it does not come in time.
    pub async fn wait_for_line(&self, start: &str, limit: Duration) -> anyhow::Result<String> {
        let what = format!("a line that begins with \"{start}\"");
        let found = eventually(limit, &what, || {
            let out = self.out();
            // The last piece may be half a line.
            let lines = out
                .split_inclusive('\n')
                .filter_map(|line| line.strip_suffix('\n'));
            let found = lines.filter_map(|line| line.strip_prefix(start)).next();
            let found = found.map(|rest| rest.trim().to_owned());
            async move { found }
        });
        found
            .await
            .with_context(|| format!("{}\n{}", self.out(), self.log()))
    }

    /// Waits for its end.
    ///
    /// # Errors
    ///
    /// If it does not end in time.
    pub async fn ended(&mut self, limit: Duration) -> anyhow::Result<Ended> {
        let child = &mut self.child;
        let mut status = None;
        let waited = wait_until(limit, "the end of the process", || {
            status = child.try_wait().ok().flatten();
            let ended = status.is_some();
            async move { ended }
        });
        let waited = waited.await;
        waited.with_context(|| format!("{}\n{}", self.out(), self.log()))?;
        let code = status.and_then(|status| status.code());
        Ok(Ended {
            code,
            out: self.out(),
            log: self.log(),
        })
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
