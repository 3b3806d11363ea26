//! The documentation of the configuration says what the code does.
//!
//! `UPDATE=1 cargo test --release -p tidemill-types --test documentation` writes
//! `docs/configuration.md` anew.

use std::{fmt::Write as _, fs, path::PathBuf};

use tidemill_types::config::{Config, KeyInfo, keys};

const HEAD: &str = "\
# Configuration

Every key there is, written from the code by a test. Sizes are numbers with `kb`, `mb`, `gb`; times with `ms`, `s`, `min`, `h`.
Keys of *jobs* can be set by the cluster's file, with `-D` at submission, over REST (`flinkConfiguration`), and by the job itself; those of
*the cluster* only where the process starts. `s3.*`, `s3a.*`, `fs.*`, `gs.*` and `azure.*` are handed to the storage as they are. [conf/config.yaml](../conf/config.yaml) is an example.
";

fn project_file(path: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join(path)
}

fn table(title: &str, wanted: impl Fn(&KeyInfo) -> bool) -> String {
    let mut text = format!("\n## {title}\n\n| key | default | meaning |\n|---|---|---|\n");
    for key in keys::ALL.iter().filter(|key| wanted(key)) {
        let default = match key.default {
            "" => String::new(),
            default => format!("`{default}`"),
        };
        writeln!(text, "| `{}` | {default} | {} |", key.name, key.doc.trim())
            .expect("a string takes all text");
    }
    text
}

#[test]
fn every_key_is_documented() {
    let cluster = table("Of the cluster", |key| !key.per_job);
    let expected = format!("{HEAD}{cluster}{}", table("Of jobs", |key| key.per_job));
    let file = project_file("docs/configuration.md");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&file, &expected).unwrap();
    }
    let found = fs::read_to_string(&file).unwrap();
    assert!(
        found == expected,
        "docs/configuration.md is not up to date; see the head of this file"
    );
}

#[test]
fn the_example_is_understood_with_and_without_what_is_commented_out() {
    let text = fs::read_to_string(project_file("conf/config.yaml")).unwrap();
    let (_, ignored) = Config::parse(&text).unwrap();
    assert!(ignored.is_empty(), "{ignored:?}");
    let mut shown = 0;
    for line in text.lines() {
        let Some(setting) = line
            .strip_prefix('#')
            .filter(|rest| !rest.starts_with([' ', '#']))
        else {
            continue;
        };
        if setting.is_empty() {
            continue;
        }
        shown += 1;
        Config::parse(setting).unwrap_or_else(|error| panic!("{line}: {error}"));
    }
    assert!(
        shown > 10,
        "settings that are commented out begin with # and no space"
    );
}
