//! `word-count` on files, folders and standard output, with one process, two workers, and a worker
//! that is killed.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use anyhow::Context;
use serde_json::json;
use tidemill_e2e::{ClusterBuilder, Ended, Program, module};
use tidemill_testkit::wait_until;

const LIMIT: Duration = Duration::from_secs(60);
const WORDS: [&str; 5] = ["tide", "mill", "wheel", "Stone", "flour"];

type Counts = BTreeMap<String, u64>;

/// Writes so many lines of ten words each, in several files and a folder below.
fn write_text(folder: &Path, lines: usize) -> anyhow::Result<Counts> {
    fs::create_dir_all(folder.join("below"))?;
    let mut counts = Counts::new();
    let names = ["one.txt", "two.txt", "below/three.txt"];
    for (name, part) in names.iter().zip(0_usize..) {
        let mut text = String::new();
        for line in 0..lines / names.len() {
            for word in 0..10 {
                // Every word gets another count.
                let word = WORDS[(line * word + part) % (line % WORDS.len() + 1)];
                *counts.entry(word.to_lowercase()).or_default() += 1;
                text += word;
                text += if word.len() == 5 { ", " } else { " " };
            }
            text += "\n";
        }
        fs::write(folder.join(name), text)?;
    }
    Ok(counts)
}

/// Counts in lines of `word count`; each word may occur once only.
fn parse<'a>(lines: impl Iterator<Item = &'a str>) -> anyhow::Result<Counts> {
    let mut counts = Counts::new();
    for line in lines {
        let (word, count) = line
            .split_once(' ')
            .with_context(|| format!("a line: {line}"))?;
        let before = counts.insert(word.to_owned(), count.parse()?);
        anyhow::ensure!(before.is_none(), "{word} comes twice");
    }
    Ok(counts)
}

/// What the part files in a folder say.
fn read_counts(folder: &Path) -> anyhow::Result<Counts> {
    let mut text = String::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if path.is_dir() {
                folders.push(path);
            } else if !name.starts_with(['.', '_']) {
                text += &fs::read_to_string(&path)?;
            }
        }
    }
    parse(text.lines())
}

/// Runs word-count in one process to its end.
async fn local(dir: &Path, args: &[&str]) -> anyhow::Result<Ended> {
    let tmp = format!("-Dio.tmp.dirs={}", dir.join("tmp").display());
    let module = module("word-count");
    let module = module.to_str().context("a path in UTF-8")?;
    let all = [
        "local",
        tmp.as_str(),
        "-Drest.port=0",
        "-Djobmanager.rpc.port=0",
        "--job",
        module,
        "--",
    ];
    Program::run(&[&all[..], args].concat(), dir, LIMIT).await
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn words_of_a_folder_are_counted_into_a_folder_by_two_workers() -> anyhow::Result<()> {
    let cluster = ClusterBuilder::new().workers(2).start().await?;
    let (input, output) = (cluster.dir().join("in"), cluster.dir().join("out"));
    let expected = write_text(&input, 10_000)?;
    let module = cluster.rest.upload(&module("word-count")).await?;
    let args = ["--input", &text(&input), "--output", &text(&output)].map(ToOwned::to_owned);
    let job = cluster.rest.run(&module, &args, 2, json!({})).await?;
    cluster.rest.wait_for(&job, "FINISHED", LIMIT).await?;
    assert_eq!(read_counts(&output)?, expected);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_cluster_ends_with_its_job() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let (input, output) = (dir.path().join("text.txt"), dir.path().join("out"));
    fs::write(&input, "To be, or not to be:\nthat is the question.\n")?;
    let ended = local(
        dir.path(),
        &["--input", &text(&input), "--output", &text(&output)],
    )
    .await?;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let expected = [
        "be 2",
        "is 1",
        "not 1",
        "or 1",
        "question 1",
        "that 1",
        "the 1",
        "to 2",
    ];
    assert_eq!(read_counts(&output)?, parse(expected.into_iter())?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_are_printed_without_an_output() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let input = dir.path().join("text.txt");
    fs::write(&input, "ebb flow ebb\n\nflow ebb")?;
    let ended = local(dir.path(), &["--input", &text(&input)]).await?;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for line in ["ebb 3", "flow 2"] {
        assert!(
            ended.out.lines().any(|printed| printed.ends_with(line)),
            "{line}: {ended:?}"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_whose_job_is_refused_or_fails_ends_with_1() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let ended = local(dir.path(), &["--input", "/no/such/file"]).await?;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.log.contains("/no/such/file"), "{ended:?}");
    Ok(())
}

/// Counts come at the end only, so a killed worker must show neither in them nor in their number.
#[tokio::test(flavor = "multi_thread")]
async fn counts_are_exact_when_a_worker_is_killed_on_the_way() -> anyhow::Result<()> {
    let mut cluster = ClusterBuilder::new().start().await?;
    let (input, output) = (cluster.dir().join("in"), cluster.dir().join("out"));
    let expected = write_text(&input, 1_500_000)?;
    let module = cluster.rest.upload(&module("word-count")).await?;
    let args = ["--input", &text(&input), "--output", &text(&output)].map(ToOwned::to_owned);
    let settings = json!({
        "execution.checkpointing.interval": "100 ms",
        "restart-strategy.type": "fixed-delay",
        "restart-strategy.fixed-delay.delay": "100 ms",
    });
    let job = cluster.rest.run(&module, &args, 1, settings).await?;
    let rest = cluster.rest.clone();
    wait_until(LIMIT, "two checkpoints", || async {
        rest.completed_checkpoints(&job)
            .await
            .is_ok_and(|completed| completed >= 2)
    })
    .await?;
    assert_eq!(
        cluster.rest.state(&job).await?,
        "RUNNING",
        "too fast to be killed on the way"
    );
    cluster.kill_worker(0)?;
    cluster.start_worker()?;
    cluster.rest.wait_for(&job, "FINISHED", LIMIT).await?;
    assert!(
        cluster.rest.restored_checkpoint(&job).await? > 0,
        "it began again from nothing"
    );
    assert_eq!(read_counts(&output)?, expected);
    Ok(())
}
