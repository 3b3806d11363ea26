//! The REST API, as a test sees it.

use std::{path::Path, time::Duration};

use anyhow::{Context, bail};
use serde_json::{Value, json};
use tidemill_testkit::wait_until;

/// A coordinator's REST API.
#[derive(Debug, Clone)]
pub struct Rest {
    /// `http://host:port`.
    pub url: String,
    http: reqwest::Client,
}

impl Rest {
    /// At an address.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            http: reqwest::Client::new(),
        }
    }

    /// GET, with any status.
    ///
    /// # Errors
    ///
    /// If nobody answers with JSON.
    pub async fn get_any(&self, path: &str) -> anyhow::Result<(u16, Value)> {
        let response = self.http.get(format!("{}{path}", self.url)).send().await?;
        Ok((response.status().as_u16(), response.json().await?))
    }

    /// Any request with any body and any status.
    ///
    /// # Errors
    ///
    /// If nobody answers with JSON.
    pub async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> anyhow::Result<(u16, Value)> {
        let method = reqwest::Method::from_bytes(method.as_bytes())?;
        let mut request = self
            .http
            .request(method, format!("{}{path}", self.url))
            .body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await?;
        let status = response.status().as_u16();
        let text = response.text().await?;
        let json = serde_json::from_str(&text).with_context(|| format!("{status}: {text}"))?;
        Ok((status, json))
    }

    /// GET, which must succeed.
    ///
    /// # Errors
    ///
    /// If it does not.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        match self.get_any(path).await? {
            (200..=299, body) => Ok(body),
            (status, body) => bail!("GET {path}: {status} {body}"),
        }
    }

    /// POST of JSON, with any status.
    ///
    /// # Errors
    ///
    /// If nobody answers with JSON.
    pub async fn post_any(&self, path: &str, body: &Value) -> anyhow::Result<(u16, Value)> {
        let request = self.http.post(format!("{}{path}", self.url)).json(body);
        let response = request.send().await?;
        Ok((response.status().as_u16(), response.json().await?))
    }

    /// Uploads bytes as a file, with any status.
    ///
    /// # Errors
    ///
    /// If nobody answers with JSON.
    pub async fn upload_bytes(&self, name: &str, bytes: Vec<u8>) -> anyhow::Result<(u16, Value)> {
        let part = reqwest::multipart::Part::bytes(bytes).file_name(name.to_owned());
        let form = reqwest::multipart::Form::new().part("jarfile", part);
        let request = self
            .http
            .post(format!("{}/jars/upload", self.url))
            .multipart(form);
        let response = request.send().await?;
        Ok((response.status().as_u16(), response.json().await?))
    }

    /// Uploads a module; returns its id.
    ///
    /// # Errors
    ///
    /// If it is refused.
    pub async fn upload(&self, module: &Path) -> anyhow::Result<String> {
        let name = module
            .file_name()
            .context("a file name")?
            .to_string_lossy()
            .into_owned();
        let (status, body) = self.upload_bytes(&name, std::fs::read(module)?).await?;
        let path = body["filename"].as_str();
        let path = path.with_context(|| format!("upload: {status} {body}"))?;
        Ok(path.rsplit('/').next().unwrap_or(path).to_owned())
    }

    /// Runs a module, which must be refused; returns the error.
    ///
    /// # Errors
    ///
    /// If it is accepted, or refused with another status than 400.
    pub async fn refused(&self, module: &str, body: &Value) -> anyhow::Result<String> {
        let (status, answer) = self.post_any(&format!("/jars/{module}/run"), body).await?;
        if status != 400 {
            bail!("400 was expected for {body}: {status} {answer}");
        }
        let error = answer["errors"][0].as_str();
        Ok(error
            .with_context(|| format!("an answer without errors: {answer}"))?
            .to_owned())
    }

    /// Runs a module; returns the job's id.
    ///
    /// # Errors
    ///
    /// If it is refused.
    pub async fn run(
        &self,
        module: &str,
        args: &[String],
        parallelism: u32,
        config: Value,
    ) -> anyhow::Result<String> {
        let body = json!({
            "programArgsList": args,
            "parallelism": parallelism,
            "flinkConfiguration": config,
        });
        let (status, answer) = self.post_any(&format!("/jars/{module}/run"), &body).await?;
        let job = answer["jobid"].as_str();
        Ok(job
            .with_context(|| format!("run: {status} {answer}"))?
            .to_owned())
    }

    /// The state of a job.
    ///
    /// # Errors
    ///
    /// If it is not known.
    pub async fn state(&self, job: &str) -> anyhow::Result<String> {
        let body = self.get(&format!("/jobs/{job}/status")).await?;
        Ok(body["status"].as_str().context("a status")?.to_owned())
    }

    /// Waits for a state of a job.
    ///
    /// # Errors
    ///
    /// If it does not come in time; names the state and the newest failure.
    pub async fn wait_for(&self, job: &str, state: &str, limit: Duration) -> anyhow::Result<()> {
        let what = format!("job {job} is {state}");
        let waited = wait_until(limit, &what, || async {
            self.state(job).await.is_ok_and(|now| now == state)
        });
        if let Err(error) = waited.await {
            let now = self.state(job).await?;
            bail!("{error}; it is {now}: {}", self.cause(job).await?);
        }
        Ok(())
    }

    /// Waits until all tasks of a job run.
    ///
    /// # Errors
    ///
    /// If they do not in time.
    pub async fn wait_running(&self, job: &str, limit: Duration) -> anyhow::Result<()> {
        let what = format!("all tasks of {job} run");
        let waited = wait_until(limit, &what, || async {
            let Ok(body) = self.get(&format!("/jobs/{job}")).await else {
                return false;
            };
            body["vertices"].as_array().is_some_and(|vertices| {
                !vertices.is_empty()
                    && vertices
                        .iter()
                        .all(|v| v["tasks"]["RUNNING"] == v["parallelism"])
            })
        });
        if let Err(error) = waited.await {
            bail!(
                "{error}; {}: {}",
                self.state(job).await?,
                self.cause(job).await?
            );
        }
        Ok(())
    }

    /// The newest failure of a job, or an empty text.
    ///
    /// # Errors
    ///
    /// If the job is not known.
    pub async fn cause(&self, job: &str) -> anyhow::Result<String> {
        let body = self.get(&format!("/jobs/{job}/exceptions")).await?;
        let entry = &body["exceptionHistory"]["entries"][0];
        Ok(entry["stacktrace"].as_str().unwrap_or_default().to_owned())
    }

    /// The checkpoint that a job was last restored from; 0 if there was none.
    ///
    /// # Errors
    ///
    /// If the job is not known.
    pub async fn restored_checkpoint(&self, job: &str) -> anyhow::Result<u64> {
        let body = self.get(&format!("/jobs/{job}/checkpoints")).await?;
        Ok(body["latest"]["restored"]["id"].as_u64().unwrap_or(0))
    }

    /// The value of a metric of a job's vertices, summed up over all whose name ends in `name`.
    ///
    /// # Errors
    ///
    /// If the job is not known.
    pub async fn metric(&self, job: &str, name: &str) -> anyhow::Result<f64> {
        let body = self.get(&format!("/jobs/{job}")).await?;
        let mut sum = 0.0;
        for vertex in body["vertices"].as_array().into_iter().flatten() {
            let path = format!(
                "/jobs/{job}/vertices/{}/metrics",
                vertex["id"].as_str().unwrap_or_default()
            );
            let known = self.get(&path).await?;
            for metric in known.as_array().into_iter().flatten() {
                let id = metric["id"].as_str().unwrap_or_default();
                if !id.ends_with(name) {
                    continue;
                }
                let value = self.get(&format!("{path}?get={id}")).await?;
                let text = value[0]["value"].as_str().unwrap_or("0").to_owned();
                sum += text
                    .parse::<f64>()
                    .with_context(|| format!("{id} is {text}"))?;
            }
        }
        Ok(sum)
    }

    /// Cancels a job.
    ///
    /// # Errors
    ///
    /// If that is refused.
    pub async fn cancel(&self, job: &str) -> anyhow::Result<()> {
        let request = self
            .http
            .patch(format!("{}/jobs/{job}?mode=cancel", self.url));
        request.send().await?.error_for_status()?;
        Ok(())
    }

    /// The number of completed checkpoints of a job.
    ///
    /// # Errors
    ///
    /// If the job is not known.
    pub async fn completed_checkpoints(&self, job: &str) -> anyhow::Result<u64> {
        let body = self.get(&format!("/jobs/{job}/checkpoints")).await?;
        body["counts"]["completed"].as_u64().context("a count")
    }
}
