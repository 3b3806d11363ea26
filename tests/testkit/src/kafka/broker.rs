//! The broker's process: Apache Kafka from Maven Central, broker and controller in one (KRaft).

use std::{fs, path::PathBuf, process::Command, sync::OnceLock, time::Duration};

use anyhow::{Context as _, ensure};
use parking_lot::Mutex;
use rustix::process::Signal;

use crate::process::{Server, data_dir, free_port, project_root, target_dir};

/// Any 16 bytes in base64 are an id for a cluster.
const CLUSTER_ID: &str = "dGlkZW1pbGwtdGVzdC0wMQ";
/// A cold machine with one core needs long.
const START_MAX: Duration = Duration::from_secs(90);
const STOP_MAX: Duration = Duration::from_secs(20);
/// Start-up counts, long-run speed does not.
const JVM: [&str; 4] = [
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Xshare:auto",
];

#[derive(Debug)]
pub(super) struct Broker {
    port: u16,
    dir: PathBuf,
    libs: PathBuf,
    server: Option<Server>,
}

impl Broker {
    pub(super) fn start() -> anyhow::Result<Self> {
        let libs = fetch()?;
        let (port, controller) = (free_port()?, free_port()?);
        let dir = data_dir("kafka")?;
        fs::write(
            dir.join("server.properties"),
            properties(port, controller, &dir),
        )?;
        fs::write(dir.join("log4j2.properties"), LOGGING)?;
        let mut broker = Self {
            port,
            dir,
            libs,
            server: None,
        };
        let output = broker
            .java(
                "kafka.tools.StorageTool",
                &["format", "-t", CLUSTER_ID, "-c"],
            )
            .arg(broker.dir.join("server.properties"))
            .output()
            .context("java is needed to run Kafka")?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(
            output.status.success(),
            "formatting Kafka's storage: {text}"
        );
        broker.start_again()?;
        Ok(broker)
    }

    pub(super) fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(super) fn start_again(&mut self) -> anyhow::Result<()> {
        let mut command = self.java("kafka.Kafka", &[]);
        command.arg(self.dir.join("server.properties"));
        let mut server = Server::spawn("kafka", &command, self.dir.join("broker.log"))?;
        server.wait_for_port(self.port, START_MAX)?;
        self.server = Some(server);
        Ok(())
    }

    pub(super) fn stop(&mut self) -> anyhow::Result<()> {
        let mut server = self.server.take().context("the broker is not running")?;
        server.signal(Signal::TERM)?;
        server.wait_for_end(STOP_MAX)
    }

    pub(super) fn kill(&mut self) -> anyhow::Result<()> {
        self.server
            .take()
            .map(drop)
            .context("the broker is not running")
    }

    pub(super) fn freeze(&mut self, freeze: bool) -> anyhow::Result<()> {
        let server = self.server.as_ref().context("the broker is not running")?;
        server.signal(if freeze { Signal::STOP } else { Signal::CONT })
    }

    fn java(&self, class: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("java");
        command.args(JVM);
        command.arg(format!(
            "-Dlog4j2.configurationFile={}",
            self.dir.join("log4j2.properties").display()
        ));
        command
            .arg("-cp")
            .arg(self.libs.join("*"))
            .arg(class)
            .args(arguments);
        command.current_dir(&self.dir);
        command
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.server = None;
        // What stays behind is removed by the next process.
        fs::remove_dir_all(&self.dir).ok();
    }
}

const LOGGING: &str = "\
rootLogger.level = WARN
rootLogger.appenderRef.console.ref = console
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d %p %c{1}: %m%n
";

fn properties(port: u16, controller: u16, dir: &std::path::Path) -> String {
    format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
log.dirs={}
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.max.timeout.ms=900000
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
log.segment.bytes=67108864
",
        dir.join("data").display()
    )
}

/// The folder with Kafka's libraries.
fn fetch() -> anyhow::Result<PathBuf> {
    static ONE_AT_A_TIME: OnceLock<Mutex<()>> = OnceLock::new();
    let _guard = ONE_AT_A_TIME.get_or_init(Mutex::default).lock();
    let libs = target_dir().join("kafka/libs");
    if libs.exists() {
        return Ok(libs);
    }
    let partial = target_dir().join(format!("kafka/libs-{}", std::process::id()));
    fs::create_dir_all(&partial)?;
    let output = Command::new("mvn")
        .args([
            "-q",
            "-B",
            "dependency:copy-dependencies",
            "-DincludeScope=runtime",
        ])
        .arg(format!("-DoutputDirectory={}", partial.display()))
        .arg("-f")
        .arg(project_root().join("tests/kafka/pom.xml"))
        .output()
        .context("mvn is needed to fetch Kafka")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "fetching Kafka from Maven Central: {text}"
    );
    if fs::rename(&partial, &libs).is_err() {
        // Another process was faster.
        fs::remove_dir_all(&partial)?;
    }
    Ok(libs)
}
