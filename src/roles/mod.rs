//! The command line and what runs where.
//!
//! Why errors end here: everything below returns them; this folder decides what a person reads and
//! which code the process ends with (0 clean, 1 failure, 2 usage, 64 bad configuration).

mod cli;
mod components;
pub mod ctl;
mod host;
mod server;
mod streams;

use std::ffi::OsString;

use clap::{CommandFactory, FromArgMatches};
use tracing_subscriber::EnvFilter;

use crate::config::{self, LogFormat};
use cli::{Cli, Command};

/// The code of a failure.
pub const EXIT_FAILURE: i32 = 1;
/// The code of a configuration that cannot be used; nothing was started.
pub const EXIT_BAD_CONFIG: i32 = 64;

/// Runs what the arguments ask for; gives the process's exit code.
pub fn main(arguments: Vec<OsString>) -> i32 {
    let arguments = match with_file(arguments) {
        Ok(arguments) => arguments,
        Err(error) => return bad_config(&error),
    };
    let parsed = Cli::command().try_get_matches_from(arguments);
    let cli = match parsed.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return error.exit_code();
        }
    };
    match cli.command {
        Command::Server(options) => {
            if let Err(error) = options.validate() {
                return bad_config(&error);
            }
            start_logging(options.log_format, options.verbose);
            run(server::run(*options), 0)
        }
        Command::Ctl(options) => run(ctl::run(*options), 2),
        Command::Completion { shell } => {
            let mut command = Cli::command();
            clap_complete::generate(shell, &mut command, "clusterd", &mut std::io::stdout());
            0
        }
        Command::Check(options) => run(host::check(options), 2),
        Command::Uninstall(options) => run(host::uninstall(options), 2),
    }
}

fn bad_config(error: &dyn std::error::Error) -> i32 {
    eprintln!("error: {}", chain(error));
    EXIT_BAD_CONFIG
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}

/// Runs a role on a runtime of `threads` (0: one for each processor, at least two).
fn run(role: impl Future<Output = anyhow::Result<i32>>, threads: usize) -> i32 {
    let processors = std::thread::available_parallelism().map_or(2, usize::from);
    let threads = if threads == 0 { processors.max(2) } else { threads };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build();
    let result = match runtime {
        Ok(runtime) => {
            let result = runtime.block_on(role);
            // Blocking calls that never return must not keep the process.
            runtime.shutdown_background();
            result
        }
        Err(error) => Err(error.into()),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            EXIT_FAILURE
        }
    }
}

fn start_logging(format: LogFormat, verbose: u8) {
    let level = match verbose {
        0 => "info",
        1 => "debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_env("CLUSTERD_LOG_FILTER")
        .unwrap_or_else(|_| EnvFilter::new(format!("warn,clusterd={level}")));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => logs.init(),
        LogFormat::Json => logs.json().init(),
    }
}

/// Puts what the configuration file says before the arguments, so that these win.
fn with_file(arguments: Vec<OsString>) -> Result<Vec<OsString>, config::Error> {
    let role = arguments.get(1).and_then(|role| role.to_str()).unwrap_or("");
    if role != "server" {
        return Ok(arguments);
    }
    let given = cli::config_argument(&arguments).map(std::path::PathBuf::from);
    let named = given.or_else(|| std::env::var_os("CLUSTERD_CONFIG").map(Into::into));
    let path = match named {
        Some(path) => path,
        None if std::path::Path::new(config::FILE).exists() => config::FILE.into(),
        None => return Ok(arguments),
    };
    let allowed = cli::flag_names(role);
    let mut merged: Vec<OsString> = arguments[..2].to_vec();
    let from_file = config::file_arguments(&path, &allowed)?;
    let kept = cli::without_overridden(from_file, &arguments[2..]);
    merged.extend(kept.into_iter().map(OsString::from));
    merged.extend_from_slice(&arguments[2..]);
    Ok(merged)
}
