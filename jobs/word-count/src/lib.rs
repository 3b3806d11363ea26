//! Counts how often each word occurs, and says so when the input ends.
//!
//! Arguments: `--input PATH` (a file or a folder of text files; made-up text without it),
//! `--output PATH` (a folder for the counts, `word count` in lines; standard output without it),
//! and `--rolling` (a line for each word that comes, with its count so far, for inputs that never
//! end). `--lines` says how many lines of text are made up.

use tidemill::Connector;
use tidemill::prelude::*;

/// The end of event time: its timers run when the input has ended.
const END: i64 = i64::MAX;

/// Describes the job.
///
/// # Errors
///
/// When an argument cannot be understood.
#[tidemill::job]
pub fn word_count(env: &Env, args: &Args) -> Result<()> {
    env.name("WordCount");
    let rolling = args.flag("rolling")?;
    env.source("Text", source(args)?)
        .decode(Text)
        .flat_map(split_into_words)
        .name("Split")
        .key_by_ref(|word| word)
        .process(|states| CountWords {
            count: states.value("count"),
            rolling,
        })
        .name("Count")
        .encode(Text)
        .sink("Counts", sink(args));
    Ok(())
}

fn source(args: &Args) -> Result<Connector> {
    let lines = args.parsed("lines")?.unwrap_or(1_000);
    Ok(match args.get("input") {
        Some(path) => file::source(path).into(),
        None => datagen::random_text(8).records(lines).into(),
    })
}

fn sink(args: &Args) -> Connector {
    match args.get("output") {
        Some(path) => file::sink(path).into(),
        None => print::sink().into(),
    }
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "operators own what they handle"
)]
fn split_into_words(line: String, out: &mut tidemill::Out<'_, String>) {
    for word in line
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
    {
        out.emit(word.to_lowercase());
    }
}

struct CountWords {
    count: ValueState<u64>,
    rolling: bool,
}

impl KeyedProcess<String, String> for CountWords {
    type Out = String;

    fn process(&mut self, word: String, cx: &mut KeyedContext<'_, String, String>) -> Result<()> {
        let count = self.count.update(|count| {
            *count += 1;
            *count
        });
        if self.rolling {
            cx.emit(format!("{word} {count}"));
        } else if count == 1 {
            cx.set_event_timer(END);
        }
        Ok(())
    }

    fn on_timer(&mut self, _end: Timer, cx: &mut KeyedContext<'_, String, String>) -> Result<()> {
        let count = self.count.take().unwrap_or_default();
        let word = cx.key()?;
        cx.emit(format!("{word} {count}"));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tidemill::testing::JobTest;

    use super::*;

    #[test]
    fn counts_come_when_the_input_ends() {
        let mut job = JobTest::new(word_count).start().unwrap();
        job.send("Text", ["To be, or not to be,", "that is the question."])
            .unwrap();
        assert!(job.texts("Counts").is_empty());
        job.end_input().unwrap();
        let mut counts = job.texts("Counts");
        counts.sort();
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
        assert_eq!(counts, expected);
    }

    #[test]
    fn rolling_counts_come_with_each_word() {
        let mut job = JobTest::new(word_count)
            .args(["--rolling"])
            .start()
            .unwrap();
        job.send("Text", ["to be or", "not to"]).unwrap();
        assert_eq!(
            job.texts("Counts"),
            ["to 1", "be 1", "or 1", "not 1", "to 2"]
        );
    }

    #[test]
    fn counts_survive_a_restart() {
        let mut job = JobTest::new(word_count).start().unwrap();
        job.send("Text", ["a b a"]).unwrap();
        job.checkpoint().unwrap();
        job.send("Text", ["a a a"]).unwrap();
        job.restart_from_checkpoint().unwrap();
        job.send("Text", ["b"]).unwrap();
        job.end_input().unwrap();
        let mut counts = job.texts("Counts");
        counts.sort();
        assert_eq!(counts, ["a 2", "b 2"]);
    }
}
