//! A process of the cluster, and what the kernel knows of it.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};

const LINE_TIMEOUT: Duration = Duration::from_secs(20);
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// The unit of times in `/proc/PID/stat`: Linux shows a hundredth of a second to programs, whatever
/// it counts in itself.
const TICKS_PER_SECOND: f64 = 100.0;
/// Short against everything that is measured by looking again and again.
pub(crate) const PAUSE: Duration = Duration::from_millis(1);

/// A running `tidemill`. Killed when dropped.
pub(crate) struct Process {
    child: Child,
    output: PathBuf,
    started: Instant,
}

/// What a process holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Footprint {
    /// Resident memory in MB, pages shared with others included.
    pub(crate) rss_mb: f64,
    /// The same with shared pages divided among those who share them.
    pub(crate) pss_mb: f64,
    /// Threads.
    pub(crate) threads: usize,
}

impl Process {
    /// Starts `tidemill` with arguments; its output goes to `output`.
    pub(crate) fn start(args: &[String], output: PathBuf) -> anyhow::Result<Self> {
        let binary = tidemill_testkit::target_dir().join("release/tidemill");
        let log = File::create(output.with_extension("log"))?;
        let child = Command::new(&binary)
            .args(args)
            .stdin(Stdio::null())
            .stdout(File::create(&output)?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}; run `make build`", binary.display()))?;
        Ok(Self {
            child,
            output,
            started: Instant::now(),
        })
    }

    /// How long ago it was started.
    pub(crate) fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Waits for a line of its output that begins so; returns the rest of that line.
    pub(crate) async fn line(&mut self, begin: &str) -> anyhow::Result<String> {
        loop {
            let text = fs::read_to_string(&self.output)?;
            let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
            if let Some(line) = whole.lines().find_map(|line| line.strip_prefix(begin)) {
                return Ok(line.to_owned());
            }
            if self.child.try_wait()?.is_some() || self.age() > LINE_TIMEOUT {
                let log = fs::read_to_string(self.output.with_extension("log"))?;
                bail!("\"{begin}\" was not printed; the log says:\n{log}");
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// CPU seconds it has used, in user and kernel mode. Children do not count.
    pub(crate) fn cpu_seconds(&self) -> anyhow::Result<f64> {
        let stat = fs::read_to_string(self.proc().join("stat"))?;
        // The name in parentheses may hold anything; fields 14 and 15 are counted from its end.
        let (_, fields) = stat.rsplit_once(") ").context("a line of /proc/PID/stat")?;
        let mut fields = fields.split(' ').skip(11).map(str::parse::<u32>);
        let (user, kernel) = (
            fields.next().context("user")??,
            fields.next().context("kernel")??,
        );
        Ok(f64::from(user + kernel) / TICKS_PER_SECOND)
    }

    /// Memory and threads.
    pub(crate) fn footprint(&self) -> anyhow::Result<Footprint> {
        let rollup = fs::read_to_string(self.proc().join("smaps_rollup"))?;
        let mb = |name: &str| -> anyhow::Result<f64> {
            let line = rollup.lines().find_map(|line| line.strip_prefix(name));
            let kb = line.and_then(|line| line.trim().strip_suffix(" kB"));
            Ok(kb
                .with_context(|| format!("{name} in smaps_rollup"))?
                .parse::<f64>()?
                / 1024.0)
        };
        Ok(Footprint {
            rss_mb: mb("Rss:")?,
            pss_mb: mb("Pss:")?,
            threads: fs::read_dir(self.proc().join("task"))?.count(),
        })
    }

    /// Asks it to stop and waits for that.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.context("a process id")?, Signal::TERM)?;
        let asked = Instant::now();
        while self.child.try_wait()?.is_none() && asked.elapsed() < STOP_TIMEOUT {
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    fn proc(&self) -> PathBuf {
        Path::new("/proc").join(self.child.id().to_string())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
