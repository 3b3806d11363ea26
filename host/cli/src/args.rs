//! What can be said on the command line, in Flink's words where it has them.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Runs stream-processing jobs that are WebAssembly components.
#[derive(Debug, Parser)]
#[command(name = "tidemill", version, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// Configuration file with Flink's keys [default: config.yaml in $TIDEMILL_CONF_DIR, if set].
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Sets a configuration key, over the file.
    #[arg(short = 'D', global = true, value_name = "KEY=VALUE")]
    pub(crate) define: Vec<String>,
    /// Writes logs as JSON.
    #[arg(long, global = true)]
    pub(crate) log_json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Starts a coordinator: REST on 8081, and workers connect to it.
    Coordinator,
    /// Starts a worker, which connects to the coordinator and offers slots.
    Worker,
    /// Starts a coordinator and a worker in one process.
    Local(Local),
    /// Uploads a module and runs it.
    Run(Run),
    /// Lists jobs.
    List(List),
    /// Cancels a job.
    Cancel(Cancel),
    /// Shows the plan of a module as JSON.
    Info(Info),
    /// Runs the demo: broker, cluster, generator and the click-event job in one process.
    Playground(Playground),
}

impl Command {
    pub(crate) fn is_server(&self) -> bool {
        matches!(self, Self::Coordinator | Self::Worker | Self::Local(_))
    }
}

/// Options of `local`.
#[derive(Debug, Args)]
pub(crate) struct Local {
    /// Runs this module and ends with its job.
    #[arg(long, value_name = "FILE")]
    pub(crate) job: Option<PathBuf>,
    /// Parallelism of the job.
    #[arg(short, long, requires = "job")]
    pub(crate) parallelism: Option<u32>,
    /// Arguments of the job.
    #[arg(last = true, requires = "job")]
    pub(crate) args: Vec<String>,
}

/// How to reach the coordinator.
#[derive(Debug, Clone, Args)]
pub(crate) struct Target {
    /// Address of the coordinator's REST API, host:port or URL [default: from the configuration].
    #[arg(short = 'm', long = "jobmanager", value_name = "HOST:PORT")]
    pub(crate) jobmanager: Option<String>,
}

/// Options of `run`.
#[derive(Debug, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Returns when the job is submitted, instead of when it ends.
    #[arg(short, long)]
    pub(crate) detached: bool,
    /// Parallelism of the job.
    #[arg(short, long)]
    pub(crate) parallelism: Option<u32>,
    /// Checkpoint or savepoint to start from.
    #[arg(short = 's', long = "fromSavepoint", value_name = "PATH")]
    pub(crate) from_savepoint: Option<String>,
    /// Skips state of the savepoint that the job has no operator for.
    #[arg(short = 'n', long = "allowNonRestoredState")]
    pub(crate) allow_non_restored_state: bool,
    /// The module.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Arguments of the job.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) args: Vec<String>,
}

/// Options of `list`.
#[derive(Debug, Args)]
pub(crate) struct List {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Only running jobs.
    #[arg(short, long)]
    pub(crate) running: bool,
    /// Only jobs that wait to run.
    #[arg(short, long)]
    pub(crate) scheduled: bool,
    /// Also jobs that have ended.
    #[arg(short, long)]
    pub(crate) all: bool,
}

/// Options of `cancel`.
#[derive(Debug, Args)]
pub(crate) struct Cancel {
    #[command(flatten)]
    pub(crate) target: Target,
    /// The job.
    pub(crate) job: String,
}

/// Options of `info`.
#[derive(Debug, Args)]
pub(crate) struct Info {
    /// Parallelism of the job.
    #[arg(short, long)]
    pub(crate) parallelism: Option<u32>,
    /// The module.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Arguments of the job.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) args: Vec<String>,
}

/// Options of `playground`.
#[derive(Debug, Args)]
pub(crate) struct Playground {
    /// Ends after so many windows per page; the exit code says whether every count was right.
    #[arg(long)]
    pub(crate) windows: Option<u64>,
    /// Events per second, over all pages.
    #[arg(long, default_value_t = 6000)]
    pub(crate) rate: u64,
    /// Uses this Kafka instead of an embedded broker.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) bootstrap_servers: Option<String>,
    /// Parallelism of the job.
    #[arg(short, long, default_value_t = 2)]
    pub(crate) parallelism: u32,
    /// The click-event-count module [default: beside this program].
    #[arg(long, value_name = "FILE")]
    pub(crate) module: Option<PathBuf>,
}

/// Moves every `-D` that stands before the command to behind it: of an option given in both places
/// clap keeps the later ones only, and settings must not get lost silently.
pub(crate) fn defines_after_command(args: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut args = args.into_iter();
    let mut front: Vec<String> = args.next().into_iter().collect();
    let mut defines = Vec::new();
    while let Some(arg) = args.next() {
        if arg == "-D" {
            defines.push(arg);
            defines.extend(args.next());
        } else if arg.starts_with("-D") {
            defines.push(arg);
        } else if arg == "--config" {
            front.push(arg);
            front.extend(args.next());
        } else {
            let is_command = !arg.starts_with('-');
            front.push(arg);
            if is_command {
                break;
            }
        }
    }
    front.into_iter().chain(defines).chain(args).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_before_and_after_the_command_all_count() {
        let line = "tidemill -D a=1 --config f -Db=2 local -D c=3 --job j -- -D x";
        let args = defines_after_command(line.split(' ').map(ToOwned::to_owned));
        let cli = Cli::try_parse_from(args).unwrap();
        assert_eq!(cli.global.define, ["a=1", "b=2", "c=3"]);
        let Command::Local(local) = cli.command else {
            panic!("another command");
        };
        assert_eq!(local.args, ["-D", "x"]);
    }
}
