//! Bad input is refused at the earliest moment, with an error that says what is wrong and what to
//! do, and nothing else suffers from it.

use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};
use tidemill_e2e::{ClickRun, Cluster, ClusterBuilder, Program, click_args, module};
use tidemill_testkit::{Kafka, Record, wait_until};
use tokio::time::Instant;

const LIMIT: Duration = Duration::from_secs(60);
/// How long a submission may look for a broker that is not there.
const BROKER_LIMIT: Duration = Duration::from_secs(15);
const UPLOAD_BYTES_MAX: usize = 1 << 20;

/// The error of an answer that must have this status and exactly one error text.
fn error_of((status, body): (u16, Value), expected: u16) -> anyhow::Result<String> {
    let errors = body["errors"]
        .as_array()
        .with_context(|| format!("{status} {body}"))?;
    anyhow::ensure!(
        status == expected,
        "{expected} was expected: {status} {body}"
    );
    anyhow::ensure!(errors.len() == 1, "one error was expected: {body}");
    Ok(errors[0].as_str().context("a text")?.to_owned())
}

/// What each is, its bytes, and what the refusal must say.
fn modules(good: &[u8]) -> anyhow::Result<Vec<(&'static str, Vec<u8>, &'static str)>> {
    // In the middle of the first section, and so never in text that may be anything.
    let mut flipped = good.to_vec();
    flipped[20] ^= 0x10;
    let foreign = r#"(component (import "other:world/thing" (instance (export "f" (func)))))"#;
    let core = wat::parse_str("(module (func (export \"main\")))")?;
    Ok(vec![
        ("text", b"hello".to_vec(), "not a WebAssembly component"),
        ("empty", Vec::new(), "empty"),
        (
            "core module",
            core,
            "a core WebAssembly module, not a component",
        ),
        ("other world", wat::parse_str(foreign)?, "other:world/thing"),
        (
            "empty component",
            wat::parse_str("(component)")?,
            "tidemill:job",
        ),
        ("truncated", good[..good.len() / 3].to_vec(), "damaged"),
        ("flipped", flipped, "damaged"),
        (
            "too large",
            vec![0; 2 * UPLOAD_BYTES_MAX],
            "rest.server.max-content-length",
        ),
    ])
}

async fn uploads_are_refused(cluster: &Cluster) -> anyhow::Result<()> {
    let good = std::fs::read(module("word-count"))?;
    for (what, bytes, says) in modules(&good)? {
        let answer = cluster.rest.upload_bytes("bad.wasm", bytes).await;
        let (status, body) = answer.context(what)?;
        let expected = if what == "too large" { 413 } else { 400 };
        let error = error_of((status, body), expected).context(what)?;
        assert!(
            error.contains(says),
            "{what}: \"{says}\" is missing: {error}"
        );
    }
    for name in ["x.so", ".wasm", "", "..", "wasm"] {
        let error = error_of(cluster.rest.upload_bytes(name, good.clone()).await?, 400);
        error.with_context(|| format!("a file named \"{name}\""))?;
    }
    let list = cluster.rest.get("/jars").await?;
    let kept = list["files"].as_array().context("files")?.len();
    assert_eq!(kept, 1, "something refused was kept: {list}");
    Ok(())
}

/// A flipped bit in code or text may leave a valid module behind; it must not harm anything.
async fn flipped_bits_do_no_harm(cluster: &Cluster) -> anyhow::Result<()> {
    let good = std::fs::read(module("word-count"))?;
    for position in (0..16).map(|n| 8 + n * (good.len() - 8) / 16) {
        let mut flipped = good.clone();
        flipped[position] ^= 1 << (position % 8);
        let (status, body) = cluster.rest.upload_bytes("flipped.wasm", flipped).await?;
        assert!(
            status == 200 || status == 400,
            "byte {position}: {status} {body}"
        );
        if let Some(path) = body["filename"].as_str() {
            let id = path.rsplit('/').next().unwrap_or(path);
            let plan = cluster.rest.get_any(&format!("/jars/{id}/plan")).await?;
            assert!(plan.0 == 200 || plan.0 == 400, "byte {position}: {plan:?}");
            cluster
                .rest
                .send("DELETE", &format!("/jars/{id}"), &[], Vec::new())
                .await?;
        }
    }
    Ok(())
}

async fn broken_forms_are_refused(cluster: &Cluster) -> anyhow::Result<()> {
    let form = ("content-type", "multipart/form-data; boundary=x");
    let part = "--x\r\ncontent-disposition: form-data; name=\"a\"\r\n\r\nb\r\n--x--\r\n";
    let bodies: [(&[(&str, &str)], &str); 6] = [
        (&[], "no form at all"),
        (&[("content-type", "application/json")], "{}"),
        (&[("content-type", "multipart/form-data")], part),
        (&[form], "garbage"),
        (&[form], part),
        (&[form], "--x--\r\n"),
    ];
    for (headers, body) in bodies {
        let answer = cluster
            .rest
            .send("POST", "/jars/upload", headers, body.into())
            .await;
        let answer = answer.with_context(|| format!("{headers:?} {body}"))?;
        error_of(answer, 400).with_context(|| format!("{headers:?} {body}"))?;
    }
    Ok(())
}

/// The folders of a name are dropped: the file cannot leave the place for modules.
async fn names_cannot_lead_elsewhere(cluster: &Cluster) -> anyhow::Result<()> {
    let good = std::fs::read(module("word-count"))?;
    for name in [
        "../../evil.wasm",
        "/etc/evil.wasm",
        "..\\..\\evil.wasm",
        "a/../../evil.wasm",
    ] {
        let (status, body) = cluster.rest.upload_bytes(name, good.clone()).await?;
        assert_eq!(status, 200, "{name}: {body}");
        let path = std::path::PathBuf::from(body["filename"].as_str().context("a name")?);
        let inside = path
            .canonicalize()?
            .starts_with(cluster.dir().join("tmp").canonicalize()?);
        assert!(inside, "{name} became {}", path.display());
        let id = path
            .file_name()
            .context("a name")?
            .to_string_lossy()
            .into_owned();
        assert!(id.ends_with("_evil.wasm"), "{name} became {id}");
        cluster
            .rest
            .send("DELETE", &format!("/jars/{id}"), &[], Vec::new())
            .await?;
    }
    Ok(())
}

async fn wrong_requests_are_refused(cluster: &Cluster, module: &str) -> anyhow::Result<()> {
    let nobody = "00000000000000000000000000000000";
    let run = format!("/jars/{module}/run");
    let cases = [
        ("GET", "/nope".to_owned(), "", 404),
        ("GET", "/jobs/xyz".to_owned(), "", 400),
        ("GET", "/jobs/%2e%2e%2fetc".to_owned(), "", 400),
        ("GET", format!("/jobs/{nobody}"), "", 404),
        ("GET", format!("/jobs/{nobody}/vertices/x"), "", 404),
        ("GET", "/taskmanagers/nobody".to_owned(), "", 404),
        ("GET", "/jars/nobody/plan".to_owned(), "", 404),
        ("PATCH", format!("/jobs/{nobody}?mode=cancel"), "", 404),
        ("DELETE", "/jars/nobody".to_owned(), "", 404),
        ("DELETE", "/jars/..%2f..%2fx".to_owned(), "", 404),
        ("POST", "/jars/nobody/run".to_owned(), "{}", 404),
        ("GET", "/jars/upload".to_owned(), "", 405),
        ("PUT", "/jobs".to_owned(), "", 405),
        ("DELETE", "/overview".to_owned(), "", 405),
        ("POST", run.clone(), "{", 400),
        ("POST", run.clone(), r#"{"parallelism": "x"}"#, 400),
        ("POST", run.clone(), r#"{"jobId": "x"}"#, 400),
        ("POST", run.clone(), r#"{"programArgsList": "x"}"#, 400),
        ("POST", run, "\u{0}\u{1}", 400),
    ];
    let long = "x".repeat(5 << 20);
    let others = [
        ("GET", "/jobs/%ff".to_owned(), "", 400),
        ("GET", "/jobs/%zz".to_owned(), "", 400),
        (
            "POST",
            format!("/jars/{module}/run?parallelism=-1"),
            "",
            400,
        ),
        ("POST", format!("/jars/{module}/run"), &long, 413),
    ];
    for (method, path, body, status) in cases.into_iter().chain(others) {
        let answer = cluster.rest.send(method, &path, &[], body.into()).await;
        let answer = answer.with_context(|| format!("{method} {path}"))?;
        error_of(answer, status).with_context(|| format!("{method} {path} {body}"))?;
    }
    Ok(())
}

/// A body of a submission, and what the refusal must say.
fn submissions() -> Vec<(Value, Vec<&'static str>)> {
    let none = |extra: Value| {
        let mut body = json!({ "programArgsList": ["--mode", "none"] });
        for (key, value) in extra.as_object().into_iter().flatten() {
            body[key] = value.clone();
        }
        body
    };
    let config = |key: &str, value: &str| none(json!({ "flinkConfiguration": { key: value } }));
    let checkpoints = |dir: &str| {
        none(json!({ "flinkConfiguration": {
            "execution.checkpointing.interval": "1 s", "state.checkpoints.dir": dir,
        }}))
    };
    vec![
        (json!({}), vec!["missing required argument --mode"]),
        (
            json!({ "programArgs": "--mode none --records five" }),
            vec!["--records", "five"],
        ),
        (none(json!({ "parallelism": 0 })), vec!["parallelism"]),
        (
            none(json!({ "parallelism": 129 })),
            vec!["129", "128", "pipeline.max-parallelism"],
        ),
        (
            none(json!({ "savepointPath": "/no/such/savepoint" })),
            vec!["/no/such/savepoint"],
        ),
        (
            config("execution.checkpointing.intervall", "1 s"),
            vec!["\"execution.checkpointing.interval\"?"],
        ),
        (
            config("execution.checkpointing.interval", "soon"),
            vec!["soon", "expected a duration"],
        ),
        (
            config("rest.port", "1"),
            vec!["rest.port is a setting of the cluster"],
        ),
        (
            checkpoints("/proc/nope"),
            vec!["checkpoints cannot be written", "/proc/nope"],
        ),
        (checkpoints("ftp://x/y"), vec!["unknown scheme ftp"]),
        (
            checkpoints("s3://no-such-bucket/x"),
            vec!["checkpoints cannot be written", "no-such-bucket"],
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_uploads_and_requests_are_refused_and_a_running_job_does_not_notice()
-> anyhow::Result<()> {
    let kafka = Kafka::start().await?;
    let limit = UPLOAD_BYTES_MAX.to_string();
    let builder = ClusterBuilder::new()
        .slots(2)
        .set("rest.server.max-content-length", &limit);
    // Nobody listens there: an S3 that is not there must not hold a submission up.
    let builder = builder.set("s3.endpoint", "http://127.0.0.1:1");
    let builder = builder
        .set("s3.access-key", "key")
        .set("s3.secret-key", "secret");
    let cluster = builder.start().await?;
    let clicks = cluster.rest.upload(&module("click-event-count")).await?;
    let mut run = ClickRun::start(kafka.bootstrap(), "bad-beside", 16, 12_000).await?;
    let job = cluster.rest.run(&clicks, &run.args, 2, json!({})).await?;
    run.until_windows(1, LIMIT).await?;

    uploads_are_refused(&cluster).await?;
    flipped_bits_do_no_harm(&cluster).await?;
    broken_forms_are_refused(&cluster).await?;
    names_cannot_lead_elsewhere(&cluster).await?;
    let hostile = cluster.rest.upload(&module("hostile")).await?;
    wrong_requests_are_refused(&cluster, &hostile).await?;
    for (body, says) in submissions() {
        let start = Instant::now();
        let error = cluster.rest.refused(&hostile, &body).await?;
        for says in says {
            assert!(
                error.contains(says),
                "{body}: \"{says}\" is missing: {error}"
            );
        }
        assert!(
            start.elapsed() < BROKER_LIMIT,
            "{body} took {:?}",
            start.elapsed()
        );
    }

    let jobs = cluster.rest.get("/jobs/overview").await?;
    assert_eq!(
        jobs["jobs"].as_array().map(Vec::len),
        Some(1),
        "a refused job is there: {jobs}"
    );
    let verdict = run.finish(LIMIT).await?;
    assert!(verdict.is_right() && verdict.repeated == 0, "{verdict:?}");
    assert_eq!(cluster.rest.state(&job).await?, "RUNNING");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_brokers_and_topics_are_found_at_submission() -> anyhow::Result<()> {
    let kafka = Kafka::start().await?;
    kafka.create_topic("there", 1).await?;
    let cluster = ClusterBuilder::new().start().await?;
    let clicks = cluster.rest.upload(&module("click-event-count")).await?;
    let cases = [
        ("127.0.0.1:1", "there", "there", "127.0.0.1:1"),
        (
            "no-such-host.invalid:9092",
            "there",
            "there",
            "no-such-host.invalid",
        ),
        (kafka.bootstrap(), "not-there", "there", "not-there"),
        (kafka.bootstrap(), "there", "not-there", "not-there"),
    ];
    for (servers, input, output, says) in cases {
        let start = Instant::now();
        let body = json!({ "programArgsList": click_args(servers, input, output) });
        let error = cluster.rest.refused(&clicks, &body).await?;
        assert!(error.contains(says), "\"{says}\" is missing: {error}");
        assert!(
            start.elapsed() < BROKER_LIMIT,
            "it took {:?}: {error}",
            start.elapsed()
        );
    }
    Ok(())
}

/// Five clicks of one page in one window, a record that is none, and one that closes the window.
async fn produce_with_bad_record(kafka: &Kafka, name: &str) -> anyhow::Result<Vec<String>> {
    let (input, output) = (format!("{name}-in"), format!("{name}-out"));
    kafka.create_topic(&input, 1).await?;
    kafka.create_topic(&output, 1).await?;
    let click = |timestamp: i64| format!(r#"{{"timestamp":{timestamp},"page":"/shop"}}"#);
    let mut lines: Vec<String> = (0..5).map(click).collect();
    lines.insert(2, "this is not a click".to_owned());
    lines.push(click(60_000));
    kafka
        .produce(&input, lines.into_iter().map(Record::value))
        .await?;
    Ok(click_args(kafka.bootstrap(), &input, &output))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_not_json_fails_the_job_and_is_named() -> anyhow::Result<()> {
    let kafka = Kafka::start().await?;
    let args = produce_with_bad_record(&kafka, "fail").await?;
    let cluster = ClusterBuilder::new().start().await?;
    let clicks = cluster.rest.upload(&module("click-event-count")).await?;
    let settings = json!({ "restart-strategy.type": "none" });
    let job = cluster.rest.run(&clicks, &args, 1, settings).await?;
    cluster.rest.wait_for(&job, "FAILED", LIMIT).await?;
    let cause = cluster.rest.cause(&job).await?;
    for says in [
        "operator \"Decode\"",
        "this is not a click",
        "tidemill.rejected-records",
    ] {
        assert!(cause.contains(says), "\"{says}\" is missing: {cause}");
    }
    assert!(
        kafka.read_all("fail-out").await?.is_empty(),
        "a window was counted wrong"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_not_json_is_skipped_and_counted_if_the_job_says_so() -> anyhow::Result<()>
{
    let kafka = Kafka::start().await?;
    let args = produce_with_bad_record(&kafka, "skip").await?;
    let cluster = ClusterBuilder::new().start().await?;
    let clicks = cluster.rest.upload(&module("click-event-count")).await?;
    let settings = json!({ "tidemill.rejected-records": "skip" });
    let job = cluster.rest.run(&clicks, &args, 1, settings).await?;
    let results = kafka
        .read_until("skip-out", LIMIT, |results| !results.is_empty())
        .await?;
    assert!(
        results[0].text().contains(r#""page":"/shop","count":5"#),
        "{results:?}"
    );
    assert_eq!(cluster.rest.state(&job).await?, "RUNNING");
    wait_until(LIMIT, "the rejected record is counted", || async {
        cluster
            .rest
            .metric(&job, "numRecordsInErrors")
            .await
            .is_ok_and(|rejected| rejected == 1.0)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_configuration_key_is_refused_and_the_nearest_named() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("config.yaml");
    std::fs::write(&file, "heartbeat.intervall: 3 s\n")?;
    let file = file.to_str().context("a path in UTF-8")?;
    let module = module("hostile");
    let module = module.to_str().context("a path in UTF-8")?;
    let cases: [(&[&str], &str); 6] = [
        (
            &["coordinator", "-Drest.prot=5"],
            "did you mean \"rest.port\"?",
        ),
        (
            &["worker", "--config", file],
            "did you mean \"heartbeat.interval\"?",
        ),
        (
            &["worker", "--config", "/no/such/file.yaml"],
            "/no/such/file.yaml",
        ),
        (
            &["coordinator", "-Drest.port=many"],
            "\"many\" is not a valid value of rest.port",
        ),
        (&["coordinator", "-Drest.port"], "KEY=VALUE"),
        (
            &["run", "-Dexecution.checkpointing.intervall=5", module],
            "execution.checkpointing.interval",
        ),
    ];
    for (args, says) in cases {
        let ended = Program::run(args, dir.path(), LIMIT).await?;
        assert_eq!(ended.code, Some(1), "{args:?}: {ended:?}");
        assert!(
            ended.log.contains(says),
            "{args:?}: \"{says}\" is missing: {ended:?}"
        );
    }
    // A key of Flink's that has no meaning here is a warning.
    let ended = Program::run(
        &[
            "info",
            "-Djobmanager.memory.process.size=1g",
            module,
            "--mode",
            "none",
        ],
        dir.path(),
        LIMIT,
    )
    .await?;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_say_what_is_wrong_with_files_and_addresses() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let text = dir.path().join("text.wasm");
    std::fs::write(&text, "hello")?;
    let text = text.to_str().context("a path in UTF-8")?;
    let tmp = format!("-Dio.tmp.dirs={}", dir.path().join("tmp").display());
    let cases: [(&[&str], &str); 4] = [
        (&["run", "/no/such/file.wasm"], "/no/such/file.wasm"),
        (
            &["run", "-m", "127.0.0.1:1", text],
            "cannot reach a coordinator at http://127.0.0.1:1",
        ),
        (&["list", "-m", "127.0.0.1:1"], "cannot reach a coordinator"),
        (&["info", &tmp, text], "not a WebAssembly component"),
    ];
    for (args, says) in cases {
        let ended = Program::run(args, dir.path(), LIMIT).await?;
        assert_eq!(ended.code, Some(1), "{args:?}: {ended:?}");
        assert!(
            ended.log.contains(says),
            "{args:?}: \"{says}\" is missing: {ended:?}"
        );
    }
    Ok(())
}
