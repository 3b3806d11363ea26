//! Misbehaves in one way, named by `--mode`, so that tests can show that only this job fails.
//!
//! Records come from a generator (`--records`, `--rate`) and go nowhere. What misbehaves is an
//! operator that bears its mode's name, after `--after` harmless records.
//!
//! The modes: `loop`, `spin` (a loop that touches no memory), `recurse`, `memory`, `metric-flood`, `panic`,
//! `fail`, `reject`, `emit-flood`, `stdout-flood`, `stderr-flood`, `huge-error`, `huge-panic`, `log-flood`,
//! `timer-flood`, `timer-in-the-past`, `huge-key`, `bad-port`, `bad-ends`, `decreasing-ends`,
//! `short-column`, `bad-null`, `bad-header`, `bad-state`, `bad-operator`, `foreign-key`, `sleep`,
//! and while planning: `loop-in-plan`, `panic-in-plan`, `memory-in-plan`, `recurse-in-plan`,
//! `fail-in-plan`, `unstable-plan`, `huge-name`, `control-characters`, `many-operators`,
//! `duplicate-uids`. `none` does no harm.

mod guilty;
mod raw;

use tidemill::prelude::*;

/// Describes the job.
///
/// # Errors
///
/// When an argument is missing or cannot be understood, and in the mode `fail-in-plan`.
#[tidemill::job]
pub fn hostile(env: &Env, args: &Args) -> Result<()> {
    let mode = args.required("mode")?.to_owned();
    guilty::while_planning(&mode, env)?;
    let mut numbers = datagen::sequence();
    if let Some(records) = args.parsed("records")? {
        numbers = numbers.records(records);
    }
    if let Some(rate) = args.parsed("rate")? {
        numbers = numbers.rate(rate);
    }
    let after: u64 = args.parsed("after")?.unwrap_or(0);
    let name = if mode == "huge-name" {
        "n".repeat(1 << 20)
    } else {
        mode.clone()
    };
    let uid = if mode == "duplicate-uids" {
        "same"
    } else {
        "guilty"
    };

    let handled = env
        .source("numbers", numbers)
        .decode(Text)
        .key_by_ref(|number| number)
        .process(|states| guilty::Guilty::new(mode.clone(), after, states.value("seen")))
        .name(&name)
        .uid(uid);
    if mode == "duplicate-uids" {
        handled
            .map(|number| number)
            .uid(uid)
            .encode(Text)
            .sink("nowhere", blackhole::sink());
    } else {
        handled.encode(Text).sink("nowhere", blackhole::sink());
    }
    Ok(())
}
