//! The `tidemill` binary: every process of a cluster, and the command line that talks to one.

#![expect(
    clippy::disallowed_methods,
    reason = "commands wait in real time and join what they start"
)]

mod args;
mod client;
mod cluster;
mod commands;
mod settings;

use std::{io::IsTerminal, process::ExitCode};

use clap::Parser as _;

use crate::args::{Cli, Command};

fn main() -> ExitCode {
    // The planner limits itself before anything else starts.
    if std::env::args().nth(1).as_deref() == Some("planner") {
        return tidemill_runtime::planner::main(cluster::preflight);
    }
    let cli = Cli::parse_from(args::defines_after_command(std::env::args()));
    start_logging(&cli);
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "the last word to the user")]
            {
                eprintln!("tidemill: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let settings = settings::load(&cli.global)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("tidemill-control")
        .enable_all()
        .build()?;
    let code = runtime.block_on(async {
        match cli.command {
            Command::Coordinator => cluster::coordinator(settings).await,
            Command::Worker => cluster::worker(settings).await,
            Command::Local(local) => cluster::local(settings, local).await,
            Command::Run(run) => commands::run(&settings, run).await,
            Command::List(list) => commands::list(&settings, list).await,
            Command::Cancel(cancel) => commands::cancel(&settings, cancel).await,
            Command::Info(info) => commands::info(&settings, info).await,
            Command::Playground(playground) => commands::playground(settings, playground).await,
        }
    });
    runtime.shutdown_background();
    code
}

/// Logs go to standard error. `TIDEMILL_LOG` filters them as `RUST_LOG` does.
fn start_logging(cli: &Cli) {
    let default = if cli.command.is_server() {
        "info"
    } else {
        "error"
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("TIDEMILL_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(default));
    let logging = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    if cli.global.log_json {
        logging.json().init();
    } else {
        logging
            .with_target(false)
            .with_ansi(std::io::stderr().is_terminal())
            .init();
    }
}
