//! A client of the REST API.

use std::path::Path;

use anyhow::{Context, bail};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tidemill_types::config::{Config, keys};

/// Talks to one coordinator.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    base: String,
    http: reqwest::Client,
}

/// A job, as `/jobs/overview` lists it.
#[derive(Debug, Deserialize)]
pub(crate) struct JobOverview {
    pub(crate) jid: String,
    pub(crate) name: String,
    pub(crate) state: String,
    #[serde(rename = "start-time")]
    pub(crate) start_time: i64,
}

/// How to run a module.
#[derive(Debug, Default)]
pub(crate) struct RunOptions {
    pub(crate) args: Vec<String>,
    pub(crate) parallelism: Option<u32>,
    pub(crate) savepoint_path: Option<String>,
    pub(crate) allow_non_restored_state: bool,
    pub(crate) config: Vec<(String, String)>,
}

impl Client {
    /// A client of the given address, or of the configured one.
    pub(crate) fn new(address: Option<&str>, config: &Config) -> Self {
        let base = match address {
            Some(url) if url.starts_with("http://") || url.starts_with("https://") => {
                url.trim_end_matches('/').to_owned()
            }
            Some(address) => format!("http://{address}"),
            None => format!(
                "http://{}:{}",
                config.get(&keys::REST_ADDRESS),
                config.get(&keys::REST_PORT)
            ),
        };
        Self {
            base,
            http: reqwest::Client::new(),
        }
    }

    /// Uploads a module; returns its id.
    async fn upload(&self, file: &Path) -> anyhow::Result<String> {
        let bytes = tokio::fs::read(file)
            .await
            .with_context(|| format!("cannot read module {}", file.display()))?;
        let name = file
            .file_name()
            .map_or_else(String::new, |n| n.to_string_lossy().into_owned());
        let part = reqwest::multipart::Part::bytes(bytes).file_name(name);
        let form = reqwest::multipart::Form::new().part("jarfile", part);
        let request = self.http.post(self.url("/v1/jars/upload")).multipart(form);
        let answer: Value = self.send(request).await?;
        let path = answer["filename"]
            .as_str()
            .context("the upload was not answered as expected")?;
        Ok(path.rsplit('/').next().unwrap_or(path).to_owned())
    }

    /// Runs an uploaded module; returns the job's id.
    async fn run(&self, module: &str, options: RunOptions) -> anyhow::Result<String> {
        let config: serde_json::Map<String, Value> = options
            .config
            .into_iter()
            .map(|(key, value)| (key, Value::String(value)))
            .collect();
        let mut body = json!({
            "programArgsList": options.args,
            "allowNonRestoredState": options.allow_non_restored_state,
            "flinkConfiguration": config,
        });
        if let Some(parallelism) = options.parallelism {
            body["parallelism"] = json!(parallelism);
        }
        if let Some(path) = options.savepoint_path {
            body["savepointPath"] = json!(path);
        }
        let request = self
            .http
            .post(self.url(&format!("/v1/jars/{module}/run")))
            .json(&body);
        let answer: Value = self.send(request).await?;
        Ok(answer["jobid"]
            .as_str()
            .context("the run was not answered with a job id")?
            .to_owned())
    }

    /// Forgets an uploaded module. Jobs that run it keep their own copy.
    async fn delete(&self, module: &str) -> anyhow::Result<()> {
        let request = self.http.delete(self.url(&format!("/v1/jars/{module}")));
        let _: Value = self.send(request).await?;
        Ok(())
    }

    /// Uploads a module, runs it, and forgets it; returns the job's id.
    pub(crate) async fn submit(&self, file: &Path, options: RunOptions) -> anyhow::Result<String> {
        let module = self.upload(file).await?;
        let job = self.run(&module, options).await;
        if let Err(error) = self.delete(&module).await {
            tracing::debug!(%error, "the uploaded module is left behind");
        }
        job
    }

    /// All jobs.
    pub(crate) async fn jobs(&self) -> anyhow::Result<Vec<JobOverview>> {
        #[derive(Deserialize)]
        struct Answer {
            jobs: Vec<JobOverview>,
        }
        let answer: Answer = self.get("/v1/jobs/overview").await?;
        Ok(answer.jobs)
    }

    /// The state of a job.
    pub(crate) async fn status(&self, job: &str) -> anyhow::Result<String> {
        let answer: Value = self.get(&format!("/v1/jobs/{job}/status")).await?;
        Ok(answer["status"].as_str().unwrap_or_default().to_owned())
    }

    /// Why a job failed, if it did.
    pub(crate) async fn cause(&self, job: &str) -> anyhow::Result<Option<String>> {
        let answer: Value = self.get(&format!("/v1/jobs/{job}/exceptions")).await?;
        let first = &answer["exceptionHistory"]["entries"][0]["stacktrace"];
        Ok(first.as_str().map(ToOwned::to_owned))
    }

    /// Cancels a job.
    pub(crate) async fn cancel(&self, job: &str) -> anyhow::Result<()> {
        let request = self
            .http
            .patch(self.url(&format!("/v1/jobs/{job}?mode=cancel")));
        let _: Value = self.send(request).await?;
        Ok(())
    }

    /// Reads a resource.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.send(self.http.get(self.url(path))).await
    }

    /// Whether a job has ended, by its state.
    pub(crate) fn is_final(state: &str) -> bool {
        matches!(state, "FINISHED" | "FAILED" | "CANCELED")
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    async fn send<T: DeserializeOwned>(
        &self,
        request: reqwest::RequestBuilder,
    ) -> anyhow::Result<T> {
        let response = request.send().await.map_err(|error| {
            let reason = if error.is_connect() {
                "connection refused"
            } else {
                "no answer"
            };
            anyhow::anyhow!("cannot reach a coordinator at {}: {reason}", self.base)
        })?;
        let status = response.status();
        let text = response.text().await?;
        if status.is_success() {
            return serde_json::from_str(&text)
                .with_context(|| format!("{} did not answer as a coordinator does", self.base));
        }
        #[derive(Deserialize)]
        struct Failure {
            errors: Vec<String>,
        }
        match serde_json::from_str::<Failure>(&text) {
            Ok(failure) => bail!("{}", failure.errors.join("; ")),
            Err(_) => bail!("{} answered {status}", self.base),
        }
    }
}
