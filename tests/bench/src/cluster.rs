//! A coordinator, a worker, and jobs on them over REST.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

use crate::process::{PAUSE, Process};

const START_TIMEOUT: Duration = Duration::from_secs(20);
const RUN_TIMEOUT: Duration = Duration::from_secs(600);

/// Both processes.
pub(crate) struct Cluster {
    pub(crate) coordinator: Process,
    pub(crate) worker: Process,
    url: String,
    http: reqwest::Client,
}

/// How long the parts of a start took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StartTimes {
    /// From the start of the coordinator's process until it answers over REST.
    pub(crate) rest: Duration,
    /// From the same moment until the worker, which is started then, offers its slots.
    pub(crate) slots: Duration,
}

impl Cluster {
    /// Starts both with two slots; files go below `dir`.
    pub(crate) async fn start(dir: &Path) -> anyhow::Result<(Self, StartTimes)> {
        let tmp = dir.join("tmp").display().to_string();
        let settings = |more: &[(&str, &str)]| -> Vec<String> {
            let own = [
                ("io.tmp.dirs", tmp.as_str()),
                ("taskmanager.numberOfTaskSlots", "2"),
            ];
            own.iter()
                .chain(more)
                .map(|(key, value)| format!("-D{key}={value}"))
                .collect()
        };
        let mut args = vec!["coordinator".to_owned()];
        args.extend(settings(&[
            ("rest.port", "0"),
            ("jobmanager.rpc.port", "0"),
        ]));
        let mut coordinator = Process::start(&args, dir.join("coordinator.out"))?;
        let url = coordinator.line("REST on ").await?;
        let http = reqwest::Client::new();
        http.get(format!("{url}/overview"))
            .send()
            .await?
            .error_for_status()?;
        let rest = coordinator.age();
        let rpc = coordinator.line("workers connect to ").await?;
        let port = rpc.rsplit(':').next().context("a port")?;
        let mut args = vec!["worker".to_owned()];
        args.extend(settings(&[("jobmanager.rpc.port", port)]));
        let worker = Process::start(&args, dir.join("worker.out"))?;
        let cluster = Self {
            coordinator,
            worker,
            url,
            http,
        };
        while cluster.get("/overview").await?["slots-available"] != 2 {
            ensure!(
                cluster.worker.age() < START_TIMEOUT,
                "the worker does not register"
            );
            tokio::time::sleep(PAUSE).await;
        }
        let slots = cluster.coordinator.age();
        Ok((cluster, StartTimes { rest, slots }))
    }

    /// Stops both.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.worker.stop().await?;
        self.coordinator.stop().await
    }

    /// Reads a resource.
    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        let response = self.http.get(format!("{}{path}", self.url)).send().await?;
        Ok(response.error_for_status()?.json().await?)
    }

    /// Uploads click-event-count; returns the module's id.
    pub(crate) async fn upload(&self) -> anyhow::Result<String> {
        let path = tidemill_testkit::target_dir().join("jobs/click-event-count.wasm");
        let bytes = std::fs::read(&path)
            .with_context(|| format!("cannot read {}; run `make build`", path.display()))?;
        let part = reqwest::multipart::Part::bytes(bytes).file_name("click-event-count.wasm");
        let form = reqwest::multipart::Form::new().part("jarfile", part);
        let request = self
            .http
            .post(format!("{}/jars/upload", self.url))
            .multipart(form);
        let answer: Value = request.send().await?.json().await?;
        let path = answer["filename"]
            .as_str()
            .with_context(|| format!("upload: {answer}"))?;
        Ok(path.rsplit('/').next().unwrap_or(path).to_owned())
    }

    /// Runs a module; returns the job's id.
    pub(crate) async fn run(
        &self,
        module: &str,
        args: &[String],
        parallelism: u32,
        config: &Value,
    ) -> anyhow::Result<String> {
        let body = json!({
            "programArgsList": args,
            "parallelism": parallelism,
            "flinkConfiguration": config,
        });
        let request = self
            .http
            .post(format!("{}/jars/{module}/run", self.url))
            .json(&body);
        let answer: Value = request.send().await?.json().await?;
        let job = answer["jobid"].as_str();
        Ok(job.with_context(|| format!("run: {answer}"))?.to_owned())
    }

    /// Waits until all tasks run.
    pub(crate) async fn wait_running(&self, job: &str) -> anyhow::Result<()> {
        let running = |body: &Value| {
            let vertices = body["vertices"].as_array().map_or(&[][..], Vec::as_slice);
            body["state"] == "RUNNING"
                && vertices.iter().all(|vertex| vertex["status"] == "RUNNING")
        };
        self.wait(job, PAUSE, running).await.map(drop)
    }

    /// Waits until a job has finished; returns its description.
    pub(crate) async fn wait_finished(&self, job: &str) -> anyhow::Result<Value> {
        let pause = Duration::from_millis(100);
        self.wait(job, pause, |body| body["state"] == "FINISHED")
            .await
    }

    /// Cancels a job and waits until it is gone.
    pub(crate) async fn cancel(&self, job: &str) -> anyhow::Result<()> {
        let request = self
            .http
            .patch(format!("{}/jobs/{job}?mode=cancel", self.url));
        request.send().await?.error_for_status()?;
        self.wait(job, PAUSE, |body| body["state"] == "CANCELED")
            .await
            .map(drop)
    }

    async fn wait(
        &self,
        job: &str,
        pause: Duration,
        reached: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<Value> {
        let begin = Instant::now();
        loop {
            let body = self.get(&format!("/jobs/{job}")).await?;
            if reached(&body) {
                return Ok(body);
            }
            if body["state"] == "FAILED" || begin.elapsed() > RUN_TIMEOUT {
                let cause = self.get(&format!("/jobs/{job}/exceptions")).await?;
                bail!("the job is {}: {cause}", body["state"]);
            }
            tokio::time::sleep(pause).await;
        }
    }
}

/// The job's arguments: clicks from datagen, 100 µs of event time apart, results thrown away.
pub(crate) fn click_args(more: &[&str]) -> Vec<String> {
    let own = "--event-time --chaining --source datagen --us-per-record 100 \
               --start-timestamp 1700000000000 --sink blackhole";
    own.split_whitespace()
        .chain(more.iter().copied())
        .map(str::to_owned)
        .collect()
}
