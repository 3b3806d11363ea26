//! Files of lines as source and sink.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod suite;

use std::{fs, path::Path, time::Duration};

use tidemill_connectors::{ConnectorError, Registry, Sink};
use tidemill_types::{BatchBuilder, CheckpointId, ConnectorConfig};

fn source(path: &Path, options: &[(&str, &str)]) -> ConnectorConfig {
    let mut all = vec![("path", path.to_str().unwrap())];
    all.extend(options);
    suite::config("file", &all)
}

fn lines(prefix: &str, count: usize) -> Vec<String> {
    (0..count)
        .map(|n| format!("{prefix}{n} {}", "x".repeat(n % 50)))
        .collect()
}

#[tokio::test]
async fn every_line_comes_exactly_once_at_any_parallelism() {
    let dir = tempfile::tempdir().unwrap();
    let mut expected = Vec::new();
    for file in 0..5 {
        let lines = lines(&format!("{file}-"), 200);
        let end = if file % 2 == 0 { "\n" } else { "" };
        fs::write(
            dir.path().join(format!("f{file}.txt")),
            lines.join("\n") + end,
        )
        .unwrap();
        expected.extend(lines);
    }
    suite::source_conforms(&source(dir.path(), &[]), &expected, 30).await;
}

#[tokio::test]
async fn lines_are_what_lies_between_line_ends() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("lines");
    let long = "l".repeat(700_000);
    for (content, expected) in [
        ("", &[][..]),
        ("a", &["a"]),
        ("a\n", &["a"]),
        ("a\r\nb\n\n\nc\r\n", &["a", "b", "", "", "c"]),
        ("a\rb\n", &["a\rb"]),
        (&format!("{long}\nz"), &[&long, "z"]),
    ] {
        fs::write(&file, content).unwrap();
        assert_eq!(suite::read_bounded(&source(&file, &[])).await, expected);
        let uri = format!("file://{}", file.display());
        assert_eq!(
            suite::read_bounded(&suite::config("file", &[("path", &uri)])).await,
            expected
        );
    }
}

#[tokio::test]
async fn folders_in_folders_are_read_unless_not_wanted_and_hidden_files_never() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("sub/.hidden")).unwrap();
    for (name, line) in [
        ("a", "1"),
        ("sub/b", "2"),
        (".c", "3"),
        ("sub/_d", "4"),
        ("sub/.hidden/e", "5"),
    ] {
        fs::write(dir.path().join(name), line).unwrap();
    }
    assert_eq!(
        suite::read_bounded(&source(dir.path(), &[])).await,
        ["1", "2"]
    );
    let flat = source(dir.path(), &[("recursive", "false")]);
    assert_eq!(suite::read_bounded(&flat).await, ["1"]);
}

#[tokio::test]
async fn a_monitored_folder_gives_new_files_and_no_old_ones() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), "1\n2\n").unwrap();
    let config = source(dir.path(), &[("monitor-interval", "20 ms")]);
    let mut reader = suite::open_one(&config).await;
    let mut given = suite::Given::default();
    given
        .read(&mut reader, 1, |given| given.caught_up)
        .await
        .unwrap();
    // Written aside and moved, as a folder that is watched wants it.
    fs::write(dir.path().join(".b"), "3\n").unwrap();
    fs::rename(dir.path().join(".b"), dir.path().join("b")).unwrap();
    given
        .read(&mut reader, 10, |given| given.values.len() == 3)
        .await
        .unwrap();
    let states = reader.snapshot(CheckpointId(1)).unwrap();
    fs::write(dir.path().join(".c"), "4\n").unwrap();
    fs::rename(dir.path().join(".c"), dir.path().join("c")).unwrap();
    let mut again = suite::open(&config, suite::source_context(0, 1), Some(states))
        .await
        .unwrap();
    let mut rest = suite::Given::default();
    rest.read(&mut again, 10, |given| given.caught_up)
        .await
        .unwrap();
    assert_eq!(rest.values, ["4"]);
}

#[tokio::test]
async fn a_file_that_shrank_or_vanished_is_a_loss() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("f");
    fs::write(&file, "1\n2\n3\n").unwrap();
    let config = source(&file, &[]);
    let mut reader = suite::open_one(&config).await;
    let mut given = suite::Given::default();
    given
        .read(&mut reader, 2, |given| given.values.len() == 2)
        .await
        .unwrap();
    let states = reader.snapshot(CheckpointId(1)).unwrap();
    for change in [
        |file: &Path| fs::write(file, "1\n"),
        |file: &Path| fs::remove_file(file),
    ] {
        change(&file).unwrap();
        let cx = suite::source_context(0, 1);
        let mut reader = suite::open(&config, cx, Some(states.clone()))
            .await
            .unwrap();
        let read = suite::Given::default()
            .read(&mut reader, 2, |given| given.finished)
            .await;
        assert!(matches!(read, Err(ConnectorError::Lost(_))), "{read:?}");
    }
}

async fn open_sink(
    folder: &Path,
    options: &[(&str, &str)],
    restored: Vec<Vec<u8>>,
) -> Box<dyn Sink> {
    let config = source(folder, options);
    Registry::standard().validate_sink(&config).unwrap();
    Registry::standard()
        .open_sink(&config, suite::sink_context(0, 1), restored)
        .await
        .unwrap()
}

async fn write(sink: &mut Box<dyn Sink>, lines: &[&str]) {
    let mut batch = BatchBuilder::new();
    lines
        .iter()
        .for_each(|line| batch.push(0, None, Some(line.as_bytes())));
    sink.write(batch.take()).await.unwrap();
}

/// What a reader of the folder sees: the contents of its parts, sorted by name.
fn visible(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| !path.file_name().unwrap().to_str().unwrap().starts_with('.'))
        .collect();
    names.sort();
    names
        .iter()
        .map(|path| fs::read_to_string(path).unwrap())
        .collect()
}

#[tokio::test]
async fn parts_appear_when_their_checkpoint_is_complete() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("out");
    let mut sink = open_sink(&folder, &[], Vec::new()).await;
    write(&mut sink, &["a", "b"]).await;
    assert_eq!(sink.prepare(CheckpointId(1)).await.unwrap().len(), 1);
    write(&mut sink, &["c"]).await;
    assert_eq!(sink.prepare(CheckpointId(2)).await.unwrap().len(), 2);
    assert_eq!(
        sink.prepare(CheckpointId(3)).await.unwrap().len(),
        2,
        "no empty parts"
    );
    write(&mut sink, &["d"]).await;
    assert_eq!(visible(&folder), Vec::<String>::new());
    sink.commit(CheckpointId(1)).await.unwrap();
    assert_eq!(visible(&folder), ["a\nb\n"]);
    sink.commit(CheckpointId(3)).await.unwrap();
    sink.commit(CheckpointId(3)).await.unwrap();
    assert_eq!(visible(&folder), ["a\nb\n", "c\n"]);
    sink.finish().await.unwrap();
    assert_eq!(visible(&folder), ["a\nb\n", "c\n", "d\n"]);
}

#[tokio::test]
async fn what_a_checkpoint_lists_appears_after_a_crash_also_when_restored_twice() {
    let dir = tempfile::tempdir().unwrap();
    let mut sink = open_sink(dir.path(), &[], Vec::new()).await;
    write(&mut sink, &["a"]).await;
    let committables = sink.prepare(CheckpointId(1)).await.unwrap();
    write(&mut sink, &["lost with the process"]).await;
    sink.prepare(CheckpointId(2)).await.unwrap();
    drop(sink);
    for _ in 0..2 {
        drop(open_sink(dir.path(), &[], committables.clone()).await);
        assert_eq!(visible(dir.path()), ["a\n"]);
    }
    let name = fs::read_dir(dir.path()).unwrap().find_map(|entry| {
        let path = entry.unwrap().path();
        path.file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .starts_with("part")
            .then_some(path)
    });
    fs::remove_file(name.unwrap()).unwrap();
    let config = source(dir.path(), &[]);
    let again = Registry::standard()
        .open_sink(&config, suite::sink_context(0, 1), committables)
        .await;
    assert!(matches!(again.err(), Some(ConnectorError::Lost(_))));
}

#[tokio::test]
async fn parts_of_a_checkpoint_that_was_given_up_appear_with_the_next_also_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let mut sink = open_sink(dir.path(), &[], Vec::new()).await;
    write(&mut sink, &["given up"]).await;
    sink.prepare(CheckpointId(1)).await.unwrap();
    write(&mut sink, &["complete"]).await;
    let committables = sink.prepare(CheckpointId(2)).await.unwrap();
    drop(sink);
    let mut sink = open_sink(dir.path(), &[], committables).await;
    assert_eq!(visible(dir.path()), ["given up\n", "complete\n"]);
    assert!(sink.prepare(CheckpointId(3)).await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn parts_end_at_a_size_or_an_age() {
    let dir = tempfile::tempdir().unwrap();
    let options = [
        ("rolling.file-size", "10 b"),
        ("rolling.interval", "10 s"),
        ("rolling.inactivity", "4 s"),
        ("part-prefix", "views"),
        ("part-suffix", ".txt"),
    ];
    let mut sink = open_sink(dir.path(), &options, Vec::new()).await;
    write(&mut sink, &["12345", "12345", "b"]).await;
    tokio::time::advance(Duration::from_secs(5)).await;
    write(&mut sink, &["c"]).await;
    for _ in 0..4 {
        tokio::time::advance(Duration::from_secs(3)).await;
        write(&mut sink, &["d"]).await;
    }
    sink.finish().await.unwrap();
    assert_eq!(
        visible(dir.path()),
        ["12345\n12345\n", "b\n", "c\nd\nd\nd\n", "d\n"]
    );
    for entry in fs::read_dir(dir.path()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(
            name.starts_with("views-") && name.ends_with(".txt"),
            "{name}"
        );
    }
}

#[tokio::test]
async fn wrong_options_are_named() {
    let registry = Registry::standard();
    for (options, message) in [
        (&[][..], "the option `path` is missing"),
        (
            &[("path", "hdfs://host/x")],
            "is on hdfs, which this version does not support yet",
        ),
        (
            &[("path", "file://host/x")],
            "a local path is written file:///dir",
        ),
        (
            &[("path", "/x"), ("recursiv", "true")],
            "did you mean `recursive`?",
        ),
    ] {
        let error = registry
            .validate_source(&suite::config("file", options))
            .unwrap_err();
        assert!(error.to_string().contains(message), "{error}");
    }
    let config = suite::config("file", &[("path", "/x"), ("part-prefix", "a/b")]);
    assert!(registry.validate_sink(&config).is_err());
}
