//! The sandbox's own benchmark, which lives with the runtime, and the native run it is compared to.

use std::process::Command;

use anyhow::ensure;

use crate::figures::{head, row};

/// Builds the native run, runs the runtime's benchmark, and turns its lines into tables.
pub(crate) fn measure() -> anyhow::Result<()> {
    let native = "build --quiet --profile job -p click-event-count --example native";
    cargo(native)?;
    let job = cargo("bench --quiet --profile release --workspace --bench sandbox -- job")?;
    println!("## Sandbox: click-event-count from JSON to counts, both tasks\n");
    head(&["code", "ns/record", "ratio"]);
    for line in job.lines() {
        let line = line.trim();
        let Some((code, figures)) = split_before_digits(line) else {
            continue;
        };
        let mut words = figures.split_whitespace();
        let nanos = words.next().unwrap_or_default();
        row(&[code, nanos, words.next().unwrap_or("1")]);
    }
    let crossing =
        cargo("bench --quiet --profile release --workspace --bench sandbox -- crossing")?;
    println!("\n## Crossing the border with a batch (values of 40 bytes, keys of 5)\n");
    head(&[
        "records",
        "in: ns/call",
        "in: ns/record",
        "in and out: ns/call",
        "in and out: ns/record",
    ]);
    for line in crossing.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if words.len() == 5 && words.iter().all(|word| word.parse::<f64>().is_ok()) {
            row(&words);
        }
    }
    println!("\nThe best of several rounds.");
    Ok(())
}

/// `sandbox, Page 114  1.2 times native` in two, before the first number.
fn split_before_digits(line: &str) -> Option<(&str, &str)> {
    let (at, _) = line
        .match_indices(' ')
        .find(|(at, _)| line[at + 1..].starts_with(|first: char| first.is_ascii_digit()))?;
    Some((line[..at].trim(), line[at..].trim()))
}

fn cargo(args: &str) -> anyhow::Result<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(args.split(' '))
        .current_dir(tidemill_testkit::project_root())
        .output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cargo {args} failed:\n{errors}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_parted_before_its_first_number() {
        let line = "sandbox, Page 114  1.2 times native";
        assert_eq!(
            split_before_digits(line),
            Some(("sandbox, Page", "114  1.2 times native"))
        );
        assert_eq!(split_before_digits("native not built"), None);
    }
}
