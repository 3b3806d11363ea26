//! Starting server processes that never outlive us, and finding places and ports for them.

use std::{
    fs::{self, File},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Signal, kill_process};

/// The folder of the project.
#[must_use]
pub fn project_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .map_or_else(PathBuf::new, Path::to_owned)
}

/// Where build results go.
#[must_use]
pub fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| project_root().join("target"), PathBuf::from)
}

/// A port on the loopback interface that nobody listens on.
///
/// # Errors
///
/// When the system has none.
pub fn free_port() -> anyhow::Result<u16> {
    // Kept a while, so that two calls in a row give two ports.
    static LAST: AtomicU32 = AtomicU32::new(0);
    loop {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        if LAST.swap(u32::from(port), Ordering::Relaxed) != u32::from(port) {
            return Ok(port);
        }
    }
}

/// A folder of our own for the data of a server; those of processes that are gone are removed.
pub(crate) fn data_dir(server: &str) -> anyhow::Result<PathBuf> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let parent = target_dir().join("testkit");
    fs::create_dir_all(&parent)?;
    for entry in fs::read_dir(&parent)?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name
            .rsplit('-')
            .nth(1)
            .and_then(|pid| pid.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            // Another process may be removing it too.
            fs::remove_dir_all(entry.path())
                .or_else(|_| fs::remove_file(entry.path()))
                .ok();
        }
    }
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let dir = parent.join(format!("{server}-{}-{count}", std::process::id()));
    fs::create_dir_all(&dir)?;
    Ok(dir)
}

/// A server process. It is killed when this is dropped, and when our process ends.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    name: &'static str,
    log: PathBuf,
}

impl Server {
    /// Starts `command`, with its output in `log`.
    pub(crate) fn spawn(
        name: &'static str,
        command: &Command,
        log: PathBuf,
    ) -> anyhow::Result<Self> {
        // `setpriv` sets the parent-death signal, which needs unsafe code from within Rust.
        let mut wrapped = Command::new("setpriv");
        wrapped
            .args(["--pdeathsig", "KILL"])
            .arg(command.get_program())
            .args(command.get_args());
        if let Some(dir) = command.get_current_dir() {
            wrapped.current_dir(dir);
        }
        let output = File::options().create(true).append(true).open(&log)?;
        wrapped
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        let child =
            spawn_from_lasting_thread(wrapped).with_context(|| format!("cannot start {name}"))?;
        Ok(Self { child, name, log })
    }

    /// Waits until something listens on the port.
    pub(crate) fn wait_for_port(&mut self, port: u16, limit: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + limit;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            self.check_alive()?;
            ensure!(
                Instant::now() < deadline,
                "{} is not up after {limit:?}; see {}",
                self.name,
                self.log.display()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    pub(crate) fn check_alive(&mut self) -> anyhow::Result<()> {
        let ended = self.child.try_wait()?;
        let log = || fs::read_to_string(&self.log).unwrap_or_default();
        ensure!(
            ended.is_none(),
            "{} ended ({ended:?}):\n{}",
            self.name,
            log()
        );
        Ok(())
    }

    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.context("a process has an id")?, signal)?;
        Ok(())
    }

    /// Waits until the process has ended by itself; kills it when `limit` has passed.
    pub(crate) fn wait_for_end(&mut self, limit: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + limit;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                self.child.kill()?;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The parent-death signal comes when the *thread* ends that started the process, and threads of
/// tests end early: one thread that lasts starts all of them.
fn spawn_from_lasting_thread(command: Command) -> std::io::Result<Child> {
    type Request = (Command, mpsc::Sender<std::io::Result<Child>>);
    static SPAWNER: OnceLock<mpsc::Sender<Request>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, requests) = mpsc::channel::<Request>();
        std::thread::spawn(move || {
            for (mut command, answer) in requests {
                // Whoever asked may be gone; then the child is not wanted either.
                if let Err(mpsc::SendError(Ok(mut child))) = answer.send(command.spawn()) {
                    child.kill().ok();
                }
            }
        });
        sender
    });
    let gone = || std::io::Error::other("the thread that starts processes is gone");
    let (answer, child) = mpsc::channel();
    spawner.send((command, answer)).map_err(|_gone| gone())?;
    child.recv().map_err(|_gone| gone())?
}
