//! The misdeeds that need no more than the SDK.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::panic,
    reason = "misdeeds"
)]

use std::hint::black_box;

use tidemill::prelude::*;

use crate::raw;

/// A megabyte of text.
fn huge() -> String {
    "x".repeat(1 << 20)
}

/// An operator that behaves until it has seen enough.
pub(crate) struct Guilty {
    mode: String,
    harmless: u64,
    seen: ValueState<u64>,
}

impl Guilty {
    pub(crate) fn new(mode: String, harmless: u64, seen: ValueState<u64>) -> Self {
        Self {
            mode,
            harmless,
            seen,
        }
    }
}

impl KeyedProcess<String, String> for Guilty {
    type Out = String;

    fn process(&mut self, number: String, cx: &mut KeyedContext<'_, String, String>) -> Result<()> {
        self.seen.update(|seen| *seen += 1);
        if self.harmless > 0 {
            self.harmless -= 1;
            cx.emit(number);
            return Ok(());
        }
        match self.mode.as_str() {
            "emit-flood" => loop {
                cx.emit(huge());
            },
            "timer-flood" => (0..10_000_000).for_each(|n| cx.set_event_timer(i64::MAX - n)),
            "timer-in-the-past" | "fail" => cx.set_processing_timer(0),
            "reject" => return Err(Error::new(format!("the number {number} is not wanted"))),
            "huge-error" => return Err(Error::new(huge())),
            mode => commit(mode, &number)?,
        }
        cx.emit(number);
        Ok(())
    }

    fn on_timer(&mut self, _timer: Timer, cx: &mut KeyedContext<'_, String, String>) -> Result<()> {
        match self.mode.as_str() {
            "fail" => return Err(Error::new("this operator gives up")),
            "timer-in-the-past" => cx.set_processing_timer(0),
            _ => {}
        }
        Ok(())
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "being slow is one of the misdeeds"
)]
fn commit(mode: &str, number: &str) -> Result<()> {
    match mode {
        "loop" => loop_over_memory(),
        "spin" => spin(),
        "recurse" => drop(black_box(recurse(0))),
        "memory" => eat_memory(),
        "panic" => panic!("the number {number} is bad luck"),
        "huge-panic" => panic!("{}", huge()),
        "stdout-flood" => (0..u64::MAX).for_each(|n| println!("line {n} of a flood")),
        "stderr-flood" => (0..u64::MAX).for_each(|n| eprintln!("line {n} of a flood")),
        "sleep" => std::thread::sleep(std::time::Duration::from_secs(3600)),
        mode => raw::commit(mode),
    }
    Ok(())
}

pub(crate) fn while_planning(mode: &str, env: &Env) -> Result<()> {
    match mode {
        "loop-in-plan" => spin(),
        "recurse-in-plan" => drop(black_box(recurse(0))),
        "memory-in-plan" => eat_memory(),
        "panic-in-plan" => panic!("no plan today"),
        "fail-in-plan" => return Err(Error::new("this job does not want to be planned")),
        "unstable-plan" => drop(env.name(&format!("job {}", raw::unstable_number()))),
        "control-characters" => drop(env.name("line\u{7}\nbreak\u{1b}[31m")),
        "many-operators" => many_operators(env),
        _ => {}
    }
    Ok(())
}

fn many_operators(env: &Env) {
    for n in 0..1_000 {
        let source = env.source(&format!("source {n}"), datagen::sequence());
        source
            .decode(Text)
            .encode(Text)
            .sink(&format!("sink {n}"), blackhole::sink());
    }
}

fn spin() {
    while black_box(true) {}
}

fn loop_over_memory() {
    let mut bytes = vec![0_u8; 1024];
    loop {
        for byte in &mut bytes {
            *byte = byte.wrapping_add(1);
        }
        black_box(&mut bytes);
    }
}

fn recurse(depth: u64) -> u64 {
    let frame = black_box([depth; 64]);
    if depth == u64::MAX {
        0
    } else {
        black_box(recurse(depth + 1)) + frame[1]
    }
}

fn eat_memory() {
    let mut eaten = Vec::new();
    loop {
        eaten.push(vec![1_u8; 1 << 20]);
        black_box(&eaten);
    }
}

#[cfg(test)]
mod tests {
    use tidemill::testing::JobTest;

    use crate::hostile;

    fn run(mode: &str) -> tidemill::Result<u64> {
        let mut job = JobTest::new(hostile)
            .args(["--mode", mode, "--after", "2"])
            .start()?;
        job.send("numbers", ["0", "1", "2"])?;
        Ok(job.records("nowhere").len() as u64)
    }

    #[test]
    fn a_harmless_mode_does_no_harm() {
        assert_eq!(run("none").unwrap(), 3);
    }

    #[test]
    fn harm_comes_after_the_harmless_records() {
        let error = run("reject").unwrap_err().to_string();
        assert_eq!(error, "reject: the number 2 is not wanted");
    }

    #[test]
    fn misdeeds_of_the_plan_show_there() {
        let error = run("fail-in-plan").unwrap_err().to_string();
        assert_eq!(error, "this job does not want to be planned");
        let error = run("duplicate-uids").unwrap_err().to_string();
        assert!(error.contains("the same uid"), "{error}");
    }
}
